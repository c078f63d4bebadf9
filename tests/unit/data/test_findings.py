"""Findings: messages, counts and log lines."""

import pickle

from rtdetrv2_pytorch.src.data.finding_kinds import KINDS
from rtdetrv2_pytorch.src.data.findings import Finding, Findings, UnusableError, grouped


def test_log_warns_once_per_kind_of_skipped_data(caplog):
    findings = Findings()
    for i in range(5):
        findings.add(Finding("box_zero_area", f"{i}.png", "annotation 7", lost_objects=1))
    findings.add(Finding("missing_image", "a\x1b.png", lost_images=1, lost_objects=2))
    findings.add(Finding("box_as_text", "b.png"))
    assert findings.counts() == {"box_zero_area": 5, "missing_image": 1, "box_as_text": 1}
    assert (findings.lost_images, findings.lost_objects) == (1, 7)
    findings.log("train.json")
    assert caplog.messages == [
        "train.json: skips: boxes without area (5): 0.png (annotation 7); 1.png (annotation 7); "
        "2.png (annotation 7); and 2 more",
        "train.json: skips: listed images whose file is missing (1 with 2 objects): a\\x1b.png",
    ]


def test_log_is_silent_without_findings(caplog):
    Findings().log("train.json")
    assert caplog.messages == []


def test_groups_are_in_order_of_occurrence_and_sum_counts():
    findings = Findings("val")
    findings.add(Finding("unknown_geometry", "cat", "polygon", count=4))
    findings.add(Finding("left_out", "a.png"))
    findings.add(Finding("unknown_geometry", "cat", "line", count=2))
    first, second = grouped(findings)
    assert (first.kind.name, first.count, first.examples) == (
        "unknown_geometry",
        6,
        "val: cat (polygon); val: cat (line)",
    )
    assert (second.kind.name, second.count, second.examples) == ("left_out", 1, "val: a.png")


def test_unusable_error_has_a_message_and_can_be_pickled():
    assert str(UnusableError("bomb", "too large")) == "too large"
    assert str(UnusableError("bomb")) == KINDS["bomb"].title
    copy = pickle.loads(pickle.dumps(UnusableError("bomb", "too large")))
    assert (copy.kind, copy.detail) == ("bomb", "too large")

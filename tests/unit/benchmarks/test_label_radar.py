"""Scores of the label radar against planted errors."""

import numpy as np
import pytest

from benchmarks.label_radar.spoiling import (
    KINDS,
    Spoiled,
    averaged,
    hits,
    precision_at,
    recall_at,
    repaired,
    spoil,
)
from rtdetrv2.analysis.radar.suspicions import NamedBox, Suspicion

CONTENT = {
    "images": [{"id": i, "width": 200, "height": 100} for i in range(10)],
    "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    "annotations": [
        {"id": 8 * i + k, "image_id": i, "category_id": 1, "bbox": [20 * k, 10.0, 15.0, 30.0]}
        for i in range(10)
        for k in range(8)
    ],
}


def suspicion(x, *, image=0, missed=False, probability=0.5, kind="unsupported", strength=0.0):
    box = NamedBox("a", (x, 0.0, x + 10.0, 10.0), 1.0)
    return Suspicion(
        kind="missed" if missed else kind,
        probability=probability,
        strength=strength,
        split="train",
        file_name="a.jpg",
        image_id=image,
        label=None if missed else box,
        detection=box if missed else None,
    )


def planted(kind, x, image=0):
    return Spoiled(kind, image, np.array([x, 0.0, x + 10.0, 10.0]), 7)


def test_a_tenth_is_spoiled_in_four_ways_and_can_be_repaired():
    before = {each["id"]: each for each in CONTENT["annotations"]}
    spoiled, made = spoil(CONTENT, 0.1, seed=0)
    assert [each.kind for each in made] == [*KINDS, *KINDS]
    after = {each["id"]: each for each in spoiled["annotations"]}
    assert len(after) == 80 - 2 + 2
    for each in made:
        new = after.get(each.annotation_id)
        if each.kind == "missed":
            assert new is None
            continue
        x, y, width, height = new["bbox"]
        np.testing.assert_allclose(each.box, [x, y, x + width, y + height])
        if each.kind == "unsupported":
            assert each.annotation_id not in before
        elif each.kind == "wrong_class":
            assert (new["category_id"], new["bbox"]) == (2, before[new["id"]]["bbox"])
        else:
            assert (new["category_id"], new["bbox"]) != (1, before[new["id"]]["bbox"])
    whole = repaired(CONTENT, spoiled, made, {*range(8)})
    assert sorted(whole["annotations"], key=lambda a: a["id"]) == CONTENT["annotations"]


def test_a_hit_overlaps_the_spoiled_label_in_the_same_image():
    made = [planted("loose_box", 50), planted("missed", 90), planted("unsupported", 50, image=1)]
    shown = [
        suspicion(52),
        suspicion(52, missed=True),  # the label is there
        suspicion(92, missed=True),
        suspicion(50, image=1),
        suspicion(56, image=1),  # IoU 0.25
        suspicion(90),  # the label is missing
    ]
    assert hits(shown, made) == [0, -1, 1, 2, -1, -1]


def test_precision_and_recall():
    found = [0, -1, 1, 1, -1, 2, -1, 3]
    assert precision_at(found, 4) == 0.75
    assert precision_at(found[:2], 4) == 0.5
    # Of 40 correct labels, 5 % are two false alarms: the search ends at the third one.
    assert recall_at(found, 10, 40, 0.05) == pytest.approx(0.3)
    assert recall_at(found, 10, 100, 0.05) == pytest.approx(0.4)


def test_probabilities_are_averaged_over_the_epochs():
    last = [suspicion(0, probability=0.9), suspicion(50, missed=True, probability=0.4)]
    first = [
        suspicion(51, missed=True, probability=0.8, strength=1.0),
        suspicion(51, image=1, missed=True, probability=0.7),
        suspicion(0, probability=0.1),
    ]
    merged = averaged([last, first])
    assert [each.probability for each in merged] == pytest.approx([0.6, 0.5, 0.35])
    assert [each.detection for each in merged[:1]] == [last[1].detection]
    assert [each.image_id for each in merged] == [0, 0, 1]

"""The data report: terminal output, JSON file, page, and the cache of the second pass."""

import json
import os

import pytest

from rtdetrv2.commands import doctor
from rtdetrv2_pytorch.src.data.conversion import Split
from rtdetrv2_pytorch.src.data.finding_kinds import KINDS
from rtdetrv2_pytorch.src.data.findings import Finding
from rtdetrv2_pytorch.src.doctor import examination
from rtdetrv2_pytorch.src.doctor.cache import FactsCache
from rtdetrv2_pytorch.src.doctor.data_page import write_page
from rtdetrv2_pytorch.src.doctor.data_report import Counts, DataReport, SplitSummary
from rtdetrv2_pytorch.src.doctor.examination import Options, examine
from rtdetrv2_pytorch.src.doctor.image_files import ImageFacts
from tests.damaged_datasets import CocoFolder, encoded

EVIL = "<img src=x onerror=window.hacked=1>\x1b[31m"


@pytest.fixture
def data(tmp_path):
    return CocoFolder(tmp_path / "data")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def report_of(*findings):
    splits = [SplitSummary("train", Counts(7, 3), Counts(20, 2), clipped=1, classes={"cat": 20})]
    return DataReport("test", (640, 480), 300, splits, findings)


def command(data, tmp_path, *options):
    data.write()
    return doctor.main(["--data", str(data.root), "-o", str(tmp_path / "out"), *options])


def test_command_prints_findings_and_writes_both_files(data, tmp_path, capsys):
    data.add("train", "zero.png", b"")
    assert command(data, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "empty image files" in printed
    assert "6 images: 5 used, 1 skipped; 6 boxes: 5 used, 1 skipped" in " ".join(printed.split())
    content = json.loads((tmp_path / "out" / "data_report.json").read_text())
    assert content["verdict"] == "uses"
    assert content["images"] == {"given": 6, "used": 5, "skipped": 1}
    assert [f["kind"] for f in content["findings"]] == ["empty_file"]
    assert content["findings"][0]["offenders"] == [
        {"split": "train", "where": "zero.png", "detail": "", "count": 1}
    ]
    assert "zero.png" in (tmp_path / "out" / "data_report.html").read_text()


def test_exit_status_is_1_if_the_trainer_rejects_the_data(data, tmp_path, capsys):
    data.content["val"]["annotations"].clear()
    assert command(data, tmp_path) == 1
    assert "The trainer refuses this data" in capsys.readouterr().out


def test_folder_without_splits_is_an_error(tmp_path, capsys):
    assert doctor.main(["--data", str(tmp_path)]) == 1
    assert "no data set recognized" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--size", "6x4x0"], ["--size", "0x5"], ["--queries", "-1"]])
def test_invalid_options(options, capsys):
    assert doctor.main(["--data", "x", *options]) == 2
    assert options[1] in capsys.readouterr().err


def test_many_findings_of_one_kind_are_one_line(data, tmp_path, capsys):
    for i in range(300):
        data.add("train", f"zero{i:03}.png", b"")
    assert command(data, tmp_path) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) < 40
    assert "300" in printed
    content = json.loads((tmp_path / "out" / "data_report.json").read_text())
    assert len(content["findings"][0]["offenders"]) == 300


def test_names_are_escaped_in_the_terminal(data, tmp_path, capsys):
    data.add("train", f"[red]{EVIL.replace('/', '')}.png", b"")
    assert command(data, tmp_path) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "[red]<img" in printed.replace("\n", "")


def test_log_lines_are_limited_and_sorted_by_severity():
    report = report_of(
        *(Finding(kind, "a.png") for kind in KINDS if KINDS[kind].severity == "note"),
        *(Finding("empty_file", f"{i}.png", split="train") for i in range(5)),
    )
    lines = list(report.lines(most=3))
    assert lines[0].startswith("The trainer uses this data. 10 images: 7 used, 3 skipped")
    assert lines[1] == (
        "skips: empty image files (5): train: 0.png; train: 1.png; train: 2.png; and 2 more"
    )
    assert len(lines) == 5
    assert lines[4].endswith("more kinds are in data_report.html")


def test_names_are_escaped_in_the_page(tmp_path):
    report = report_of(Finding("class_name_odd", EVIL, EVIL), Finding("empty_split", EVIL, EVIL))
    report.splits[0].classes[EVIL] = 1
    page = write_page(report, tmp_path).read_text()
    assert "<img" not in page
    assert "\x1b" not in page
    assert page.count("&lt;img src=x onerror=window.hacked=1&gt;\\x1b[31m") == 7
    assert "http" not in page.replace("http-equiv", "")  # the page loads no external files


def test_number_and_size_of_pictures_in_the_page_are_limited(data, tmp_path):
    for i in range(20):
        data.add("train", f"{i}.jpg", encoded("PNG", 100 + i), bbox=(40, 30, 90, 90))
    command(data, tmp_path)
    page = (tmp_path / "out" / "data_report.html").read_text()
    for kind in ("wrong_extension", "box_out_of_bounds"):
        section = page.split(KINDS[kind].title)[1].split("</details>")[0]
        assert section.count('<img src="data:image/jpeg;base64,') == 8
        assert section.count("<li>") == 20
    assert len(page) < 300_000


def test_invalid_unicode_in_names(tmp_path):
    report = report_of(Finding("missing_image", "odd\udcff.png"))
    assert "odd\\udcff.png" in write_page(report, tmp_path).read_text()
    content = json.loads(report.write_json(tmp_path).read_text())
    assert content["findings"][0]["offenders"][0]["where"] == "odd\udcff.png"


# The second pass


def run(data, cache):
    splits = [Split(s, data.ann_file(s), data.root / s) for s in ("train", "val")]
    return examine("test", *splits, Options(cache=cache))


def test_unchanged_files_are_not_decoded_again(data, tmp_path, monkeypatch):
    data.add("train", "zero.png", b"")
    data.write()
    decoded = []
    original = examination.examine_image

    def counted(path, declared_wh):
        decoded.append(path.name)
        return original(path, declared_wh)

    monkeypatch.setattr(examination, "examine_image", counted)
    first = run(data, tmp_path / "c")
    assert len(decoded) == 6
    assert run(data, tmp_path / "c").as_dict() == first.as_dict()
    assert len(decoded) == 6
    changed = data.root / "train" / "train1.png"
    os.utime(changed, ns=(0, 0))  # another time
    (data.root / "train" / "zero.png").write_bytes(encoded("PNG", 5))  # another size
    second = run(data, tmp_path / "c")
    assert sorted(decoded[6:]) == ["train1.png", "zero.png"]
    assert second.images == Counts(6, 0)
    run(data, None)
    assert len(decoded) == 14


@pytest.mark.parametrize("text", ["", "{", "[1, 2, 3]", '["other version", {}]', "null"])
def test_invalid_cache_counts_as_empty(data, tmp_path, text):
    data.write()
    run(data, tmp_path / "c")
    for path in (tmp_path / "c").iterdir():
        path.write_text(text)
    assert run(data, tmp_path / "c").images == Counts(5, 0)


def test_failed_cache_write_is_logged(data, tmp_path, caplog):
    data.write()
    (tmp_path / "file").touch()
    assert run(data, tmp_path / "file" / "c").images == Counts(5, 0)
    assert "cannot be written" in caplog.text


def test_interrupted_pass_keeps_the_cache(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    folder = tmp_path / "c"
    cache = FactsCache(folder, tmp_path)
    key = cache.key(path, None)
    cache.put(key, ImageFacts((1, 2), (("huge_image", "1x2"),), "d", "l"))
    cache.save(is_complete=True)
    FactsCache(folder, tmp_path).save(is_complete=False)
    assert FactsCache(folder, tmp_path).get(key) == ImageFacts(
        (1, 2), (("huge_image", "1x2"),), "d", "l"
    )
    FactsCache(folder, tmp_path).save(is_complete=True)  # the file was not examined
    assert FactsCache(folder, tmp_path).get(key) is None


@pytest.mark.parametrize(
    ("skipped", "boxes", "severity"),
    [
        ({"train": ("box_crowd", 57)}, {"train": 61}, "warning"),
        ({"train": ("box_crowd", 31)}, {"train": 61}, "warning"),
        ({"train": ("box_crowd", 30)}, {"train": 61}, "note"),
        ({"train": ("object_left_out", 20)}, {"train": 22}, "warning"),
        ({"val": ("box_crowd", 57)}, {"train": 1000, "val": 61}, "warning"),
        ({"train": ("class_not_selected", 20)}, {"train": 22}, "note"),
    ],
)
def test_skipping_most_boxes_of_a_split_is_a_warning(skipped, boxes, severity):
    """Some tools export all masks as crowd regions."""
    splits = [SplitSummary(name, Counts(6), Counts(count)) for name, count in boxes.items()]
    findings = [
        Finding(kind, "a.jpg", split=name, count=count) for name, (kind, count) in skipped.items()
    ]
    report = DataReport("test", (640, 480), 300, splits, findings)
    (group,) = report.groups()
    assert group.kind.severity == severity
    assert report.as_dict()["findings"][0]["severity"] == severity

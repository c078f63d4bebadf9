"""The training report: its metrics, and reports of incomplete runs."""

import dataclasses
import json
import math
import re
import shutil

import numpy as np
import pytest

from rtdetrv2_pytorch.src.report.training_report import TrainingReport, write_report
from tests.damaged_datasets import CocoFolder, encoded
from tests.synthetic_runs import make_run

EVIL = """<img src=x onerror="alert(1)">'"&</script>\x1b[31m"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "cells")


def page_of(source):
    return write_report(source).read_text()


def test_page_shows_the_metrics_of_the_evaluation(source):
    page = page_of(source)
    evaluation = source.evaluation
    assert f"<b>{evaluation.stats['AP']:.3f}</b>" in page
    assert f"<b>{evaluation.best.threshold:.2f}</b><span>recommended threshold" in page
    assert "Finished: 6 of 6 epochs" in page
    assert "best epoch of 6" in page
    assert "<b>6 min 00 s</b><span>on CPU" in page  # six epochs of 50 s and 10 s
    for c in evaluation.classes:
        row = re.search(rf"<tr><td>{c.name}</td>.*?</tr>", page, re.DOTALL)[0]
        numbers = re.findall(r'number">([^<]+)<', row)
        assert numbers[:2] == [f"{c.ap:.3f}", f"{c.ap50:.3f}"]
        assert numbers[5] == f"{c.best.threshold:.2f}"
        assert numbers[6] == str(c.num_boxes)
    assert "0.0001; warm-up 5 steps" in page
    assert "best F1 (IoU 0.5)" in page
    words = " ".join(page.split())
    assert "The F1 of Supervisely's model benchmark is the mean over IoU 0.5 to 0.95" in words


def test_page_shows_the_metrics_with_the_limit_of_coco(source):
    assert "COCO's limit" not in page_of(source)
    stats = {**source.evaluation.stats, "AP_coco": 0.337, "AP50_coco": 0.338}
    evaluation = dataclasses.replace(source.evaluation, stats=stats, max_detections=300)
    words = " ".join(page_of(dataclasses.replace(source, evaluation=evaluation)).split())
    assert "<span>AP (IoU 0.5 to 0.95); 0.337 with COCO's limit</span>" in words
    assert "AP counts 300 detections per class and image" in words
    assert "limit of 100: AP 0.337, AP50 0.338" in words
    assert "recall (300 detections)" in words


def test_title_is_run_name_or_output_directory(source):
    assert TrainingReport(source).title == "cells"
    output = dataclasses.replace(source, folder=source.folder / "output")
    assert TrainingReport(output).title == "cells"
    config = {**source.config, "run_name": "7 cells RT-DETRv2-S"}
    page = page_of(dataclasses.replace(source, config=config))
    assert "<title>Training report: 7 cells RT-DETRv2-S</title>" in page
    assert "<h1>7 cells RT-DETRv2-S</h1>" in page


def test_matrix_diagonal_equals_recall_at_the_recommended_threshold(source):
    report = TrainingReport(source)
    boxes = sum(c.num_boxes for c in source.evaluation.classes)
    assert np.trace(report.matrix) == round(source.evaluation.best.recall * boxes)
    shown = report.shown_matrix()
    assert shown.names == ["cat", "dog", "bird", "background"]
    assert shown.counts.tolist() == report.matrix.tolist()
    assert shown.left_out == 0


def test_time_shares_come_from_the_log(source):
    parts = TrainingReport(source).time_shares()
    assert [(p.name, round(p.seconds), round(p.share, 3)) for p in parts] == [
        ("backward", 144, 0.4),
        ("forward", 108, 0.3),
        ("evaluation", 72, 0.2),
        ("data loading", 36, 0.1),
    ]


def test_object_sizes_follow_coco(source):
    areas = np.concatenate([source.annotations[i].area for i in range(14)])
    small, medium, large = TrainingReport(source).sizes()
    assert small.num_boxes == (areas < 1024).sum() > 0
    assert medium.num_boxes == ((areas >= 1024) & (areas < 9216)).sum() > 0
    assert (large.num_boxes, large.ap) == (0, -1)
    assert small.ap == source.evaluation.stats["AP_small"]


def test_example_images_are_ranked_and_distinct(source):
    report = TrainingReport(source)
    shown = report.example_images()
    assert list(shown) == ["worst", "median", "best"]
    names = [image.name for images in shown.values() for image in images]
    assert len(names) == len(set(names)) == 12
    quality = {o.record.file_name: o.quality for o in report.at_threshold}
    worst, median, best = ([quality[i.name] for i in images] for images in shown.values())
    assert max(worst) <= min(median) <= max(median) <= min(best)
    assert len(report.background) == 2
    assert all(o.num_boxes == 0 for o in report.background)


def test_boxes_are_in_pixels_of_the_image(source):
    report = TrainingReport(source)
    image = report.example_images()["best"][0]
    outcome = next(o for o in report.at_threshold if o.record.file_name == image.name)
    hits = [box for box in image.boxes if box.kind == "hit"]
    assert len(hits) == outcome.num_hits
    assert (image.width, image.height) == (160, 120)
    expected = outcome.boxes[outcome.found >= 0]
    found = [(b.x, b.y, b.x + b.width, b.y + b.height) for b in hits]
    np.testing.assert_allclose(found, expected, atol=0.11)


def test_page_contains_no_local_paths_scripts_or_links(source, tmp_path):
    page = page_of(source)
    assert "somebody" not in page
    assert str(tmp_path.parent.parent) not in page
    assert "weights.pth" in page
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)


def test_names_are_escaped(tmp_path):
    page = page_of(make_run(tmp_path / "run", names=(EVIL, "b")))
    assert "<img src=x" not in page
    assert "\x1b" not in page
    assert "&lt;img src=x onerror=" in page


@pytest.mark.parametrize("names", [("only",), tuple(f"class {i}" for i in range(90))])
def test_one_class_and_many_classes(tmp_path, names):
    source = make_run(tmp_path / "run", names=names, images=20)
    report = TrainingReport(source)
    assert len(report.shown_matrix().names) == min(len(names), 20) + 1
    page = page_of(source)
    assert len(page) < 2_000_000
    assert ("70 more are not shown" in page) == (len(names) == 90)


def test_run_without_detections(tmp_path):
    source = make_run(tmp_path / "run", detects=False)
    page = page_of(source)
    assert "No detection on the validation split is correct yet" in page
    report = TrainingReport(source)
    boxes = sum(c.num_boxes for c in source.evaluation.classes)
    assert report.matrix[:, -1].sum() == boxes == report.matrix.sum()
    assert report.threshold_plots() == []
    assert report.calibration_plot() is None


def test_validation_split_without_boxes(tmp_path):
    source = make_run(tmp_path / "run", images=0, background=3)
    page = page_of(source)
    assert "3 validation images have no objects" in page
    assert "recommended threshold</span>" not in page


def test_run_stopped_before_its_first_evaluation(source, tmp_path):
    (tmp_path / "log.jsonl").write_text(
        json.dumps({"event": "plan", "epochs": 9, "first_epoch": 0})
        + "\n"
        + json.dumps({"event": "end", "stopped": "stop requested", "best_epoch": -1})
    )
    page = page_of(dataclasses.replace(source, folder=tmp_path, evaluation=None))
    assert "Stopped after 0 of 9 epochs: stop requested" in page
    assert "No weights of this run were evaluated" in page


def test_run_without_stored_detections(source, tmp_path):
    evaluation = dataclasses.replace(source.evaluation, detections=None)
    page = page_of(dataclasses.replace(source, folder=tmp_path, evaluation=evaluation))
    assert "python -m rtdetrv2_pytorch.tools.report" in page
    assert "log.jsonl is missing" in page
    assert f"<b>{evaluation.stats['AP50']:.3f}</b>" in page


def test_missing_images_and_damaged_data_report(source, tmp_path):
    (tmp_path / "data_report.json").write_text("{")
    page = page_of(dataclasses.replace(source, folder=tmp_path, img_folder=tmp_path / "gone"))
    assert "No images: the detections or the image files are not available." in page
    assert "The data was not examined" in page


def test_page_lists_the_findings_of_the_data_doctor(source, tmp_path):
    from rtdetrv2.commands import doctor

    data = CocoFolder(tmp_path / "data")
    data.add("train", "broken.jpg", b"")
    data.add("train", "good.png", encoded("PNG", 50))
    data.write()
    assert doctor.main(["--data", str(data.root), "-o", str(tmp_path), "--no-cache"]) == 0
    content = json.loads((tmp_path / "data_report.json").read_text())
    page = page_of(dataclasses.replace(source, folder=tmp_path))
    assert f"{content['images']['given']} images: {content['images']['used']} used" in page
    for found in content["findings"]:
        assert found["title"] in page


def test_training_images_are_embedded(source, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for epoch in range(9):
        shutil.copy(source.folder / "image 00.png", folder / f"val_epoch{epoch:04}.jpg")
    shutil.copy(source.folder / "image 00.png", folder / "train_epoch0000_batch0.jpg")
    shutil.copy(source.folder / "image 00.png", folder / "augmentation_presets.jpg")
    (folder / "other.jpg").write_bytes(b"another file")
    report = TrainingReport(dataclasses.replace(source, folder=tmp_path))
    shown = report.snapshots()
    assert [s.caption for s in shown] == [
        "batch 1 of epoch 1, augmented",
        *(f"validation images after epoch {n}" for n in (1, 3, 5, 7, 9)),
    ]
    sheet = report.preset_sheet()
    assert sheet.source == shown[0].source  # the same file
    assert f'<img src="{sheet.source}" alt="{sheet.caption}"' in page_of(report.source)
    assert TrainingReport(source).preset_sheet() is None


def test_formatting():
    report = TrainingReport
    assert [report.number(v) for v in (0.12345, -1, math.nan, None)] == ["0.123", "-", "-", "-"]
    assert report.clock(59.6) == "1 min 00 s"
    assert report.clock(7260) == "2 h 01 min"
    assert report.short("x" * 30) == "x" * 17 + "\u2026"


def test_speed_of_evaluations_ignores_epochs_without_one(source):
    report = TrainingReport(source)
    expected = dict(report.speed())["evaluation"]
    epochs = [{**event, "eval_s": 0.0} for event in report.log.epochs[:-1]]
    report.log.epochs[:] = [*epochs, report.log.epochs[-1]]
    assert dict(report.speed())["evaluation"] == expected
    report.log.epochs[:] = epochs
    assert "evaluation" not in dict(report.speed())

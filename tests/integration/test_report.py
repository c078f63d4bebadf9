"""The report and the images of a training run."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rtdetrv2.commands import report as tool
from rtdetrv2.commands import train
from rtdetrv2_pytorch.src.report.training_images import TrainingImages, _select_images
from rtdetrv2_pytorch.src.report.training_report import write_report_of
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from tests.tiny import tiny_config, tiny_file

WITH_REPORT = {"report": True, "pictures": True}


def fit(cfg):
    """Train as the command line does; returns the result and the report."""
    result = DetSolver(cfg, events=TrainingImages(cfg)).fit()
    return result, write_report_of(cfg, result)


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits):
    """The output directory and the result of a run of two epochs."""
    folder = tmp_path_factory.mktemp("run")
    return folder, *fit(tiny_config(folder, digits, epoches=2, **WITH_REPORT))


def test_run_writes_a_report_with_its_metrics(run):
    folder, result, report = run
    assert report == folder / "report.html"
    page = report.read_text()
    assert f"<b>{result.confirmed.stats['AP']:.3f}</b>" in page
    assert "Finished: 2 of 2 epochs" in page
    assert page.count("data:image/jpeg;base64,") >= 4
    assert str(folder) not in page
    assert not list(folder.glob(".report*"))


def test_saved_batches_are_the_input_of_the_network(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, epoches=1)
    entered = []
    cfg.model.register_forward_pre_hook(lambda _, args: entered.append(args[0].clone()))
    DetSolver(cfg).fit()
    images_follower = TrainingImages(tiny_config(tmp_path, digits, epoches=1))
    drawn = [images for images, _ in images_follower._first_batches(0)]
    assert len(drawn) == 2
    assert drawn[0].shape[2:] in {(64, 96), *(e.shape[2:] for e in entered)}
    for images, ours in zip(entered, drawn, strict=False):
        torch.testing.assert_close(ours, images)


def test_images_are_saved_to_files_and_tensorboard(run):
    folder, *_ = run
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    assert names == [
        "augmentation_presets.jpg", "train_epoch0000_batch0.jpg", "train_epoch0000_batch1.jpg",
        "val_epoch0000.jpg", "val_epoch0001.jpg",
    ]  # fmt: skip
    events = EventAccumulator(str(folder / "summary"), size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {"train/batch_0", "train/batch_1", "val/detections"}
    assert [image.step for image in events.Images("val/detections")] == [1, 2]
    with Image.open(folder / "pictures" / "val_epoch0000.jpg") as picture:
        assert picture.width <= 3 * 304
        assert np.asarray(picture).std() > 20  # not uniform
    with Image.open(folder / "pictures" / "augmentation_presets.jpg") as picture:
        assert picture.height == 7 * (22 + 160 + 4)  # a row per preset


def test_long_run_saves_images_of_some_epochs(tmp_path, digits, monkeypatch):
    pictures = TrainingImages(tiny_config(tmp_path, digits, pictures=True))
    pictures._epochs, pictures._every, kept = 300, 15, []
    monkeypatch.setattr(pictures, "_val_cells", lambda _: ["cell"])
    monkeypatch.setattr(pictures, "_save", lambda name, *_: kept.append(name))
    for epoch in range(300):
        pictures.epoch_finished(type("Report", (), {"epoch": epoch, "evaluation": object()})())
    assert len(kept) == 21
    assert (kept[0], kept[-1]) == ("val_epoch0000.jpg", "val_epoch0299.jpg")


def test_same_validation_images_in_every_epoch():
    boxes = np.array([0, 2, 0, 1, 1, 1, 1, 1, 1, 1, 0])
    assert _select_images(boxes) == _select_images(boxes) == [1, 3, 4, 6, 7, 8]
    assert _select_images(np.array([0, 1])) == [1]
    assert _select_images(np.zeros(3)) == []


def test_failure_to_save_images_does_not_end_training(tmp_path, digits, caplog):
    (tmp_path / "pictures").write_text("blocks the directory")
    result, report = fit(tiny_config(tmp_path, digits, epoches=1, pictures=True))
    assert result.last_epoch == 0
    assert report is None
    assert "Could not save training images" in caplog.text


def test_failure_to_write_the_report_is_logged(run, tmp_path, digits, caplog):
    (tmp_path / "report.html").mkdir()
    assert write_report_of(tiny_config(tmp_path, digits, report=True), run[1]) is None
    assert "Could not write the report. Training is complete" in caplog.text


def test_stopped_run_writes_a_report_of_its_best_epoch(tmp_path, digits):
    class StopInSecondEpoch(TrainingEvents):
        def step_finished(self, report):
            if report.epoch == 1:
                solver.stop("by hand")

    cfg = tiny_config(tmp_path, digits, epoches=3, report=True)
    solver = DetSolver(cfg, events=StopInSecondEpoch())
    result = solver.fit()
    page = write_report_of(cfg, result).read_text()
    assert result.confirmed is None
    assert "Stopped after 1 of 3 epochs: by hand" in page
    assert 'class="matrix"' in page


def test_resumed_run_replaces_images_of_repeated_epochs(run, tmp_path, digits):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    stale = folder / "pictures" / "val_epoch0007.jpg"
    stale.touch()
    resume = str(folder / "last.pth")
    _, report = fit(tiny_config(folder, digits, epoches=3, resume=resume, **WITH_REPORT))
    assert not stale.exists()
    names = {path.name for path in (folder / "pictures").iterdir()}
    assert {"val_epoch0001.jpg", "val_epoch0002.jpg", "train_epoch0002_batch0.jpg"} <= names
    assert "Finished: 3 of 3 epochs" in report.read_text()


def test_tool_rewrites_the_report(run, digits, tmp_path, capsys, caplog):
    folder, result, _ = run
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    assert tool.main([str(folder), "-d", "cpu"]) == 0
    assert str(folder / "report.html") in capsys.readouterr().out
    after = (folder / "report.html").read_text()

    def numbers(page):
        return re.findall(r"<b>([\d.]+)</b>", page)

    assert numbers(after) == numbers(before)
    assert "resume" not in after.split('id="settings"')[1].split("<details>")[0]


def test_tool_names_the_evaluated_weights(run, tmp_path, capsys):
    """A run stopped before its first evaluation has no best.pth."""
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    (folder / "best.pth").unlink()
    assert tool.main([str(folder), "-d", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "evaluating last.pth" in printed
    columns = ("best threshold", "best f1")
    assert "best" not in re.sub("|".join(columns), "", " ".join(printed.lower().split()))


def test_tool_rejects_other_directories(tmp_path, capsys):
    assert tool.main([str(tmp_path)]) == 1
    assert "not the folder of a run" in capsys.readouterr().err


def test_train_prints_the_path_of_the_report(tmp_path, digits, capsys):
    path = tiny_file(tmp_path / "tiny.yml", tmp_path / "out", digits, epoches=1, report=True)
    assert train.main(["-c", str(path)]) == 0
    assert str(tmp_path / "out" / "report.html") in capsys.readouterr().out
    events = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").open()]
    assert events[-1]["event"] == "end"

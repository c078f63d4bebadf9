"""What a training leaves for people to look at: the report, and pictures while it goes on."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rtdetrv2_pytorch.src.report.training_images import TrainingImages, _select_images
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from rtdetrv2_pytorch.tools import report as tool
from rtdetrv2_pytorch.tools import train
from tests.tiny import tiny_config, tiny_file

LOOKED_AT = {"report": True, "pictures": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits):
    """A folder and its result."""
    folder = tmp_path_factory.mktemp("run")
    return folder, DetSolver(tiny_config(folder, digits, epoches=2, **LOOKED_AT)).fit()


def test_a_run_ends_with_a_page_that_says_what_it_measured(run):
    folder, result = run
    assert result.report == folder / "report.html"
    page = result.report.read_text()
    assert f"<b>{result.confirmed.stats['AP']:.3f}</b>" in page
    assert "Finished: 2 of 2 epochs" in page
    assert page.count("data:image/jpeg;base64,") >= 4  # validation images and pictures
    assert str(folder) not in page
    assert not list(folder.glob(".report*"))


def test_the_first_batches_are_the_pixels_that_entered_the_network(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, epoches=1)
    entered = []
    cfg.model.register_forward_pre_hook(lambda _, args: entered.append(args[0].clone()))
    DetSolver(cfg).fit()
    again = TrainingImages(tiny_config(tmp_path, digits, epoches=1), None)
    drawn = [images for images, _ in again._first_batches(0)]
    assert len(drawn) == 2
    assert drawn[0].shape[2:] in {(64, 96), *(e.shape[2:] for e in entered)}
    for images, ours in zip(entered, drawn, strict=False):
        torch.testing.assert_close(ours, images)


def test_pictures_are_files_and_in_tensorboard(run):
    folder, _ = run
    names = sorted(path.name for path in (folder / "pictures").iterdir())
    assert names == [
        "train_epoch0000_batch0.jpg", "train_epoch0000_batch1.jpg",
        "val_epoch0000.jpg", "val_epoch0001.jpg",
    ]  # fmt: skip
    events = EventAccumulator(str(folder / "summary"), size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == {"train/batch_0", "train/batch_1", "val/detections"}
    assert [image.step for image in events.Images("val/detections")] == [0, 1]
    with Image.open(folder / "pictures" / "val_epoch0000.jpg") as picture:
        assert picture.width <= 3 * 304
        assert np.asarray(picture).std() > 20  # not one colour


def test_pictures_of_a_long_run_are_few(tmp_path, digits, monkeypatch):
    pictures = TrainingImages(tiny_config(tmp_path, digits), None)
    pictures._epochs, kept = 300, []
    monkeypatch.setattr(pictures, "_val_cells", lambda _: ["cell"])
    monkeypatch.setattr(pictures, "_save", lambda name, *_: kept.append(name))
    for epoch in range(300):
        pictures.epoch_finished(type("Report", (), {"epoch": epoch, "evaluation": None})())
    assert len(kept) == 21
    assert (kept[0], kept[-1]) == ("val_epoch0000.jpg", "val_epoch0299.jpg")


def test_the_same_few_images_are_drawn_in_every_epoch():
    boxes = np.array([0, 2, 0, 1, 1, 1, 1, 1, 1, 1, 0])
    assert _select_images(boxes) == _select_images(boxes) == [1, 3, 4, 6, 7, 8]
    assert _select_images(np.array([0, 1])) == [1]
    assert _select_images(np.zeros(3)) == []


def test_pictures_that_cannot_be_written_end_the_pictures_only(tmp_path, digits, caplog):
    (tmp_path / "pictures").write_text("in the way")
    result = DetSolver(tiny_config(tmp_path, digits, epoches=1, pictures=True)).fit()
    assert result.last_epoch == 0
    assert result.report is None  # nobody wanted one
    assert "Could not save training images" in caplog.text


def test_a_report_that_cannot_be_made_ends_no_training(tmp_path, digits, caplog):
    (tmp_path / "report.html").mkdir()
    result = DetSolver(tiny_config(tmp_path, digits, epoches=1, report=True)).fit()
    assert result.report is None
    assert result.checkpoints["best"].is_file()
    assert "no report: it could not be made; the training is complete without it" in caplog.text


def test_a_stopped_run_has_a_report_with_what_its_best_epoch_found(tmp_path, digits):
    class StopInTheSecond(TrainingEvents):
        def step_finished(self, report):
            if report.epoch == 1:
                solver.stop("by hand")

    cfg = tiny_config(tmp_path, digits, epoches=3, report=True)
    solver = DetSolver(cfg, events=StopInTheSecond())
    result = solver.fit()
    page = result.report.read_text()
    assert result.confirmed is None
    assert "Stopped after 1 of 3 epochs: by hand" in page
    assert 'class="matrix"' in page


def test_a_resumed_run_replaces_pictures_of_epochs_that_it_trains_again(tmp_path, digits):
    DetSolver(tiny_config(tmp_path, digits, epoches=1, **LOOKED_AT)).fit()
    stale = tmp_path / "pictures" / "val_epoch0007.jpg"
    stale.touch()
    resume = str(tmp_path / "last.pth")
    result = DetSolver(tiny_config(tmp_path, digits, epoches=2, resume=resume, **LOOKED_AT)).fit()
    assert not stale.exists()
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert {"val_epoch0000.jpg", "val_epoch0001.jpg", "train_epoch0001_batch0.jpg"} <= names
    assert "Finished: 2 of 2 epochs" in result.report.read_text()


def test_the_tool_makes_it_anew(run, digits, tmp_path, capsys, caplog):
    folder, result = run
    before = (folder / "report.html").read_text()
    (folder / "report.html").unlink()
    assert tool.main([str(folder), "-d", "cpu"]) == 0
    assert str(folder / "report.html") in capsys.readouterr().out
    after = (folder / "report.html").read_text()

    def numbers(page):
        return re.findall(r"<b>([\d.]+)</b>", page)

    assert numbers(after) == numbers(before)
    assert "resume" not in after.split('id="settings"')[1].split("<details>")[0]


def test_the_tool_names_the_weights_that_it_evaluates(run, tmp_path, capsys):
    """Those of a run that was stopped before its first evaluation are not the best of anything."""
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    (folder / "best.pth").unlink()
    assert tool.main([str(folder), "-d", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "last.pth evaluated again" in printed
    assert "best" not in printed.lower().replace("best threshold", "")


def test_the_tool_says_what_is_no_run(tmp_path, capsys):
    assert tool.main([str(tmp_path)]) == 1
    assert "is no folder of a run" in capsys.readouterr().err


def test_the_command_line_says_where_the_report_is(tmp_path, digits, capsys):
    path = tiny_file(tmp_path / "tiny.yml", tmp_path / "out", digits, epoches=1, report=True)
    assert train.main(["-c", str(path)]) == 0
    assert str(tmp_path / "out" / "report.html") in capsys.readouterr().out
    events = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").open()]
    assert events[-1]["event"] == "end"

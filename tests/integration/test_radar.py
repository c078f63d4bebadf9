"""The label radar on a finished training, from the command line."""

import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import yaml

from rtdetrv2.analysis.annotated_split import evaluate_runtime, read_split
from rtdetrv2.analysis.opening import open_model
from rtdetrv2.analysis.radar import radar as label_radar
from rtdetrv2.commands import radar
from rtdetrv2.training import run as training
from rtdetrv2_pytorch.src.data.metrics.evaluator import DetectionTable
from rtdetrv2_pytorch.src.misc.errors import RTDETRError
from rtdetrv2_pytorch.src.report.label_errors import label_errors
from rtdetrv2_pytorch.src.solver import DetSolver
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("radar") / "out"
    DetSolver(tiny_config(folder, digits, epoches=1, loggers=[])).fit()
    return folder


def check_detections(fold, images):
    """The saved detections are those of the fold's network on the images that it has not seen."""
    runtime = open_model(fold / "training" / "best.pth", device="cpu")
    split = read_split(fold / "instances_held_out.json", images, runtime.card)
    wanted = evaluate_runtime(runtime, split, batch_size=1).detections
    with np.load(fold / "detections.npz") as saved:
        order = np.argsort(saved["image_ids"])
        assert saved["image_ids"][order].tolist() == sorted(wanted.image_ids.tolist())
        assert saved["counts"].tolist() == wanted.counts.tolist()
        slices = DetectionTable(**saved).slices()
        for image, rows in wanted.slices().items():
            np.testing.assert_allclose(
                np.sort(saved["scores"][slices[image]]), np.sort(wanted.scores[rows]), atol=1e-4
            )


def test_radar_trains_networks_and_writes_its_list(run, digits, capsys, monkeypatch):
    assert radar.main([str(run), "--folds", "2", "--device", "cpu"]) == 0
    content = json.loads((run / "label_radar.json").read_text())
    assert content["images"] == {"train": 6, "val": 4}
    assert content["settings"]["epochs"] == 1
    assert set(content["kinds"]) == {"missed", "unsupported", "wrong_class", "loose_box"}
    for number in range(2):
        fold = run / "label_radar" / f"fold{number}"
        assert len(json.loads((fold / "instances_held_out.json").read_text())["images"]) == 3
    check_detections(run / "label_radar" / "fold1", digits / "train")
    out = capsys.readouterr().out
    assert "By kind" in out
    assert str(run / "report.html") in out.splitlines()
    assert 'id="labels"' in (run / "report.html").read_text()

    def no_training(*_, **__):
        raise AssertionError("finished networks are trained again")

    monkeypatch.setattr(training, "train", no_training)
    assert radar.main([str(run), "--folds", "2", "--device", "cpu"]) == 0


def test_time_budget_of_the_run_does_not_choose_the_epochs(run, tmp_path):
    copied = tmp_path / "out"
    shutil.copytree(run, copied, ignore=shutil.ignore_patterns("label_radar*"))
    with (copied / "model_config.yml").open("a") as file:
        file.write("time_budget: 1m\n")
    options = label_radar.RadarOptions(folds=2, device="cpu")
    label_radar.find_label_errors(copied, options, progress=label_radar.TrainingProgress())
    for number in range(2):
        training_folder = copied / "label_radar" / f"fold{number}" / "training"
        saved = yaml.safe_load((training_folder / "model_config.yml").read_text())
        assert (saved["epoches"], saved["time_budget"]) == (1, None)


def test_stopped_radar_goes_on(run, capsys):
    class Stop(TrainingEvents):
        def epoch_started(self, epoch, num_steps):
            os.kill(os.getpid(), signal.SIGTERM)

    options = label_radar.RadarOptions(folds=3, device="cpu")
    progress = label_radar.TrainingProgress()
    with pytest.raises(label_radar.RadarStopped, match="SIGTERM"):
        label_radar.find_label_errors(run, options, progress=progress, followers=[Stop()])
    assert (run / "label_radar" / "fold0" / "training" / "last.pth").is_file()
    assert not list((run / "label_radar").glob("fold*/detections.npz"))
    result = label_radar.find_label_errors(run, options, progress=progress)
    assert result.images == {"train": 6, "val": 4}


def test_wrong_arguments_are_one_sentence(run, tmp_path, capsys):
    assert radar.main([str(tmp_path)]) == 1
    assert "not the folder of a run" in capsys.readouterr().err
    assert radar.main([str(run), "--folds", "9", "--device", "cpu"]) == 1
    assert "the training split has 6 images" in capsys.readouterr().err
    with pytest.raises(RTDETRError, match="folds = 1"):
        label_radar.RadarOptions(folds=1)


def test_report_shows_label_and_detection(digits, tmp_path):
    name = sorted(path.name for path in (digits / "train").iterdir())[0]
    found = {"class": "3", "box_xyxy": [10, 20, 60, 90], "score": 0.9}
    label = {"class": "<5>", "box_xyxy": [200, 200, 260, 250], "score": 1}
    base = {"split": "train", "image_id": 1}
    suspicions = [
        {
            "kind": "missed",
            "probability": 0.93,
            "file_name": name,
            "label": None,
            "detection": found,
        },
        {"kind": "wrong_class", "probability": 0.4, "file_name": "gone.jpg", "label": label},
    ]
    content = {
        "kinds": {"missed": "missing label", "wrong_class": "wrong class"},
        "suspicions": [{**base, "label": None, "detection": None, **each} for each in suspicions],
    }
    (tmp_path / "label_radar.json").write_text(json.dumps(content))
    section = label_errors(tmp_path, {"train": digits / "train"}, None)
    assert section.counts == [("missing label", 1, 1), ("wrong class", 0, 1)]
    first, second = section.shown
    assert first.title == "93 %: missing label"
    assert re.match(r"labeled nothing, detected 3 \(train, ", first.where)
    assert first.source.startswith("data:image/jpeg")
    assert second.source == ""

    (tmp_path / "label_radar.json").write_text("{")
    assert label_errors(tmp_path, {}, None) is None
    assert label_errors(tmp_path / "none", {}, None) is None

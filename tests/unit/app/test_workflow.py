"""The training of the app without the SDK: from a split project to the files of an experiment."""

import json

import pytest
import yaml

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint, model_state
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from rtdetrv2_pytorch.src.solver.stopping import StopFlag
from supervisely_integration.models import find_base_config
from supervisely_integration.train import workflow
from supervisely_integration.train.data_check import Origins
from supervisely_integration.train.lifecycle import TrainingStopped
from supervisely_integration.train.workflow import TrainingRequest, run_training
from tests.tiny import NETWORK

CLASSES = list("0123456789")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Digits in Supervisely format, split as by the SDK."""
    folder = tmp_path_factory.mktemp("project")
    data = make_digits_dataset(folder / "coco", num_train=4, num_val=2)
    for split in ("train", "val"):
        content = json.loads((data / "annotations" / f"instances_{split}.json").read_text())
        images, annotations = folder / split / "img", folder / split / "ann"
        images.parent.mkdir()
        (data / split).rename(images)
        annotations.mkdir()
        for number, image in enumerate(content["images"], start=1):
            (images / image["file_name"]).rename(images / f"{split}_img_{number}.jpg")
            boxes = [a for a in content["annotations"] if a["image_id"] == image["id"]]
            objects = [
                {
                    "classTitle": str(a["category_id"]),
                    "geometryType": "rectangle",
                    "points": {
                        "exterior": [
                            [a["bbox"][0], a["bbox"][1]],
                            [a["bbox"][0] + a["bbox"][2] - 1, a["bbox"][1] + a["bbox"][3] - 1],
                        ],
                        "interior": [],
                    },
                }
                for a in boxes
            ]
            size = {"width": image["width"], "height": image["height"]}
            text = json.dumps({"size": size, "tags": [], "objects": objects})
            (annotations / f"{split}_img_{number}.jpg.json").write_text(text)
    return folder


def request_in(folder, project, **changes):
    """A tiny training of two epochs that writes below a folder."""
    hyperparameters = {
        **{k: v for k, v in NETWORK.items() if k != "PResNet"},
        "epoches": 2,
        "batch_size": 2,
        "eval_spatial_size": [64, 64],
        "checkpoint_freq": 1,
        "use_amp": False,
        "num_workers": 0,
        "report": False,
        "pictures": False,
    }
    values = {
        "model_name": "RT-DETRv2-S",
        "base_config": find_base_config("rtdetrv2_r18vd_120e_coco.yml"),
        "checkpoint": None,
        "resume": None,
        "classes": CLASSES,
        "convert_shapes": False,
        "hyperparameters": hyperparameters,
        "train_dir": project / "train",
        "val_dir": project / "val",
        "coco_dir": folder / "coco",
        "run_dir": folder / "run",
        "result_dir": folder / "result",
        "devices": ("cpu",),
    }
    return TrainingRequest(**{**values, **changes})


@pytest.fixture(scope="module")
def finished(project, tmp_path_factory):
    """A finished training with a report: its folder and the experiment."""
    folder = tmp_path_factory.mktemp("finished")
    origins = Origins({"val_img_1": "set/a <b>.jpg", "val_img_2": "set/c.jpg"})
    request = request_in(folder, project, name="7 digits RT-DETRv2-S", origins=origins)
    request.hyperparameters.update(report=True)
    return folder, run_training(request, TrainingEvents(), StopFlag())


def test_checkpoints_are_copied_for_the_upload(finished):
    folder, experiment = finished
    info = experiment.as_dict()
    assert info["model_name"] == "RT-DETRv2-S"
    assert info["task_type"] == "object detection"
    assert info["best_checkpoint"] == "best.pth"
    names = {"best.pth", "last.pth", "checkpoint0000.pth", "checkpoint0001.pth"}
    assert {path.rsplit("/", 1)[1] for path in info["checkpoints"]} == names
    assert {path.name for path in (folder / "run").glob("*.pth")} == names
    assert load_checkpoint(folder / "result" / "best.pth")["class_names"] == CLASSES


def test_report_shows_original_image_names_and_the_data_check(finished):
    folder, _ = finished
    page = (folder / "result" / "report.html").read_text()
    assert "Finished: 2 of 2 epochs" in page
    assert "<h1>7 digits RT-DETRv2-S</h1>" in page
    assert "set/a &lt;b&gt;.jpg" in page
    assert "set/c.jpg" in page
    assert "val_img_" not in page
    assert "run_name" not in (folder / "result" / "model_config.yml").read_text()
    assert "The data was not examined" not in page
    assert str(folder) not in page


def test_uploaded_configuration_is_complete_and_has_no_local_paths(finished):
    folder, _ = finished
    path = folder / "result" / "model_config.yml"
    text = path.read_text()
    assert str(folder) not in text
    assert "__include__" not in yaml.safe_load(text)
    cfg = YAMLConfig(path)
    assert cfg.yaml_cfg["num_classes"] == 10
    assert cfg.yaml_cfg["eval_spatial_size"] == [64, 64]
    state = model_state(load_checkpoint(folder / "result" / "best.pth"))
    assert list(cfg.model.state_dict()) == list(state)


def test_resumed_training_equals_an_uninterrupted_one(finished, project, tmp_path):
    class StopAfterOne(TrainingEvents):
        def epoch_finished(self, report):
            stop.request("test")

    stop = StopFlag()
    stopped = run_training(request_in(tmp_path, project), StopAfterOne(), stop)
    assert {path.name for path in stopped.checkpoints} >= {"best.pth", "last.pth"}
    resume = tmp_path / "run" / "last.pth"
    assert load_checkpoint(resume)["progress"]["epoch"] == 1
    request = request_in(tmp_path, project, resume=resume)
    resumed = run_training(request, TrainingEvents(), StopFlag())
    ours, theirs = (
        load_checkpoint(next(p for p in info.checkpoints if p.name == "last.pth"))["model"]
        for info in (resumed, finished[1])
    )
    for key, value in ours.items():
        assert value.equal(theirs[key]), key


@pytest.mark.parametrize("devices", [("cpu",), ("cuda:0", "cuda:1")])
def test_time_budget_begins_with_the_request(project, tmp_path, monkeypatch, devices):
    """Also with several ranks."""
    given = {}

    def refuse(*_, start_s=None, reserve_s=None, time_budget=None, **options):
        given.update(time_budget or {"start_s": start_s, "reserve_s": reserve_s})
        raise TrainingStopped("test")

    monkeypatch.setattr(workflow, "DetSolver", refuse)
    monkeypatch.setattr(workflow, "train_on_devices", refuse)
    request = request_in(tmp_path, project, devices=devices, start_s=3.0, reserve_s=60.0)
    with pytest.raises(TrainingStopped):
        run_training(request, TrainingEvents(), StopFlag())
    assert given == {"start_s": 3.0, "reserve_s": 60.0}


def test_stop_before_the_first_step_saves_nothing(project, tmp_path):
    stop = StopFlag()
    stop.request("Stop button")
    with pytest.raises(TrainingStopped, match="Stop button"):
        run_training(request_in(tmp_path, project), TrainingEvents(), stop)
    assert not (tmp_path / "result").exists()

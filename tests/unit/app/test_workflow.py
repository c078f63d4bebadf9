"""A training of the app without the platform: from a split project to files of an experiment."""

import json

import pytest
import yaml

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.data.digits import make_digits_dataset
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint, model_state
from rtdetrv2_pytorch.src.solver.events import TrainingEvents
from rtdetrv2_pytorch.src.solver.stopping import StopFlag
from supervisely_integration.models import find_base_config
from supervisely_integration.train.data_check import Origins
from supervisely_integration.train.lifecycle import TrainingStopped
from supervisely_integration.train.workflow import TrainingRequest, run_training
from tests.tiny import NETWORK

CLASSES = list("0123456789")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The digits in Supervisely format, split as the SDK leaves it."""
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


@pytest.fixture
def request_of(project, tmp_path):
    def make(**changes):
        values = {
            "model_name": "RT-DETRv2-S",
            "base_config": find_base_config("rtdetrv2_r18vd_120e_coco.yml"),
            "checkpoint": None,
            "resume": None,
            "classes": CLASSES,
            "convert_shapes": False,
            "hyperparameters": {
                **{k: v for k, v in NETWORK.items() if k != "PResNet"},
                "epoches": 2,
                "batch_size": 2,
                "eval_spatial_size": [64, 64],
                "checkpoint_freq": 1,
                "use_amp": False,
                "num_workers": 0,
                "report": False,
                "pictures": False,
            },
            "train_dir": project / "train",
            "val_dir": project / "val",
            "coco_dir": tmp_path / "coco",
            "run_dir": tmp_path / "run",
            "result_dir": tmp_path / "result",
            "devices": ("cpu",),
        }
        return TrainingRequest(**{**values, **changes})

    return make


def test_a_training_leaves_copies_for_the_upload_and_its_own_folder(request_of, tmp_path):
    info = run_training(request_of(), TrainingEvents(), StopFlag()).as_dict()
    assert info["model_name"] == "RT-DETRv2-S"
    assert info["task_type"] == "object detection"
    assert info["best_checkpoint"] == "best.pth"
    names = {"best.pth", "last.pth", "checkpoint0000.pth", "checkpoint0001.pth"}
    assert {path.rsplit("/", 1)[1] for path in info["checkpoints"]} == names
    assert {path.name for path in (tmp_path / "run").glob("*.pth")} == names
    assert load_checkpoint(tmp_path / "result" / "best.pth")["class_names"] == CLASSES


def test_the_report_comes_along_with_what_the_data_doctor_said(request_of, tmp_path):
    origins = Origins({"val_img_1": "set/a <b>.jpg", "val_img_2": "set/c.jpg"})
    request = request_of(name="7 digits RT-DETRv2-S", origins=origins)
    request.hyperparameters.update(epoches=1, report=True)
    run_training(request, TrainingEvents(), StopFlag())
    page = (tmp_path / "result" / "report.html").read_text()
    assert "Finished: 1 of 1 epochs" in page
    assert "<h1>7 digits RT-DETRv2-S</h1>" in page
    assert "set/a &lt;b&gt;.jpg" in page
    assert "set/c.jpg" in page
    assert "val_img_" not in page
    assert "run_name" not in (tmp_path / "result" / "model_config.yml").read_text()
    assert "The data was not examined" not in page
    assert str(tmp_path) not in page


def test_the_uploaded_configuration_is_whole_and_of_no_machine(request_of, tmp_path):
    run_training(request_of(), TrainingEvents(), StopFlag())
    path = tmp_path / "result" / "model_config.yml"
    text = path.read_text()
    assert str(tmp_path) not in text
    assert "__include__" not in yaml.safe_load(text)
    cfg = YAMLConfig(path)
    assert cfg.yaml_cfg["num_classes"] == 10
    assert cfg.yaml_cfg["eval_spatial_size"] == [64, 64]
    state = model_state(load_checkpoint(tmp_path / "result" / "best.pth"))
    assert list(cfg.model.state_dict()) == list(state)


def test_a_training_that_goes_on_ends_as_one_that_never_stopped(request_of, tmp_path):
    whole = run_training(request_of(), TrainingEvents(), StopFlag())

    class StopAfterOne(TrainingEvents):
        def epoch_finished(self, report):
            stop.request("test")

    stop = StopFlag()
    folders = {"run_dir": tmp_path / "b", "result_dir": tmp_path / "c"}
    stopped = run_training(request_of(**folders), StopAfterOne(), stop)
    assert {path.name for path in stopped.checkpoints} >= {"best.pth", "last.pth"}
    resume = tmp_path / "b" / "last.pth"
    assert load_checkpoint(resume)["progress"]["epoch"] == 1
    gone_on = run_training(request_of(**folders, resume=resume), TrainingEvents(), StopFlag())
    ours, theirs = (
        load_checkpoint(next(p for p in info.checkpoints if p.name == "last.pth"))["model"]
        for info in (gone_on, whole)
    )
    for key, value in ours.items():
        assert value.equal(theirs[key]), key


def test_stopped_before_the_first_step_there_is_nothing_to_save(request_of, tmp_path):
    stop = StopFlag()
    stop.request("Stop button")
    with pytest.raises(TrainingStopped, match="Stop button"):
        run_training(request_of(), TrainingEvents(), stop)
    assert not (tmp_path / "result").exists()

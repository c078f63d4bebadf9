"""`RTDETR.from_transformers` and `RTDETR.to_transformers`."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, RTDetrV2ForObjectDetection

from rtdetrv2 import RTDETR
from rtdetrv2.training import plan
from rtdetrv2.training.options import TrainOptions
from rtdetrv2.training.progress import TrainingProgress
from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.interchange import folders
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError
from rtdetrv2_pytorch.src.solver.network import load_pretrained
from tests.random_detectors import NAMES, SIZE_HW, save_random_detector
from tests.tiny import data_section, tiny_config

IMAGE = np.random.default_rng(3).integers(0, 256, (70, 110, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def ours(tmp_path_factory) -> RTDETR:
    path = tmp_path_factory.mktemp("ours") / "best.pth"
    save_random_detector(path)
    return RTDETR(path, device="cpu")


@pytest.fixture(scope="module")
def folder(ours, tmp_path_factory) -> Path:
    return ours.to_transformers(tmp_path_factory.mktemp("theirs"))


def assert_same(one, other):
    assert torch.equal(torch.as_tensor(one.boxes), torch.as_tensor(other.boxes))
    assert torch.equal(torch.as_tensor(one.scores), torch.as_tensor(other.scores))
    assert list(one.names) == list(other.names)
    assert len(one) > 10


def test_detections_stay_the_same(ours, folder):
    expected = ours.predict(IMAGE, score=0.0)
    for model in (RTDETR(folder, device="cpu"), RTDETR.from_transformers(folder, device="cpu")):
        assert model.class_names == tuple(NAMES)
        assert model.input_size_hw == SIZE_HW
        assert_same(model.predict(IMAGE, score=0.0), expected)


def test_instance_with_its_processor(ours, folder):
    theirs = RTDetrV2ForObjectDetection.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    model = RTDETR.from_transformers(theirs, processor=processor, device="cpu")
    assert_same(model.predict(IMAGE, score=0.0), ours.predict(IMAGE, score=0.0))
    again = RTDETR(model.to_transformers(folder.with_name("again")), device="cpu")
    assert_same(again.predict(IMAGE, score=0.0), ours.predict(IMAGE, score=0.0))


def test_detections_of_transformers_are_ours(ours, folder):
    theirs = RTDetrV2ForObjectDetection.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        outputs = theirs(**processor(IMAGE, return_tensors="pt"))
    found = processor.post_process_object_detection(
        outputs, threshold=0.0, target_sizes=[IMAGE.shape[:2]]
    )[0]
    mine = ours.predict(IMAGE, score=0.0)
    count = len(found["scores"])  # as many as queries
    assert count == 12
    np.testing.assert_allclose(found["scores"][:count], mine.scores[:count], atol=1e-4)
    assert [theirs.config.id2label[int(i)] for i in found["labels"][:5]] == list(mine.names[:5])


def test_mistakes_are_named(ours, tmp_path):
    with pytest.raises(ConfigError, match="not a folder with config.json; save the model there"):
        RTDETR.from_transformers("PekingU/rtdetr_v2_r18vd")
    with pytest.raises(CheckpointError, match="Linear: not a model of transformers"):
        RTDETR.from_transformers(torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match=r"neither best\.pth nor checkpoints/best\.pth"):
        RTDETR(tmp_path)


def test_training_starts_from_the_network_of_a_folder(folder, digits, tmp_path):
    """Without a configuration, the folder decides the recipe and the network."""
    with contextlib.chdir(tmp_path):
        options = TrainOptions(data=digits, tuning=str(folder), device="cpu", output_dir="out")
        chosen = plan.plan_run(options, TrainingProgress())
    assert chosen.config.name == "rtdetrv2_r18vd_120e_coco.yml"
    cfg = YAMLConfig(chosen.config, **merge(data_section(digits), chosen.overrides))
    load_pretrained(cfg, str(folder))
    state = folders.read_folder(folder)["model"]
    assert cfg.yaml_cfg["eval_spatial_size"] == list(SIZE_HW)
    assert cfg.yaml_cfg["num_classes"] == len(cfg.class_names) != len(NAMES)
    loaded = cfg.model.state_dict()
    same = [k for k, v in state.items() if k in loaded and torch.equal(loaded[k], v)]
    assert sorted(state.keys() - set(same)) == sorted(
        f"decoder.{key}" for key in cfg.model.decoder.class_keys
    )


def test_class_rows_are_carried_over_by_name(folder, digits, tmp_path):
    names = [category["name"] for category in digit_categories(digits)]
    content = folders.read_folder(folder)
    renamed = shutil.copytree(folder, tmp_path / "renamed")
    config = json.loads((renamed / folders.CONFIG).read_text())
    config["id2label"]["2"] = names[0]
    (renamed / folders.CONFIG).write_text(json.dumps(config))
    cfg = tiny_config(tmp_path, digits)
    load_pretrained(cfg, str(renamed))
    bias = cfg.model.state_dict()["decoder.enc_score_head.bias"]
    assert bias[0] == content["model"]["decoder.enc_score_head.bias"][2]


def digit_categories(digits: Path) -> list[dict]:
    return json.loads((digits / "annotations" / "instances_train.json").read_text())["categories"]

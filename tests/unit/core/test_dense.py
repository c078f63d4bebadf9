"""The setting `recipe: dense`: its loss, operations and phases."""

import math
import random

import pytest

from rtdetrv2_pytorch.src.core import ConfigError, YAMLConfig
from rtdetrv2_pytorch.src.core.dense import phases
from rtdetrv2_pytorch.src.core.yaml_files import get
from rtdetrv2_pytorch.src.solver import DetSolver
from tests.tiny import CONFIGS, tiny_config

S = CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"
TRANSFORMS = ("train_dataloader", "dataset", "transforms")


def types(cfg):
    return [op["type"] for op in get(cfg.yaml_cfg, (*TRANSFORMS, "ops"))]


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        ((120, 7393, 2000), (1, 61, 108)),  # COCO with batches of 16
        ((120, 100, 400), (4, 64, 108)),  # the phases of the paper, with a longer clean end
        ((50, 10, 2000), (3, 28, 45)),  # a warm-up that is shortened to 25 steps
        ((3, 10, 0), (1, 2, 2)),
        ((2, 10, 0), (1, 1, 1)),  # too short to mix images
        ((1, 10, 0), (0, 0, 0)),
    ],
)
def test_phases(run, expected):
    assert phases(*run) == expected


def test_phases_are_in_order_and_end_clean():
    rng = random.Random(0)
    for _ in range(300):
        epochs = rng.randint(1, 300)
        first, end, clean = phases(epochs, rng.randint(1, 5000), rng.randint(0, 5000))
        assert 0 <= first <= end <= clean < epochs
        assert epochs - clean >= math.ceil(0.1 * epochs) or epochs == 1


def test_default_has_no_part_of_it():
    cfg = YAMLConfig(S)
    assert {"Mosaic", "MixUp"}.isdisjoint(types(cfg))
    assert cfg.yaml_cfg["RTDETRCriterionv2"]["losses"] == ["vfl", "boxes"]


@pytest.mark.parametrize("preset", [None, "aerial"])
def test_loss_and_operations(preset):
    cfg = YAMLConfig(S, recipe="dense", augmentation=preset, eval_spatial_size=[320, 256])
    criterion = cfg.yaml_cfg["RTDETRCriterionv2"]
    assert criterion["losses"] == ["mal", "boxes"]
    assert criterion["weight_dict"] == {"loss_bbox": 5, "loss_giou": 2, "loss_mal": 1}
    assert criterion["gamma"] == 1.5
    plain = types(YAMLConfig(S, augmentation=preset))
    place = plain.index("Resize") + 1
    assert types(cfg) == ["Mosaic", *plain[:place], "MixUp", *plain[place:]]
    mosaic = get(cfg.yaml_cfg, (*TRANSFORMS, "ops"))[0]
    assert (mosaic["size"], mosaic["max_size"]) == (160, 320)
    again = YAMLConfig.from_values(cfg.yaml_cfg, name="saved")
    assert again.yaml_cfg == cfg.yaml_cfg
    assert again.notes == []


def test_training_derives_the_phases_from_its_steps(tmp_path, digits):
    """Epoch 1 and the last are not mixed; the log of the run says so."""
    cfg = tiny_config(tmp_path, digits, recipe="dense", epoches=4, augmentation="none")
    policy = {
        "name": "stop_epoch", "epoch": 3, "ops": ["Mosaic", "MixUp"],
        "active": {"Mosaic": [1, 3], "MixUp": [1, 3]},
    }  # fmt: skip
    loader = cfg.train_dataloader
    assert get(cfg.yaml_cfg, (*TRANSFORMS, "policy")) == policy
    assert loader.dataset.transforms.policy == policy
    assert "recipe: dense is not recommended" in cfg.notes[-2]
    assert cfg.notes[-1].startswith("recipe: dense mixes images from epoch 2 to 3; no strong")
    plain = cfg.train_dataset.annotations.boxes_per_image().tolist()
    counts = {}
    for epoch in range(4):
        loader.dataset.set_epoch(epoch)
        counts[epoch] = [len(loader.dataset[i][1]["labels"]) for i in range(len(plain))]
    assert counts[0] == counts[3] == plain
    assert sum(counts[1]) > sum(plain)
    assert sum(counts[2]) > sum(plain)


def test_training_step_has_the_loss(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, recipe="dense", epoches=1)
    result = DetSolver(cfg).fit()
    assert result.best is not None
    assert 0 < result.best.losses["loss_mal"] < 100
    assert "loss_vfl" not in result.best.losses


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recipe": "sparse"}, "recipe = 'sparse': give 'dense'"),
        (
            {"recipe": "dense", "train_dataloader": {"dataset": {"transforms": {"ops": []}}}},
            r"recipe = 'dense': train_dataloader.dataset.transforms.ops has no Resize with a \(",
        ),
    ],
)
def test_invalid_values(values, message):
    with pytest.raises(ConfigError, match=message):
        YAMLConfig(S, **values)

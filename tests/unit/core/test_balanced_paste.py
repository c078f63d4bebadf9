"""The setting `balanced_paste`: where objects are pasted, and in which epochs."""

import pytest
import torch
import yaml

from rtdetrv2_pytorch.src.core import ConfigError, YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import get
from rtdetrv2_pytorch.src.data.augment.presets import PRESETS
from tests.tiny import CONFIGS, tiny_config
from tests.unit.data.loading.test_sampler import on_ranks

S = CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"
OPS = ("train_dataloader", "dataset", "transforms", "ops")
POLICY = (*OPS[:-1], "policy")
PASTE = {"type": "CopyPaste", "p": 0.5, "balanced": True}


def types(cfg):
    return [op["type"] for op in get(cfg.yaml_cfg, OPS)]


@pytest.mark.parametrize("augmentation", [None, *PRESETS])
def test_objects_are_pasted_before_other_operations(augmentation):
    cfg = YAMLConfig(S, balanced_paste=0.5, augmentation=augmentation)
    ops = get(cfg.yaml_cfg, OPS)
    assert ops[0] == PASTE
    assert ops[1:] == get(YAMLConfig(S, augmentation=augmentation).yaml_cfg, OPS)


def test_default_pastes_nothing():
    cfg = YAMLConfig(S)
    assert "CopyPaste" not in types(cfg)
    assert "active" not in get(cfg.yaml_cfg, POLICY)


@pytest.mark.parametrize(
    ("epochs", "stop", "end"),
    [
        (10, 8, 8),  # no objects are pasted after strong augmentation
        (6, 0, 5),  # a short run without strong augmentation
        (6, 6, 5),
        (2, 0, 1),
        (1, 0, 0),  # the only epoch is the last one
    ],
)
def test_last_epochs_have_no_pasted_objects(tmp_path, digits, epochs, stop, end):
    policy = {"name": "stop_epoch", "epoch": stop, "ops": []}
    loader = {"dataset": {"transforms": {"policy": policy}}}
    cfg = tiny_config(tmp_path, digits, balanced_paste=0.5, epoches=epochs, train_dataloader=loader)
    transforms = cfg.train_dataloader.dataset.transforms
    assert transforms.policy == get(cfg.yaml_cfg, POLICY)
    assert transforms.policy["active"] == {"CopyPaste": [0, end]}
    assert transforms.policy["epoch"] == stop


def test_ranks_and_workers_paste_the_same_objects(tmp_path, digits, monkeypatch):
    """An image of an epoch is the same in one process as with two ranks and their workers."""

    def load(**loader):
        changes = {"total_batch_size": 2, **loader}
        cfg = tiny_config(tmp_path, digits, balanced_paste=1.0, epoches=3, train_dataloader=changes)
        found = {}
        for images, targets in cfg.train_dataloader:
            for image, target in zip(images, targets, strict=True):
                found[int(target["image_id"])] = image, target["boxes"]
        return found

    (whole,) = on_ranks(monkeypatch, 1, load)
    parts = on_ranks(monkeypatch, 2, lambda: load(num_workers=1))
    assert sum(map(len, parts)) == len(whole) == 6
    torch.testing.assert_close({**parts[0], **parts[1]}, whole, rtol=0, atol=0)
    plain = tiny_config(tmp_path, digits).train_dataset
    number = {int(plain[i][1]["image_id"]): len(plain[i][1]["boxes"]) for i in range(6)}
    assert sum(len(boxes) > number[i] for i, (_, boxes) in whole.items()) >= 3


def test_epochs_chosen_later_count(tmp_path, digits):
    """A time budget changes the number of epochs of a loaded configuration."""
    cfg = tiny_config(tmp_path, digits, balanced_paste=0.5, epoches=50)
    cfg.yaml_cfg["epoches"] = 7
    assert cfg.train_dataloader.dataset.transforms.policy["active"] == {"CopyPaste": [0, 6]}


def test_own_operation_is_kept(tmp_path, digits):
    """Also in its epochs, and the log says that the setting is not used."""
    own = {"type": "CopyPaste", "p": 0.1, "max_objects": 1}
    ops = [own, *get(tiny_config(tmp_path, digits).yaml_cfg, OPS)]
    loader = {"dataset": {"transforms": {"ops": ops}}}
    cfg = tiny_config(tmp_path, digits, balanced_paste=0.5, train_dataloader=loader)
    assert get(cfg.yaml_cfg, OPS)[0] == own
    assert types(cfg).count("CopyPaste") == 1
    assert "active" not in (cfg.train_dataloader.dataset.transforms.policy or {})
    assert any("balanced_paste: 0.5 is not used, because" in note for note in cfg.notes)


def test_configuration_of_a_run_can_be_used_again(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, balanced_paste=0.5, augmentation="none", epoches=4)
    saved = dict(cfg.yaml_cfg)
    again = tiny_config(tmp_path, digits, **saved)
    assert get(again.yaml_cfg, OPS) == get(cfg.yaml_cfg, OPS)
    assert not [note for note in again.notes if "is not used" in note]


@pytest.mark.parametrize(("probability", "first"), [(0, []), (0.2, [{**PASTE, "p": 0.2}])])
def test_later_value_changes_the_configuration_of_a_run(tmp_path, probability, first):
    file = tmp_path / "run.yml"
    file.write_text(yaml.safe_dump(YAMLConfig(S, balanced_paste=0.5).yaml_cfg))
    assert get(YAMLConfig(file).yaml_cfg, OPS)[0] == PASTE
    cfg = YAMLConfig(file, balanced_paste=probability)
    assert get(cfg.yaml_cfg, OPS) == first + get(YAMLConfig(S).yaml_cfg, OPS)


@pytest.mark.parametrize(
    ("probability", "first"), [(None, [PASTE]), (0, []), (0.2, [{**PASTE, "p": 0.2}])]
)
def test_value_can_be_edited_in_the_configuration_of_a_run(tmp_path, probability, first):
    file = tmp_path / "run.yml"
    saved = YAMLConfig(S, balanced_paste=0.5).yaml_cfg
    file.write_text(yaml.safe_dump({**saved, "balanced_paste": probability}))
    cfg = YAMLConfig(file)
    assert get(cfg.yaml_cfg, OPS) == first + get(YAMLConfig(S).yaml_cfg, OPS)
    assert any("balanced_paste" in note for note in cfg.notes) == (probability is not None)


def test_null_keeps_the_value_of_the_model(tmp_path, digits):
    """As in the app, whose hyperparameters contain all keys; the epochs are those of this run."""
    saved = tiny_config(tmp_path, digits, balanced_paste=0.2, epoches=9).yaml_cfg
    file = tmp_path / "run.yml"
    file.write_text(yaml.safe_dump(saved))
    cfg = YAMLConfig(file, balanced_paste=None, epoches=4)
    assert get(cfg.yaml_cfg, OPS)[0] == {**PASTE, "p": 0.2}
    policy = cfg.train_dataloader.dataset.transforms.policy
    assert policy["active"] == {"CopyPaste": [0, 3]}


def test_own_operation_is_not_removed_by_the_default(tmp_path):
    file = tmp_path / "own.yml"
    ops = [PASTE, *get(YAMLConfig(S).yaml_cfg, OPS)]
    transforms = {"dataset": {"transforms": {"ops": ops}}}
    file.write_text(yaml.safe_dump({"__include__": [str(S)], "train_dataloader": transforms}))
    for given in ({}, {"balanced_paste": None}):
        assert get(YAMLConfig(file, **given).yaml_cfg, OPS) == ops


def test_number_in_any_notation_of_yaml():
    """YAML 1.1 reads 5e-1 as text."""
    assert get(YAMLConfig(S, balanced_paste="5e-1").yaml_cfg, OPS)[0] == PASTE


def test_order_with_the_dense_recipe_does_not_depend_on_a_saved_configuration(tmp_path):
    file = tmp_path / "run.yml"
    cfg = YAMLConfig(S, balanced_paste=0.5, recipe="dense")
    file.write_text(yaml.safe_dump(cfg.yaml_cfg))
    again = YAMLConfig(file, balanced_paste=0.5)
    assert types(cfg)[:2] == ["CopyPaste", "Mosaic"]
    assert get(again.yaml_cfg, OPS) == get(cfg.yaml_cfg, OPS)
    assert not [note for note in again.notes if "CopyPaste" in note]


def test_both_recipes_keep_their_epochs(tmp_path, digits):
    cfg = tiny_config(tmp_path, digits, balanced_paste=0.5, recipe="dense", epoches=10)
    transforms = cfg.train_dataloader.dataset.transforms
    active, end = transforms.policy["active"], transforms.policy["epoch"]
    assert active["CopyPaste"] == [0, end]
    assert end == 9  # dense supervision ends a tenth of the run before
    assert active["Mosaic"] == active["MixUp"] == [1, 6]


@pytest.mark.parametrize("value", [1.5, -0.1, "often"])
def test_invalid_values(value):
    with pytest.raises(ConfigError, match="balanced_paste"):
        YAMLConfig(S, balanced_paste=value)

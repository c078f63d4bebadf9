"""The setting `augmentation` in layers of a configuration."""

import pytest
import yaml

from rtdetrv2_pytorch.src.core import ConfigError, YAMLConfig
from rtdetrv2_pytorch.src.core.augmentation import apply_augmentation
from rtdetrv2_pytorch.src.core.yaml_files import get
from rtdetrv2_pytorch.src.data.augment.presets import preset_ops
from tests.tiny import CONFIGS

S = CONFIGS / "rtdetrv2" / "rtdetrv2_r18vd_120e_coco.yml"
TRANSFORMS = ("train_dataloader", "dataset", "transforms")
OPS = ".".join((*TRANSFORMS, "ops"))


def ops_of(cfg):
    return get(cfg.yaml_cfg, (*TRANSFORMS, "ops"))


def policy_of(cfg):
    return get(cfg.yaml_cfg, (*TRANSFORMS, "policy"))


def transforms(**values):
    return {"train_dataloader": {"dataset": {"transforms": values}}}


def test_default_keeps_the_published_augmentation():
    plain, default = YAMLConfig(S), YAMLConfig(S, augmentation=None)
    assert ops_of(plain) == ops_of(default)
    assert policy_of(plain) == policy_of(default)
    assert not any("augmentation" in note for note in plain.notes)


def test_preset_replaces_operations_and_keeps_size_and_last_epochs():
    cfg = YAMLConfig(S, augmentation="aerial", eval_spatial_size=[320, 256], epoches=20)
    assert ops_of(cfg) == preset_ops("aerial", ops_of(YAMLConfig(S, eval_spatial_size=[320, 256])))
    assert {"type": "Resize", "size": [320, 256]} in ops_of(cfg)
    assert policy_of(cfg)["epoch"] == 19
    assert "RandomAffine" in policy_of(cfg)["ops"]
    assert "RandomQuarterTurn" not in policy_of(cfg)["ops"]
    assert f"augmentation: aerial replaces the operations of {OPS}" in cfg.notes


def test_saved_configuration_of_a_run_opens_unchanged():
    cfg = YAMLConfig(S, augmentation="microscopy", eval_spatial_size=[320, 320], epoches=20)
    again = YAMLConfig.from_values(cfg.yaml_cfg, name="model_config.yml")
    assert again.yaml_cfg == cfg.yaml_cfg
    assert again.notes == []


def test_configuration_of_a_detector_opens():
    """It has no training data; see `deploy.detector`."""
    values = YAMLConfig(S, augmentation="microscopy", recipe="dense").yaml_cfg
    values.pop("train_dataloader")
    assert YAMLConfig.from_values(values, name="best.pth").notes == []


def test_later_preset_replaces_that_of_a_saved_configuration(tmp_path):
    path = tmp_path / "model_config.yml"
    path.write_text(yaml.safe_dump(YAMLConfig(S, augmentation="microscopy").yaml_cfg))
    later = YAMLConfig(path, augmentation="documents")
    assert ops_of(later) == ops_of(YAMLConfig(S, augmentation="documents"))
    # null, the default of the app, keeps the operations of the configuration
    assert ops_of(YAMLConfig(path, augmentation=None)) == ops_of(YAMLConfig(path))


def test_operations_set_later_or_together_win():
    own = [op for op in ops_of(YAMLConfig(S)) if op["type"] != "RandomZoomOut"]
    cfg = YAMLConfig(S, augmentation="light", **transforms(ops=own))
    assert ops_of(cfg) == own
    assert f"augmentation: light is not used, because {OPS} is set to other operations" in cfg.notes


@pytest.mark.parametrize(("epochs", "stop"), [(50, 49), (1, 1)])
def test_policy_of_the_cpu_schedule_does_not_disable_the_preset(epochs, stop):
    """Without a GPU, strong augmentation is disabled from the start; a preset is a choice."""
    cfg = YAMLConfig(S, augmentation="light", epoches=epochs, **transforms(policy={"epoch": 0}))
    assert policy_of(cfg)["epoch"] == stop
    assert cfg.notes[-1].endswith(f"0 -> {stop}, because 0 would disable the preset")
    cfg = YAMLConfig(S, epoches=epochs, **transforms(policy={"epoch": 0}))
    assert policy_of(cfg)["epoch"] == 0
    cfg = YAMLConfig(S, augmentation="none", epoches=epochs, **transforms(policy={"epoch": 0}))
    assert policy_of(cfg) == {"name": "stop_epoch", "epoch": 0, "ops": []}  # nothing to disable
    assert not any("because 0 would disable" in note for note in cfg.notes)


@pytest.mark.parametrize("name", ["aeriall", "photo", 3, ["light"]])
def test_unknown_preset_is_rejected_with_the_list(name):
    names = "'photos', 'aerial', 'microscopy', 'documents', 'industrial', 'light' or 'none'"
    with pytest.raises(ConfigError, match=f"augmentation = .*: give {names}"):
        YAMLConfig(S, augmentation=name)


def test_data_without_resize_is_rejected():
    values = {"augmentation": "light", **transforms(ops=[{"type": "PadToSize", "size": 64}])}
    with pytest.raises(ConfigError, match=rf"augmentation = 'light': {OPS} has no Resize; add one"):
        apply_augmentation(values, [])

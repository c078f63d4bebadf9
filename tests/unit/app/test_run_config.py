"""Translation of hyperparameters for every model of the app."""

import json
import logging
from pathlib import Path

import pytest
import torch
import yaml

from rtdetrv2_pytorch.src.core import ConfigError, YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import get
from rtdetrv2_pytorch.src.misc.text import counted
from supervisely_integration import paths
from supervisely_integration.models import find_base_config
from supervisely_integration.train.run_config import (
    RunFiles,
    check_hyperparameters,
    portable_config,
    run_config,
    write_config,
)
from tests.tiny import NETWORK

ROWS = json.loads(paths.MODELS.read_text(encoding="utf-8"))
CONFIGS = sorted({row["meta"]["model_files"]["config"] for row in ROWS})
S, L, X = (
    find_base_config(f"rtdetrv2_{name}_coco.yml")
    for name in ("r18vd_120e", "r50vd_6x", "r101vd_6x")
)
DISCRETE = "rtdetrv2_r18vd_dsp_3x_coco.yml"  # its configuration has a checkpoint to fine-tune
TRAIN_OPS = ("train_dataloader", "dataset", "transforms", "ops")
VAL_OPS = ("val_dataloader", "dataset", "transforms", "ops")
POLICY = ("train_dataloader", "dataset", "transforms", "policy", "epoch")


def files(base, **changed):
    data = Path("/machine/data")
    chosen = {
        "base_config": base,
        "train_images": data / "train",
        "train_annotations": data / "train.json",
        "val_images": data / "val",
        "val_annotations": data / "val.json",
        "output_dir": Path("/machine/output"),
    }
    return RunFiles(**chosen | changed)


def configure(base=S, hyperparameters=None, num_classes=3, **options):
    file_options = {k: options.pop(k) for k in ("tuning", "resume", "log_dir") if k in options}
    run = run_config(
        hyperparameters, files(base, **file_options), num_classes=num_classes, **options
    )
    return YAMLConfig(base, **run.overrides), run


def resize_of(cfg, path):
    return next(op["size"] for op in get(cfg.yaml_cfg, path) if op["type"] == "Resize")


# Every model


@pytest.mark.parametrize("name", CONFIGS)
def test_defaults_configure_every_model(name):
    base = find_base_config(name)
    check_hyperparameters(None, base)
    cfg, run = configure(base, tuning="/cache/weights.pth", device="cpu")
    settings = cfg.settings
    assert (settings.epoches, settings.checkpoint_freq, settings.keep_last) == (50, 5, 0)
    assert (settings.use_amp, settings.use_ema, settings.clip_max_norm) == (True, True, 0.1)
    assert settings.tuning == "/cache/weights.pth"
    assert settings.device == "cpu"
    assert cfg.yaml_cfg["num_classes"] == 3
    assert cfg.yaml_cfg["remap_mscoco_category"] is False
    assert cfg.yaml_cfg["lr_scheduler"] == {
        "type": "MultiStepLR",
        "milestones": [35, 45],
        "gamma": 0.1,
    }
    assert cfg.yaml_cfg["lr_warmup_scheduler"]["warmup_duration"] == 1000
    assert cfg.yaml_cfg["train_dataloader"]["total_batch_size"] == 16
    assert cfg.yaml_cfg["val_dataloader"]["total_batch_size"] == 32
    assert run.notes == []
    # Strong augmentation ends within the run for every base configuration.
    assert 0 < get(cfg.yaml_cfg, POLICY) < 50


@pytest.mark.parametrize("name", CONFIGS)
def test_random_weights_need_no_checkpoint(name):
    cfg, _ = configure(find_base_config(name))
    assert not cfg.settings.tuning  # the base configuration may have one
    assert not cfg.settings.resume
    assert cfg.yaml_cfg["PResNet"]["pretrained"] is False


# Translation


def test_paths():
    cfg, _ = configure(log_dir=Path("/machine/logs"))
    train, val = (cfg.yaml_cfg[f"{split}_dataloader"]["dataset"] for split in ("train", "val"))
    assert train["img_folder"] == "/machine/data/train"
    assert train["ann_file"] == "/machine/data/train.json"
    assert val["img_folder"] == "/machine/data/val"
    assert val["ann_file"] == "/machine/data/val.json"
    assert cfg.output_dir == Path("/machine/output")
    assert cfg.settings.summary_dir == "/machine/logs"


def test_settings_are_passed_on():
    chosen = {
        "epoches": 7,
        "checkpoint_freq": 2,
        "keep_last": 3,
        "save_optimizer": True,
        "save_ema": True,
        "clip_max_norm": 0.5,
        "grad_accum_steps": 4,
        "use_ema": False,
        "use_amp": False,
        "amp_dtype": "float16",
        "patience": 5,
        "max_skipped_steps": 6,
        "seed": 11,
        "num_workers": 1,
        "print_freq": 13,
    }
    settings = configure(hyperparameters=chosen)[0].settings
    assert {key: getattr(settings, key) for key in chosen} == chosen


def test_image_size_is_the_same_everywhere():
    cfg, _ = configure(L, {"eval_spatial_size": [320, 480]})
    assert cfg.yaml_cfg["eval_spatial_size"] == [320, 480]
    assert resize_of(cfg, TRAIN_OPS) == resize_of(cfg, VAL_OPS) == [320, 480]


def test_batch_sizes():
    cfg, run = configure(hyperparameters={"batch_size": 6})
    assert cfg.yaml_cfg["train_dataloader"]["total_batch_size"] == 6
    assert cfg.yaml_cfg["val_dataloader"]["total_batch_size"] == 12
    cfg, _ = configure(hyperparameters={"batch_size": 6, "val_batch_size": 1})
    assert cfg.yaml_cfg["val_dataloader"]["total_batch_size"] == 1
    assert run.notes == []


def test_batch_size_is_limited_by_training_split():
    cfg, run = configure(num_train_images=5)
    assert cfg.yaml_cfg["train_dataloader"]["total_batch_size"] == 5
    assert run.notes == [
        "batch_size: 16 -> 5, the number of images in the training split",
    ]
    assert configure(num_train_images=16)[1].notes == []


def test_parameter_groups_keep_learning_rate_ratio():
    base_rules = YAMLConfig(L).yaml_cfg["optimizer"]["params"]
    assert base_rules[0]["lr"] == 0.00001  # for a learning rate of 0.0001
    optimizer = configure(L, {"optimizer": {"lr": 2e-4}})[0].yaml_cfg["optimizer"]
    assert optimizer["lr"] == 2e-4
    assert optimizer["params"] == [{**base_rules[0], "lr": 2e-5}, base_rules[1]]


def test_parameter_groups_at_base_learning_rate():
    expected = YAMLConfig(X).yaml_cfg["optimizer"]["params"]
    assert configure(X)[0].yaml_cfg["optimizer"]["params"] == expected


def test_given_parameter_groups_replace_base():
    own = [{"params": "^backbone", "lr": 0.5}]
    cfg, _ = configure(X, {"optimizer": {"lr": 0.1, "params": own}})
    assert cfg.yaml_cfg["optimizer"]["params"] == own


def test_parameter_groups_with_other_optimizer():
    cfg, _ = configure(L, {"optimizer": {"type": "SGD", "lr": 0.01, "momentum": 0.9}})
    optimizer = cfg.yaml_cfg["optimizer"]
    assert "betas" not in optimizer
    assert [rule.get("lr") for rule in optimizer["params"]] == [0.001, None]


def test_one_cycle_default_max_lr():
    chosen = {"lr_scheduler": "OneCycleLR", "optimizer": {"lr": 3e-4}}
    assert configure(hyperparameters=chosen)[0].yaml_cfg["lr_scheduler"] == {
        "type": "OneCycleLR",
        "max_lr": 3e-4,
    }


def test_no_schedule_and_no_warmup():
    cfg, _ = configure(hyperparameters={"lr_scheduler": None, "lr_warmup_scheduler": None})
    assert cfg.yaml_cfg["lr_scheduler"]["milestones"] == []
    assert cfg.lr_warmup_scheduler is None


@pytest.mark.parametrize(
    ("epochs", "milestones"), [(100, [70, 90]), (10, [7, 9]), (2, [1]), (1, [])]
)
def test_default_milestones_are_scaled(epochs, milestones):
    cfg, run = configure(hyperparameters={"epoches": epochs})
    assert cfg.yaml_cfg["lr_scheduler"]["milestones"] == milestones
    assert run.notes == [
        f"lr_scheduler.milestones: [35, 45] -> {milestones}, for {counted(epochs, 'epoch')}",
    ]


def test_given_milestones_are_kept():
    cfg, run = configure(
        hyperparameters={"epoches": 10, "lr_scheduler": {"milestones": [4, 20], "gamma": 0.5}}
    )
    assert cfg.yaml_cfg["lr_scheduler"]["milestones"] == [4, 20]
    assert cfg.yaml_cfg["lr_scheduler"]["gamma"] == 0.5
    assert run.notes == []


def test_user_schedule_replaces_the_base_schedule(tmp_path):
    values = portable_config(YAMLConfig(S).yaml_cfg)
    values["lr_scheduler"] = {"type": "CosineAnnealingLR", "T_max": 5, "eta_min": 0.01}
    recipe = write_config(values, tmp_path / "model_config.yml")
    chosen = {"lr_scheduler": {"type": "CosineAnnealingLR"}}
    scheduler = configure(recipe, chosen)[0].yaml_cfg["lr_scheduler"]
    assert scheduler["T_max"] is None  # the whole run
    assert scheduler["eta_min"] == 0.0


def test_engine_section_is_passed_on():
    cfg, _ = configure(hyperparameters={"RTDETRTransformerv2": {"num_queries": 50}})
    assert cfg.yaml_cfg["RTDETRTransformerv2"]["num_queries"] == 50
    assert cfg.yaml_cfg["RTDETRTransformerv2"]["num_layers"] == 3


def test_resume_and_tuning_are_mutually_exclusive():
    settings = configure(find_base_config(DISCRETE), resume="/run/last.pth")[0].settings
    assert (settings.resume, settings.tuning) == ("/run/last.pth", None)
    with pytest.raises(ConfigError, match="give one"):
        files(S, tuning="a.pth", resume="b.pth")


def test_schedule_check_does_not_build_the_network(monkeypatch):
    def build(*_, **__):
        raise AssertionError("a network was built")

    monkeypatch.setattr("rtdetrv2_pytorch.src.zoo.rtdetr.rtdetr.RTDETR.__init__", build)
    check_hyperparameters(None, S)


# Base configurations


def test_find_base_config_by_name_and_path(tmp_path):
    assert find_base_config("rtdetrv2_r18vd_120e_coco.yml") == S
    assert find_base_config(S) == S
    own = tmp_path / "model_config.yml"
    own.write_text("")
    assert find_base_config(str(own)) == own.resolve()
    with pytest.raises(ConfigError, match="no_such.yml: no such model configuration"):
        find_base_config("no_such.yml")


# The uploaded configuration


def strings(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", CONFIGS)
def test_portable_config_contains_no_local_paths(name, tmp_path):
    cfg, _ = configure(
        find_base_config(name), resume="/machine/last.pth", log_dir=Path("/machine/l"), device="cpu"
    )
    path = write_config(portable_config(cfg.yaml_cfg), tmp_path / "sub" / "model_config.yml")
    text = path.read_text()
    assert "machine" not in text
    assert "__include__" not in text
    assert not [s for s in strings(yaml.safe_load(text)) if Path(s).is_absolute() or "://" in s]
    again = YAMLConfig(path)
    assert again.yaml_cfg["num_classes"] == 3
    assert again.settings.epoches == 50
    assert again.yaml_cfg["PResNet"]["pretrained"] is False


def test_portable_config_does_not_modify_the_original():
    cfg, _ = configure()
    before = yaml.safe_dump(cfg.yaml_cfg)
    portable_config(cfg.yaml_cfg)
    assert yaml.safe_dump(cfg.yaml_cfg) == before


def test_portable_config_builds_network_without_data(tmp_path):
    cfg, _ = configure(S, {**NETWORK, "eval_spatial_size": [64, 96]}, num_classes=5)
    path = write_config(portable_config(cfg.yaml_cfg), tmp_path / "model_config.yml")
    model = YAMLConfig(path).model
    assert model.decoder.dec_score_head[-1].out_features == 5


def test_portable_config_is_a_base_for_training(tmp_path, caplog):
    first, _ = configure(L, {"optimizer": {"lr": 2e-4}, "epoches": 20})
    path = write_config(portable_config(first.yaml_cfg), tmp_path / "model_config.yml")
    with caplog.at_level(logging.WARNING):
        check_hyperparameters(None, path)
        second, _ = configure(path, num_classes=7, tuning="/cache/best.pth")
    assert caplog.text == ""
    expected, _ = configure(L, num_classes=7, tuning="/cache/best.pth")
    # Same run as from the published configuration; only the augmentation epoch was scaled twice.
    assert second.yaml_cfg["optimizer"] == expected.yaml_cfg["optimizer"]
    assert second.yaml_cfg["lr_scheduler"] == expected.yaml_cfg["lr_scheduler"]
    assert second.yaml_cfg["num_classes"] == 7
    assert get(second.yaml_cfg, POLICY) < 50


def test_batch_size_of_base_config_is_reset(tmp_path):
    recipe = write_config(
        {**portable_config(YAMLConfig(S).yaml_cfg), "batch_size": 64}, tmp_path / "own.yml"
    )
    assert configure(recipe)[0].settings.batch_size is None


@pytest.mark.parametrize(
    ("text", "decay"),
    [(None, None), ("ema: {decay: 0.9}", 0.9), ("ema: {decay: 0.5}", 0.5)],
)
def test_only_the_default_decay_is_adapted(text, decay):
    cfg, run = configure(hyperparameters=text)
    assert run.overrides["ema"] == {"type": "ModelEMA", "decay": decay, "warmups": 2000}
    cfg.model = torch.nn.Linear(1, 1)
    assert cfg.ema.decay == (decay or 0.9999)

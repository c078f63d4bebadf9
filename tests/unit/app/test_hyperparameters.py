"""Hyperparameters of the training app: defaults, completion and error messages."""

import re

import pytest
import yaml

from rtdetrv2_pytorch.src.core import ConfigError
from rtdetrv2_pytorch.src.core.settings import Settings
from supervisely_integration import paths
from supervisely_integration.models import find_base_config
from supervisely_integration.train.hyperparameters import (
    CHOICES,
    complete_hyperparameters,
    default_hyperparameters,
    read_hyperparameters,
)
from supervisely_integration.train.run_config import check_hyperparameters

BASE = find_base_config("rtdetrv2_r50vd_6x_coco.yml")


def error_of(text) -> str:
    with pytest.raises(ConfigError) as caught:
        check_hyperparameters(text, BASE)
    message = str(caught.value)
    assert "\n" not in message
    place, _, reason = message.partition(": ")
    assert re.fullmatch(r"hyperparameters(, line \d+)?", place)
    return reason


# The file


def test_default_values():
    values = default_hyperparameters()
    promised = {
        "epoches": 50,
        "batch_size": 16,
        "eval_spatial_size": [640, 640],
        "checkpoint_freq": 5,
        "save_optimizer": False,
        "save_ema": False,
        "optimizer": {
            "type": "AdamW",
            "lr": 0.0001,
            "betas": [0.9, 0.999],
            "weight_decay": 0.0001,
        },
        "clip_max_norm": 0.1,
        "lr_scheduler": {"type": "MultiStepLR", "milestones": [35, 45], "gamma": 0.1},
        "lr_warmup_scheduler": {"type": "LinearWarmup", "warmup_duration": 1000},
        "use_ema": True,
        "ema": {"type": "ModelEMA", "decay": 0.9999, "warmups": 2000},
        "use_amp": True,
    }
    assert {key: values[key] for key in promised} == promised
    added = set(values) - set(promised) - {"val_batch_size", "label_radar", "export_int8"}
    assert added <= set(Settings.__dataclass_fields__)
    own_defaults = {key: values[key] for key in added - {"num_workers"}}
    engine = Settings()
    assert own_defaults == {key: getattr(engine, key) for key in own_defaults}


def test_every_default_has_a_comment():
    lines = paths.HYPERPARAMETERS.read_text(encoding="utf-8").splitlines()
    for key in default_hyperparameters():
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{key}:"))
        assert lines[at - 1].startswith("#"), key


def test_file_lists_all_choices():
    text = paths.HYPERPARAMETERS.read_text(encoding="utf-8")
    for choices in CHOICES.values():
        for name in choices:
            assert name in text


# Lines


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# a comment\nepochs: 4\nbatch_siz: 2\nbatch_size: 2\n", 3),
        ("batch_size: 2\n\nepochs: many\n", 3),  # the message names epoches
        ("optimizer:\n  type: AdamW\n  lr: fast\n", 3),
        ("optimizer:\n  type: AdamW\n  learning_rat: 1\n", 3),
        ("optimizer: {type: adamw}\n", 1),
        ("use_amp: true\nPResNet:\n  depth: 18\n  freez_norm: true\n", 4),
        ("epoches: 4\nlr_scheduler:\n  type: OneCycleLR\n  pct_start: 7\n", 4),
        ("epoches: 4\noutput_dir: here\n", 2),
        ("epoches: 4\neval_spatial_size: [100, 100]\n", 2),
        ("epoches: 4\nbatch_size: [\n", 3),  # invalid YAML; it ends there
        ("- 4\n", None),
    ],
)
def test_errors_name_their_line(text, line):
    with pytest.raises(ConfigError) as caught:
        check_hyperparameters(text, BASE)
    assert caught.value.line == line
    assert (f"line {line}" in str(caught.value)) is (line is not None)


# Reading and completing


def test_empty_text_gives_defaults():
    for empty in (None, "", "# only a comment", {}):
        assert check_hyperparameters(empty, BASE) == default_hyperparameters()


def test_missing_keys_get_defaults():
    old = "epoches: 10\nbatch_size: 4\noptimizer:\n  lr: 0.0002\n"
    completed = check_hyperparameters(old, BASE)
    expected = default_hyperparameters() | {"epoches": 10, "batch_size": 4}
    expected["optimizer"]["lr"] = 0.0002
    assert completed == expected


def test_completion_does_not_change_defaults():
    complete_hyperparameters({"optimizer": {"lr": 3}})["optimizer"]["betas"].append(1)
    assert default_hyperparameters()["optimizer"]["betas"] == [0.9, 0.999]


def test_other_type_takes_defaults_it_accepts():
    values = complete_hyperparameters(
        {"optimizer": {"type": "SGD", "momentum": 0.9}, "lr_scheduler": "CosineAnnealingLR"}
    )
    assert values["optimizer"] == {
        "type": "SGD",
        "lr": 0.0001,
        "weight_decay": 0.0001,
        "momentum": 0.9,
    }
    assert values["lr_scheduler"] == {"type": "CosineAnnealingLR"}


def test_epochs_and_epoches_are_exclusive_spellings():
    assert check_hyperparameters("epochs: 7", BASE)["epoches"] == 7
    assert "leave one of them out" in error_of("epochs: 7\nepoches: 7")


@pytest.mark.parametrize(
    "text",
    [
        "lr_scheduler: null",
        "lr_warmup_scheduler: null",
        "use_ema: false\nema: null",
        "lr_scheduler: OneCycleLR",
        "lr_scheduler: {type: OneCycleLR, max_lr: 1e-3, pct_start: 0.1}",
        "lr_scheduler: {type: FlatCosineLR, flat_fraction: 0.3}",
        "lr_scheduler: {type: CosineAnnealingLR, eta_min: 1e-6}",
        "optimizer: {type: SGD, lr: 1e-2, momentum: 0.9}",
        "optimizer: {type: Adam}",
        "epoches: 1",
        "eval_spatial_size: [320, 672]",
        "checkpoint_freq: 0",
        "clip_max_norm: 0",
        "RTDETRTransformerv2: {num_queries: 100}",
        "train_dataloader: {dataset: {transforms: {policy: {epoch: 0}}}}",
    ],
)
def test_valid_hyperparameters_pass(text, recwarn):
    check_hyperparameters(text, BASE)
    assert [str(w.message) for w in recwarn] == []


def test_number_that_yaml_parses_as_string():
    completed = check_hyperparameters("optimizer: {lr: 1e-4}\nlr_scheduler: null", BASE)
    assert completed["optimizer"]["lr"] == "1e-4"  # YAML's view; the engine converts it


# Errors


@pytest.mark.parametrize(
    ("text", "named", "remedy"),
    [
        ("epoces: 3", "'epoces'", "did you mean 'epoches'?"),
        ("flux: 3", "'flux'", "the nearest are "),
        ("optimizer: {lrr: 1}", "optimizer: unknown key 'lrr'", "did you mean 'lr'?"),
        ("optimizer: {type: Adamw}", "optimizer.type = 'Adamw'", "did you mean 'AdamW'?"),
        (
            "lr_scheduler: {type: flat-cosine}",
            "lr_scheduler.type",
            "the nearest are FlatCosineLR, ",
        ),
        ("lr_scheduler: {type: cosine}", "lr_scheduler.type", "CosineAnnealingLR"),
        ("ema: {type: EMA}", "ema.type = 'EMA'", "ModelEMA"),
        ("ema: 3", "ema = 3", "'decay': 0.9999"),
        ("optimizer: null", "optimizer = None", "give its keys"),
        ("RTDETRTransformerv2: {num_querie: 3}", "num_querie", "did you mean 'num_queries'?"),
        ("num_classes: 3", "'num_classes'", "is set by the selected classes; remove it"),
        ("resume: last.pth", "'resume'", "is set by the task; remove it"),
        ("tuning: best.pth", "'tuning'", "is set by the selected model; remove it"),
        ("epoches: many", "epoches = 'many'", "valid integer"),
        ("epoches: 0", "epoches = 0", "greater than or equal to 1"),
        ("patience: 1.5", "patience = 1.5", "valid integer"),
        ("batch_size: 0", "batch_size = 0", "greater than or equal to 1"),
        ("batch_size: 2.5", "batch_size = 2.5", "valid integer"),
        ("batch_size: true", "batch_size = True", "give a number"),
        ("batch_size: .inf", "batch_size = inf", "finite"),
        ("val_batch_size: -1", "val_batch_size = -1", "greater than or equal to 1"),
        ("eval_spatial_size: 640", "eval_spatial_size = 640", "list of 2 values"),
        ("eval_spatial_size: [100, 640]", "eval_spatial_size[0] = 100", "multiple of 32"),
        ("eval_spatial_size: [640, 0]", "eval_spatial_size[1] = 0", "greater than or equal to 32"),
        ("checkpoint_freq: -1", "checkpoint_freq = -1", "greater than or equal to 0"),
        ("keep_last: -1", "keep_last = -1", "greater than or equal to 0"),
        ("optimizer: {lr: -1}", "optimizer.lr = -1", "greater than 0"),
        ("optimizer: {lr: .nan}", "optimizer.lr = nan", "finite number"),
        ("optimizer: {lr: fast}", "optimizer.lr = 'fast'", "valid number"),
        ("optimizer: {betas: [0.9]}", "optimizer.betas = [0.9]", "more than 1 value"),
        ("optimizer: {betas: [0.9, 1.0]}", "optimizer.betas[1] = 1.0", "less than 1"),
        (
            "optimizer: {weight_decay: -0.1}",
            "optimizer.weight_decay = -0.1",
            "greater than or equal to 0",
        ),
        ("clip_max_norm: -1", "clip_max_norm = -1", "greater than or equal to 0"),
        ("lr_scheduler: {gamma: 0}", "lr_scheduler.gamma = 0", "greater than 0"),
        ("lr_scheduler: {milestones: 3}", "lr_scheduler.milestones = 3", "valid list"),
        ("lr_scheduler: {milestones: [0]}", "lr_scheduler.milestones[0] = 0", "equal to 1"),
        (
            "lr_scheduler: {type: OneCycleLR, pct_start: 2}",
            "pct_start = 2",
            "less than or equal to 1",
        ),
        (
            "lr_scheduler: {type: OneCycleLR, total_steps: 10}",
            "lr_scheduler: does not fit a run of 50 epochs",
            "change its lengths or epoches",
        ),
        (
            "lr_warmup_scheduler: {warmup_duration: -4}",
            "warmup_duration = -4",
            "greater than or equal to 0",
        ),
        ("ema: {decay: 1.5}", "ema.decay = 1.5", "less than 1"),
        ("ema: {warmups: -1}", "ema.warmups = -1", "greater than or equal to 0"),
        ("use_amp: maybe", "use_amp = 'maybe'", "valid boolean"),
        ("amp_dtype: fp16", "amp_dtype = 'fp16'", "'bfloat16' or 'float16'"),
        ("seed: -1", "seed = -1", "greater than or equal to 0"),
        ("num_workers: -1", "num_workers = -1", "greater than or equal to 0"),
        (
            "lr_scheduler: [1",
            "invalid YAML in column 17",
            "correct it",
        ),
        ("- 1", "'- 1'", "'name: value' lines"),
        ("1: 2", "'1: 2'", "'name: value' lines"),
    ],
)
def test_invalid_values_are_rejected_with_name_and_remedy(text, named, remedy):
    message = error_of(text)
    assert named in message
    assert remedy in message


def test_error_in_base_config_names_the_base_config(tmp_path):
    broken = tmp_path / "model_config.yml"
    broken.write_text("epoches: 3\nmodle: RTDETR\n")
    with pytest.raises(ConfigError, match=r"model_config.yml, line 2: unknown key 'modle'"):
        check_hyperparameters(None, broken)


def test_read_copies_mapping_and_parses_text():
    given = {"epoches": 3}
    assert read_hyperparameters(given) == given
    assert read_hyperparameters(given) is not given
    assert read_hyperparameters(yaml.safe_dump(given)) == given


def test_text_that_expands_without_bound_is_rejected():
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ConfigError, match=r"hyperparameters.*it would have 1\.\d+e\+12 values"):
        read_hyperparameters("\n".join(rows))

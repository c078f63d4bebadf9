"""What people may write, and what they are told when it is wrong."""

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


def refusal(text) -> str:
    with pytest.raises(ConfigError) as caught:
        check_hyperparameters(text, BASE)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("hyperparameters: ")
    return message.removeprefix("hyperparameters: ")


# The file


def test_the_promised_defaults():
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
    added = set(values) - set(promised) - {"val_batch_size"}
    assert added <= set(Settings.__dataclass_fields__)
    own_defaults = {key: values[key] for key in added - {"num_workers"}}
    engine = Settings()
    assert own_defaults == {key: getattr(engine, key) for key in own_defaults}


def test_every_key_of_the_file_is_explained():
    lines = paths.HYPERPARAMETERS.read_text(encoding="utf-8").splitlines()
    for key in default_hyperparameters():
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{key}:"))
        assert lines[at - 1].startswith("#"), key


def test_the_file_names_every_choice():
    text = paths.HYPERPARAMETERS.read_text(encoding="utf-8")
    for choices in CHOICES.values():
        for name in choices:
            assert name in text


# Reading and completing


def test_nothing_means_the_defaults():
    for nothing in (None, "", "# only a comment", {}):
        assert check_hyperparameters(nothing, BASE) == default_hyperparameters()


def test_an_older_app_state_with_fewer_keys_is_completed():
    old = "epoches: 10\nbatch_size: 4\noptimizer:\n  lr: 0.0002\n"
    completed = check_hyperparameters(old, BASE)
    expected = default_hyperparameters() | {"epoches": 10, "batch_size": 4}
    expected["optimizer"]["lr"] = 0.0002
    assert completed == expected


def test_the_defaults_are_never_changed():
    complete_hyperparameters({"optimizer": {"lr": 3}})["optimizer"]["betas"].append(1)
    assert default_hyperparameters()["optimizer"]["betas"] == [0.9, 0.999]


def test_another_type_takes_the_defaults_that_it_knows():
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


def test_both_spellings_of_epochs_work_and_both_at_once_do_not():
    assert check_hyperparameters("epochs: 7", BASE)["epoches"] == 7
    assert "leave one of them out" in refusal("epochs: 7\nepoches: 7")


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
def test_what_is_right_passes(text, recwarn):
    check_hyperparameters(text, BASE)
    assert [str(w.message) for w in recwarn] == []


def test_numbers_that_yaml_takes_for_text_are_numbers():
    completed = check_hyperparameters("optimizer: {lr: 1e-4}\nlr_scheduler: null", BASE)
    assert completed["optimizer"]["lr"] == "1e-4"  # YAML's view; the engine converts it


# Refusals: the name of what is wrong, and the remedy


@pytest.mark.parametrize(
    ("text", "named", "remedy"),
    [
        ("epoces: 3", "'epoces'", "did you mean 'epoches'?"),
        ("flux: 3", "'flux'", "known are amp_dtype, batch_size"),
        ("optimizer: {lrr: 1}", "optimizer: unknown key 'lrr'", "did you mean 'lr'?"),
        ("optimizer: {type: Adamw}", "optimizer.type = 'Adamw'", "did you mean 'AdamW'?"),
        ("lr_scheduler: {type: flat-cosine}", "lr_scheduler.type", "mean 'FlatCosineLR'?"),
        ("lr_scheduler: {type: cosine}", "lr_scheduler.type", "known are CosineAnnealingLR"),
        ("ema: {type: EMA}", "ema.type = 'EMA'", "ModelEMA"),
        ("ema: 3", "ema = 3", "'decay': 0.9999"),
        ("optimizer: null", "optimizer = None", "give its keys"),
        ("RTDETRTransformerv2: {num_querie: 3}", "num_querie", "did you mean 'num_queries'?"),
        ("num_classes: 3", "'num_classes'", "follows from the selected classes; remove it"),
        ("resume: last.pth", "'resume'", "follows from the task; remove it"),
        ("tuning: best.pth", "'tuning'", "follows from the selected model; remove it"),
        ("epoches: many", "epoches = 'many'", "valid integer"),
        ("epoches: 0", "epoches = 0", "at least 1"),
        ("patience: 1.5", "patience = 1.5", "valid integer"),
        ("batch_size: 0", "batch_size = 0", "1 or more"),
        ("batch_size: 2.5", "batch_size = 2.5", "valid integer"),
        ("batch_size: true", "batch_size = True", "a number is needed"),
        ("batch_size: .inf", "batch_size = inf", "finite"),
        ("val_batch_size: -1", "val_batch_size = -1", "1 or more"),
        ("eval_spatial_size: 640", "eval_spatial_size = 640", "[height, width]"),
        ("eval_spatial_size: [100, 640]", "[100, 640]", "multiples of 32"),
        ("eval_spatial_size: [640, 0]", "[640, 0]", "multiples of 32"),
        ("checkpoint_freq: -1", "checkpoint_freq = -1", "at least 0"),
        ("keep_last: -1", "keep_last = -1", "at least 0"),
        ("optimizer: {lr: -1}", "optimizer.lr = -1", "above 0"),
        ("optimizer: {lr: .nan}", "optimizer.lr = nan", "above 0"),
        ("optimizer: {lr: fast}", "optimizer.lr = 'fast'", "valid number"),
        ("optimizer: {betas: [0.9]}", "optimizer.betas = [0.9]", "[0.9, 0.999]"),
        ("optimizer: {betas: [0.9, 1.0]}", "optimizer.betas", "below 1"),
        ("optimizer: {weight_decay: -0.1}", "optimizer.weight_decay", "0 or more"),
        ("clip_max_norm: -1", "clip_max_norm = -1", "0 or more"),
        ("lr_scheduler: {gamma: 0}", "lr_scheduler.gamma = 0", "above 0"),
        ("lr_scheduler: {milestones: 3}", "lr_scheduler.milestones = 3", "valid list"),
        ("lr_scheduler: {milestones: [0]}", "lr_scheduler.milestones = [0]", "1 or more"),
        ("lr_scheduler: {type: OneCycleLR, pct_start: 2}", "pct_start = 2", "1 or less"),
        (
            "lr_scheduler: {type: OneCycleLR, total_steps: 10}",
            "lr_scheduler: does not fit a run of 50 epochs",
            "change its lengths or epoches",
        ),
        ("lr_warmup_scheduler: {warmup_duration: -4}", "warmup_duration = -4", "0 or more"),
        ("ema: {decay: 1.5}", "ema.decay = 1.5", "below 1"),
        ("ema: {warmups: -1}", "ema.warmups = -1", "0 or more"),
        ("use_amp: maybe", "use_amp = 'maybe'", "valid boolean"),
        ("amp_dtype: fp16", "amp_dtype = 'fp16'", "'bfloat16' or 'float16'"),
        ("seed: -1", "seed = -1", "0 or more"),
        ("num_workers: -1", "num_workers = -1", "at least 0"),
        ("lr_scheduler: [1", "line 1, column 17", "correct it there"),
        ("- 1", "'- 1'", "'name: value' lines"),
        ("1: 2", "'1: 2'", "'name: value' lines"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(text, named, remedy):
    message = refusal(text)
    assert named in message
    assert remedy in message


def test_a_recipe_at_fault_is_not_blamed_on_the_hyperparameters(tmp_path):
    broken = tmp_path / "model_config.yml"
    broken.write_text("epoches: 3\nmodle: RTDETR\n")
    with pytest.raises(ConfigError, match=r"^model_config.yml: unknown key 'modle'"):
        check_hyperparameters(None, broken)


def test_a_mapping_is_copied_and_text_is_parsed():
    given = {"epoches": 3}
    assert read_hyperparameters(given) == given
    assert read_hyperparameters(given) is not given
    assert read_hyperparameters(yaml.safe_dump(given)) == given

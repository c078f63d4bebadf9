"""Adjustment of dependent values."""

import pytest

from rtdetrv2_pytorch.src.core import ConfigError
from rtdetrv2_pytorch.src.core.fitting import (
    drop_leftovers,
    fit_accumulation,
    fit_batch_size,
    fit_budget,
    fit_epochs,
    fit_image_sizes,
    fit_steps,
    schedule_changes,
)
from rtdetrv2_pytorch.src.core.yaml_files import Layer, merge_layers
from tests.tiny import CONFIGS

POLICY = ("train_dataloader", "dataset", "transforms", "policy", "epoch")


def stack(*values):
    """Return layers of values and the merged configuration."""
    layers = [Layer(f"layer{i}", v, v.get("epoches", 72)) for i, v in enumerate(values)]
    return layers, merge_layers(layers)


def resize(size):
    return {"dataset": {"transforms": {"ops": [{"type": "Resize", "size": size}]}}}


def recipe(stop=117, epochs=120, milestones=(1000,), scales=(480, 640)):
    return {
        "epoches": epochs,
        "train_dataloader": {
            "dataset": {"transforms": {"policy": {"name": "stop_epoch", "epoch": stop}}},
            "collate_fn": {"scales": scales and list(scales), "stop_epoch": stop},
        },
        "lr_scheduler": {"type": "MultiStepLR", "milestones": list(milestones)},
    }


def policy_epoch(values):
    return values["train_dataloader"]["dataset"]["transforms"]["policy"]["epoch"]


# Image sizes


def test_later_eval_size_changes_both_resizes():
    layers, values = stack(
        {"train_dataloader": resize([640, 640]), "val_dataloader": resize([640, 640])},
        {"eval_spatial_size": [320, 256]},
    )
    notes = fit_image_sizes(values, layers)
    assert values["train_dataloader"] == resize([320, 256])
    assert values["val_dataloader"] == resize([320, 256])
    assert len(notes) == 2
    assert "[640, 640] -> [320, 256]" in notes[0]


def test_later_resizes_change_the_eval_size():
    layers, values = stack(
        {"eval_spatial_size": [640, 640]},
        {"train_dataloader": resize([320, 320]), "val_dataloader": resize([320, 320])},
    )
    fit_image_sizes(values, layers)
    assert values["eval_spatial_size"] == [320, 320]


def test_different_sizes_in_one_layer_are_rejected():
    layers, values = stack(
        {
            "eval_spatial_size": [640, 640],
            "train_dataloader": resize([320, 320]),
            "val_dataloader": resize([640, 640]),
        }
    )
    with pytest.raises(ConfigError, match=r"different image sizes.*ops: \[320, 320\]"):
        fit_image_sizes(values, layers)


def test_equal_sizes_and_shorter_side_resizes_are_unchanged():
    layers, values = stack(
        {"eval_spatial_size": [640, 640], "train_dataloader": resize(512), "val_dataloader": {}}
    )
    assert fit_image_sizes(values, layers) == []
    assert values["train_dataloader"] == resize(512)


# Epochs


def test_stop_epoch_beyond_the_run_is_scaled():
    layers, values = stack(recipe(), {"epoches": 50})
    notes = fit_epochs(values, layers)
    assert policy_epoch(values) == 49  # 117 / 120 * 50 = 48.75
    assert values["train_dataloader"]["collate_fn"]["stop_epoch"] == 49
    assert "117 -> 49, scaled from 120 to 50 epochs" in notes[0]


def test_stop_epoch_within_the_run_is_kept():
    layers, values = stack(recipe(stop=30), {"epoches": 50})
    assert fit_epochs(values, layers) == []
    assert policy_epoch(values) == 30


def test_unreachable_milestone_is_kept_and_others_are_scaled():
    layers, values = stack(recipe(milestones=(60, 1000)), {"epoches": 20})
    fit_epochs(values, layers)
    assert values["lr_scheduler"]["milestones"] == [10, 1000]


def test_stop_epoch_set_with_the_epochs_is_kept():
    layers, values = stack(recipe(), recipe(stop=60, epochs=50))
    assert fit_epochs(values, layers) == []
    assert policy_epoch(values) == 60


@pytest.mark.parametrize(("epochs", "stop"), [(2, 1), (1, 1)])
def test_scaled_stop_epoch_in_short_runs(epochs, stop):
    layers, values = stack(recipe(), {"epoches": epochs})
    fit_epochs(values, layers)
    assert policy_epoch(values) == stop


def test_stop_epoch_of_disabled_multi_scale_is_ignored():
    layers, values = stack(recipe(scales=None), {"epoches": 50})
    assert len(fit_epochs(values, layers)) == 1


# Steps


def test_warmup_longer_than_a_third_is_shortened():
    values = {
        "lr_warmup_scheduler": {"warmup_duration": 2000},
        "ema": {"warmups": 2000, "decay": 0.9999},
    }
    notes = fit_steps(values, 600)
    assert values["lr_warmup_scheduler"]["warmup_duration"] == 30
    assert values["ema"]["warmups"] == 30
    assert "2000 -> 30 steps, 5 % of 600" in notes[0]
    # The average looks back as far: 1 / (1 - decay) = 30 steps.
    assert values["ema"]["decay"] == pytest.approx(1 - 1 / 30)
    assert len(notes) == 3


@pytest.mark.parametrize("steps", [6000, 100_000])
def test_warmup_up_to_a_third_is_kept(steps):
    values = {
        "lr_warmup_scheduler": {"warmup_duration": 2000},
        "ema": {"warmups": 2000, "decay": 0.9999},
    }
    assert fit_steps(values, steps) == []
    assert values["ema"] == {"warmups": 2000, "decay": 0.9999}


def test_lower_ema_decay_is_kept():
    values = {"ema": {"warmups": 2000, "decay": 0.9}}
    fit_steps(values, 600)
    assert values["ema"]["decay"] == 0.9


def test_warmup_of_a_single_step_run():
    values = {"lr_warmup_scheduler": {"warmup_duration": 10}}
    fit_steps(values, 1)
    assert values["lr_warmup_scheduler"]["warmup_duration"] == 1


# Options of another type


def test_keys_of_the_replaced_type_are_removed():
    layers, values = stack(
        {
            "lr_scheduler": {"type": "MultiStepLR", "milestones": [1], "gamma": 0.1},
            "optimizer": {"type": "AdamW", "lr": 0.1, "betas": [0.9, 0.99], "params": []},
        },
        {
            "lr_scheduler": {"type": "CosineAnnealingLR", "eta_min": 0.0},
            "optimizer": {"type": "SGD", "momentum": 0.9},
        },
    )
    notes = drop_leftovers(values, layers)
    assert values["lr_scheduler"] == {"type": "CosineAnnealingLR", "eta_min": 0.0}
    assert values["optimizer"] == {"type": "SGD", "lr": 0.1, "params": [], "momentum": 0.9}
    assert "lr_scheduler.milestones: removed, CosineAnnealingLR does not accept it" in notes


def test_invalid_key_of_the_new_type_is_not_removed():
    layers, values = stack(
        {"lr_scheduler": {"type": "MultiStepLR", "milestones": [1]}},
        {"lr_scheduler": {"type": "CosineAnnealingLR", "milestones": [2]}},
    )
    assert drop_leftovers(values, layers) == []


def test_same_type_removes_nothing():
    layers, values = stack(
        {"train_dataloader": {"type": "DataLoader", "total_batch_size": 16}},
        {"train_dataloader": {"type": "DataLoader"}},
    )
    assert drop_leftovers(values, layers) == []
    assert values["train_dataloader"]["total_batch_size"] == 16


def test_default_ema_warmup_is_shortened():
    values = {"ema": {"type": "ModelEMA"}}
    notes = fit_steps(values, 100)
    assert values["ema"] == {"type": "ModelEMA", "warmups": 5, "decay": 0.8}
    assert notes[0] == "ema.warmups: 2000 -> 5 steps, 5 % of 100"
    assert fit_steps({}, 100) == []


@pytest.mark.parametrize(("wanted", "used"), [(None, None), (2, 2), (3, 3), (50, 3)])
def test_accumulation_ends_with_the_epoch(wanted, used):
    values = {"grad_accum_steps": wanted}
    notes = fit_accumulation(values, 3)
    assert values["grad_accum_steps"] == used
    assert notes == (["grad_accum_steps: 50 -> 3, the batches of an epoch"] if wanted == 50 else [])


@pytest.mark.parametrize(
    ("loader", "images", "total"),
    [
        ({"total_batch_size": 16, "drop_last": True}, 12, 12),
        ({"total_batch_size": 12, "drop_last": True}, 12, None),
        ({"total_batch_size": 16, "drop_last": False}, 12, None),
        ({"batch_size": 16, "drop_last": True}, 12, 12),
        ({"total_batch_size": 16, "drop_last": True}, 0, None),
    ],
)
def test_batch_has_at_most_all_images(loader, images, total):
    values = {"train_dataloader": {}, "batch_size": 16}
    notes = fit_batch_size(values, loader, images)
    assert values["train_dataloader"].get("total_batch_size") == total
    expected = [f"batch size: 16 -> {total}, the number of training images"] if total else []
    assert notes == expected


def test_schedule_is_scaled_to_the_epochs_of_a_time_budget():
    """50 epochs become 20: 35 -> 14, 45 -> 18, 48 -> 19; 1000 disables decay."""
    values = {
        "epoches": 50,
        "lr_scheduler": {"type": "MultiStepLR", "milestones": [35, 45, 1000]},
        "train_dataloader": {
            "dataset": {"transforms": {"policy": {"epoch": 48}}},
            "collate_fn": {"stop_epoch": 0},
        },
    }
    notes = fit_budget(values, 20, "why")
    assert notes[0] == "epoches: 50 -> 20; why"
    assert values["epoches"] == 20
    assert values["lr_scheduler"]["milestones"] == [14, 18, 1000]
    assert values["train_dataloader"]["dataset"]["transforms"]["policy"]["epoch"] == 19
    assert values["train_dataloader"]["collate_fn"]["stop_epoch"] == 0
    assert schedule_changes(values) == [19, 0, 14, 18, 1000]
    assert len(notes) == 3
    assert fit_budget(values, 20, "why") == []  # as a resumed run does
    fit_budget(values, 200, "why")
    assert values["lr_scheduler"]["milestones"] == [140, 180, 1000]


@pytest.mark.parametrize(("length", "expected"), [(50, 1), (25, 1), (80, 80), (None, None)])
def test_cosine_follows_a_run_of_one_epoch(length, expected):
    values = {"epoches": 50, "lr_scheduler": {"type": "CosineAnnealingLR", "T_max": length}}
    fit_budget(values, 1, "why")
    assert values["lr_scheduler"]["T_max"] == expected


@pytest.mark.parametrize(
    ("source", "epochs", "kept"),
    [
        ("overrides", None, True),
        ("my.yml", 2, True),
        ("my.yml", 120, False),  # written for a longer run
        (str(CONFIGS / "runtime.yml"), 2, False),
        (str(CONFIGS / "runtime.yml"), 120, False),
    ],
)
def test_decay_that_was_set_for_the_run_is_kept(source, epochs, kept):
    layers = [
        Layer("base.yml", {"ema": {"decay": 0.5, "warmups": 2000}}, 120),
        Layer(source, {"ema": {"decay": 0.9999}}, epochs),
    ]
    values = {**merge_layers(layers), "epoches": 2}
    notes = fit_steps(values, 20, layers)
    assert values["ema"] == {"decay": 0.9999 if kept else 0.0, "warmups": 1}
    assert len(notes) == 1 + (not kept)


def test_null_is_the_default_decay():
    layers = [
        Layer("base.yml", {"ema": {"decay": 0.5, "warmups": 2000}}, 120),
        Layer("overrides", {"ema": {"decay": None}}, 2),
    ]
    values = {**merge_layers(layers), "epoches": 2}
    fit_steps(values, 6000, layers)
    assert values["ema"] == {"decay": 0.9999, "warmups": 2000}
    fit_steps(values, 100, layers)
    assert values["ema"] == {"decay": 0.8, "warmups": 5}

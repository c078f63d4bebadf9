"""Recipes are valid configurations that keep the number of steps."""

import pytest

from benchmarks.accuracy.recipes import (
    RECIPES,
    EmaDecay,
    OfEpochs,
    OfSteps,
    Recipe,
    assignments,
    find_recipe,
)
from rtdetrv2.training.model_table import find_model
from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.yaml_files import parse_overrides
from rtdetrv2_pytorch.src.optim.param_groups import group_parameters


def test_fractions_of_the_run():
    recipe = Recipe(
        about="",
        update={"a": OfSteps(0.15), "b": OfEpochs(0.8), "c": EmaDecay(0.02), "d": [1]},
    )
    assert recipe.resolved(epochs=20, steps=1000) == {"a": 150, "b": 16, "c": 0.95, "d": [1]}
    assert recipe.resolved(epochs=1, steps=3) == {"a": 1, "b": 1, "c": 0.5, "d": [1]}


@pytest.mark.parametrize("key", ["epoches", "train_dataloader.total_batch_size"])
def test_recipes_cannot_change_the_number_of_steps(key):
    with pytest.raises(ValueError, match=key):
        Recipe(about="", update={key: 2})


def test_combined_recipes():
    found = find_recipe("lr-1e-3+backbone-frozen-2")
    assert found.update == {
        **{"optimizer.lr": 1e-3, "PResNet.freeze_at": 2, "PResNet.freeze_norm": True},
        "balanced_paste": 0,  # that of the reference
    }
    assert find_recipe("paste-balanced+mirrored").update == {
        **{"balanced_paste": 0.5, "augmentation": None}
    }
    assert found.needs_weights
    assert found.about.startswith("learning rate 1e-3; stem,")
    with pytest.raises(ValueError, match=r"lr-1e-3\+lr-1e-4: optimizer\.lr is set twice"):
        find_recipe("lr-1e-3+lr-1e-4")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_valid(name):
    values = RECIPES[name].resolved(epochs=10, steps=500)
    overrides = parse_overrides(assignments(values))
    cfg = YAMLConfig(find_model("S")[0], **overrides)
    for key, value in values.items():
        found = cfg.yaml_cfg
        for part in key.split("."):
            found = found[part]
        expected = {**found, **value} if isinstance(value, dict) else value
        assert found == expected


def test_slow_backbone_has_all_its_convolutions():
    update = parse_overrides(assignments(RECIPES["backbone-lr-1e-4"].update))
    model = YAMLConfig(find_model("S")[0], PResNet={"pretrained": False}).model
    slow = group_parameters(model, update["optimizer"]["params"])[0]
    convolutions = [p for name, p in model.named_parameters() if "backbone" in name and p.dim() > 1]
    assert slow["lr"] == 1e-4
    assert {id(p) for p in slow["params"]} == {id(p) for p in convolutions}

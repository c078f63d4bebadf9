"""Groups of parameters, by hand and as published for every configuration."""

import time

import pytest
import torch
from torch import nn

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.optim.factories import adamw
from rtdetrv2_pytorch.src.optim.param_groups import group_parameters
from tests.conftest import CONFIGS
from tests.goldens import load_models

MODELS = load_models()


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.head = nn.Linear(4, 2)


def named(model, groups):
    """Return the names of the parameters of every group."""
    names = {p: name for name, p in model.named_parameters()}
    return [[names[p] for p in group["params"]] for group in groups]


def test_groups_in_rule_order_then_remaining_parameters():
    model = Toy()
    rules = [
        {"params": r"^backbone\.0", "lr": 1e-5},
        {"params": r"^backbone\.1", "lr": 1e-5, "weight_decay": 0.0},
    ]
    groups = group_parameters(model, rules)
    assert named(model, groups) == [
        ["backbone.0.weight", "backbone.0.bias"],
        ["backbone.1.weight", "backbone.1.bias"],
        ["head.weight", "head.bias"],
    ]
    options = [{k: v for k, v in g.items() if k != "params"} for g in groups]
    assert options == [{"lr": 1e-5}, {"lr": 1e-5, "weight_decay": 0.0}, {}]
    assert rules[0] == {"params": r"^backbone\.0", "lr": 1e-5}  # the rules are not modified


def test_patterns_match_anywhere_in_name():
    model = Toy()
    groups = group_parameters(model, [{"params": "bias"}])
    assert named(model, groups)[0] == ["backbone.0.bias", "backbone.1.bias", "head.bias"]


@pytest.mark.parametrize("rules", [None, []])
def test_one_group_without_rules(rules):
    model = Toy()
    (group,) = group_parameters(model, rules)
    assert named(model, [group]) == [[n for n, p in model.named_parameters() if p.requires_grad]]


def test_no_group_for_empty_remainder():
    model = Toy()
    assert len(group_parameters(model, [{"params": "."}])) == 1


def test_parameter_matched_by_two_rules_is_rejected():
    rules = [{"params": "backbone"}, {"params": "bias$", "weight_decay": 0.0}]
    with pytest.raises(
        ValueError,
        match=r"^parameter backbone.0.bias is matched by 'backbone' and by 'bias\$'; "
        "make the patterns exclude each other$",
    ):
        group_parameters(Toy(), rules)


def test_rule_without_match_is_rejected():
    with pytest.raises(ValueError, match="backbnoe"):
        group_parameters(Toy(), [{"params": "backbnoe", "lr": 1e-5}])


@pytest.mark.parametrize("name", MODELS)
def test_groups_of_published_configurations(name):
    cfg = YAMLConfig(
        CONFIGS / f"{name}.yml", PResNet={"pretrained": False}, HGNetv2={"pretrained": False}
    )
    with torch.device("meta"):
        model = cfg.model
    settings = {k: v for k, v in cfg.yaml_cfg["optimizer"].items() if k not in ("type", "params")}
    rules = cfg.yaml_cfg["optimizer"]["params"]
    optimizer = adamw(group_parameters(model, rules), **settings, fused=False)
    found = [
        {
            "pattern": pattern,
            "n_tensors": len(group["params"]),
            "n_elements": sum(p.numel() for p in group["params"]),
            **{key: group[key] for key in ("lr", "weight_decay", "eps")},
            "betas": list(group["betas"]),
        }
        for pattern, group in zip(
            [*(rule["params"] for rule in rules), "<all remaining>"],
            optimizer.param_groups,
            strict=True,
        )
    ]
    expected = MODELS[name]["training"]["optimizer"]["param_groups"]
    assert found == expected


def test_pattern_that_backtracks_exponentially_is_rejected():
    model = nn.Module()
    model.register_parameter("a" * 60, nn.Parameter(torch.zeros(1)))
    with pytest.raises(ValueError, match=r"takes more than 0.5 s on the names .* 'aaaa"):
        group_parameters(model, [{"params": r"(a|aa)+!$"}])


def test_limit_of_time_is_for_all_names_together():
    model = nn.Module()
    for index in range(200):  # each takes a few hundredths of a second
        model.register_parameter("a" * 22 + str(index), nn.Parameter(torch.zeros(1)))
    start = time.process_time()
    with pytest.raises(ValueError, match="takes more than 0.5 s"):
        group_parameters(model, [{"params": r"(a|aa)+!$"}])
    assert time.process_time() - start < 2

"""Names, order, shapes and dtypes of all weights, as in the published files."""

import math
import re
from functools import cache

import pytest
import torch

from rtdetrv2_pytorch.src.core import YAMLConfig
from tests.conftest import CONFIGS
from tests.goldens import GOLDEN, load_golden, load_models, state_dict_summary

MODELS = load_models()
SUMMARIES = load_golden("state_dicts.json")
LISTED = "rtdetrv2_r18vd_120e_coco"  # the model whose entries are listed one by one
# Discrete sampling changes no weights: these configurations share the entry of another one.
SHARED = {
    "rtdetrv2_r18vd_dsp_3x_coco": "rtdetrv2_r18vd_120e_coco",
    "rtdetrv2_r34vd_dsp_1x_coco": "rtdetrv2_r34vd_120e_coco",
    "rtdetrv2_r50vd_dsp_1x_coco": "rtdetrv2_r50vd_6x_coco",
    "rtdetrv2_r50vd_m_dsp_3x_coco": "rtdetrv2_r50vd_m_7x_coco",
}


def golden_lines(name):
    return (GOLDEN / f"state_dict_keys_{name}.txt").read_text().splitlines()


def build(name, **overrides):
    cfg = YAMLConfig(
        CONFIGS / f"{name}.yml",
        **({"PResNet": {"pretrained": False}, "HGNetv2": {"pretrained": False}} | overrides),
    )
    return cfg.model


@cache
def weightless(name):
    """Build the network on the meta device."""
    with torch.device("meta"):
        return build(name)


@cache
def meta_lines(name):
    return tuple(described(weightless(name)))


def described(model):
    return [
        f"{key} {'x'.join(map(str, value.shape)) or 'scalar'} {str(value.dtype).split('.')[1]}"
        for key, value in model.state_dict().items()
    ]


def test_every_configuration_has_a_summary():
    assert set(SUMMARIES) == {SHARED.get(name, name) for name in MODELS}
    assert {path.stem for path in CONFIGS.glob("*.yml")} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_keys_shapes_and_dtypes_are_the_published_ones(name):
    found = state_dict_summary(meta_lines(name))
    assert list(found.items()) == list(SUMMARIES[SHARED.get(name, name)].items())


def test_keys_shapes_and_dtypes_one_by_one():
    assert list(meta_lines(LISTED)) == golden_lines(LISTED)
    assert list(state_dict_summary(golden_lines(LISTED)).items()) == list(SUMMARIES[LISTED].items())


@pytest.mark.parametrize("name", [LISTED, "rtdetrv2_hgnetv2_l_6x_coco"])
def test_keys_of_a_network_on_the_cpu(name):
    assert tuple(described(build(name))) == meta_lines(name)


@pytest.mark.parametrize("name", MODELS)
def test_numbers_of_parameters_and_frozen_parameters(name):
    model, facts = weightless(name), MODELS[name]
    parameters = dict(model.named_parameters())
    assert sum(p.numel() for p in parameters.values()) == facts["params_total"]
    trainable = sum(p.numel() for p in parameters.values() if p.requires_grad)
    assert trainable == facts["params_trainable"]
    assert sum(b.numel() for b in model.buffers()) == facts["buffer_elements"]
    frozen = {n.rpartition(".")[0] for n, p in parameters.items() if not p.requires_grad}
    assert frozen == set(facts["frozen_parameter_prefixes"])


BRANCH = re.compile(r"\.bottlenecks\.\d+\.(conv1|conv2)\.")


def saved_by_folding_norms(name):
    """Return the parameters that folding batch norms saves outside RepVGG blocks.

    A batch norm has weight and bias and becomes one bias of the convolution: one parameter less
    per channel. A frozen norm has only buffers: one parameter more per channel.
    """
    shapes = {key: shape for key, shape, _ in map(str.split, meta_lines(name))}
    saved = 0
    for key, shape in shapes.items():
        if key.endswith(".running_mean") and not BRANCH.search(key):
            counter = key.replace(".running_mean", ".num_batches_tracked")
            saved += int(shape) if counter in shapes else -int(shape)
    return saved


@pytest.mark.parametrize("name", MODELS)
def test_fused_network_has_no_branches_and_fewer_parameters(name):
    with torch.device("meta"):
        model = build(name)
    blocks = {BRANCH.split(key)[0] for key in model.state_dict() if BRANCH.search(key)}
    assert blocks
    model.deploy()
    keys = list(model.state_dict())
    assert not [key for key in keys if BRANCH.search(key) or "running_" in key]
    # Upstream counts one 3x3 convolution with bias per block.
    found = sum(p.numel() for p in model.parameters())
    assert found == MODELS[name]["params_deploy_effective"] - saved_by_folding_norms(name)


def test_effective_parameters_count_each_block_as_one_convolution():
    for name, facts in MODELS.items():
        removed = 0
        for key, shape, _ in map(str.split, meta_lines(name)):
            sides = [int(s) for s in shape.split("x")] if shape != "scalar" else []
            match = BRANCH.search(key)
            if match and match[1] == "conv2" and key.endswith("conv.weight"):
                removed += math.prod(sides) + 3 * sides[0]  # four norm vectors -> one bias
        assert facts["params_deploy_effective"] == facts["params_total"] - removed, name

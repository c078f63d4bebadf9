"""Names, order, shapes and types of all weights match the published files."""

import json
import math
import re
from functools import cache

import pytest
import torch

from rtdetrv2_pytorch.src.core import YAMLConfig
from tests.conftest import CONFIGS, ROOT

GOLDEN = ROOT / "tests" / "golden"
MODELS = json.loads((GOLDEN / "models.json").read_text())
# Discrete sampling has the same weights: those recipes share one file.
SHARED = {
    "rtdetrv2_r18vd_dsp_3x_coco": "rtdetrv2_r18vd_120e_coco",
    "rtdetrv2_r34vd_dsp_1x_coco": "rtdetrv2_r34vd_120e_coco",
    "rtdetrv2_r50vd_dsp_1x_coco": "rtdetrv2_r50vd_6x_coco",
    "rtdetrv2_r50vd_m_dsp_3x_coco": "rtdetrv2_r50vd_m_7x_coco",
}


def golden_lines(name):
    file = GOLDEN / f"state_dict_keys_{SHARED.get(name, name)}.txt"
    return file.read_text().splitlines()


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


def described(model):
    return [
        f"{key} {'x'.join(map(str, value.shape)) or 'scalar'} {str(value.dtype).split('.')[1]}"
        for key, value in model.state_dict().items()
    ]


def test_each_configuration_has_a_golden_file():
    files = {path.stem.removeprefix("state_dict_keys_") for path in GOLDEN.glob("state_dict*.txt")}
    assert files == {SHARED.get(name, name) for name in MODELS}
    assert {path.stem for path in CONFIGS.glob("*.yml")} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_keys_order_shapes_and_types_match_published(name):
    assert described(weightless(name)) == golden_lines(name)


@pytest.mark.parametrize("name", ["rtdetrv2_r18vd_120e_coco", "rtdetrv2_hgnetv2_l_6x_coco"])
def test_network_on_cpu_has_the_same_keys(name):
    assert described(build(name)) == golden_lines(name)


@pytest.mark.parametrize("name", MODELS)
def test_counts_of_parameters_buffers_and_frozen_weights(name):
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
    """Parameters that folding batch norms saves beside the RepVGG blocks, read off the file.

    An ordinary norm has a weight and a bias and leaves one bias to its convolution: one saved for
    each channel. A frozen one has buffers only, and the bias it leaves is new: one more.
    """
    shapes = {key: shape for key, shape, _ in (line.split() for line in golden_lines(name))}
    saved = 0
    for key, shape in shapes.items():
        if key.endswith(".running_mean") and not BRANCH.search(key):
            counter = key.replace(".running_mean", ".num_batches_tracked")
            saved += int(shape) if counter in shapes else -int(shape)
    return saved


@pytest.mark.parametrize("name", MODELS)
def test_fused_network_has_no_branches_and_expected_parameters(name):
    with torch.device("meta"):
        model = build(name)
    blocks = {BRANCH.split(key)[0] for key in model.state_dict() if BRANCH.search(key)}
    assert blocks
    model.deploy()
    keys = list(model.state_dict())
    assert not [key for key in keys if BRANCH.search(key) or "running_" in key]
    # What upstream counts as one 3x3 convolution with bias per block is that here, too.
    found = sum(p.numel() for p in model.parameters())
    assert found == MODELS[name]["params_deploy_effective"] - saved_by_folding_norms(name)


def test_effective_parameters_count_blocks_as_one_convolution():
    # The published number itself, from the file: two branches with a norm each become one.
    for name, facts in MODELS.items():
        removed = 0
        for key, shape, _ in (line.split() for line in golden_lines(name)):
            sides = [int(s) for s in shape.split("x")] if shape != "scalar" else []
            match = BRANCH.search(key)
            if match and match[1] == "conv2" and key.endswith("conv.weight"):
                removed += math.prod(sides) + 3 * sides[0]  # four norm vectors become one bias
        assert facts["params_deploy_effective"] == facts["params_total"] - removed, name

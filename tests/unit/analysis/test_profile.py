"""Sizes of networks: against hand-computed layers and the reference of all published models."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rtdetrv2.analysis import profile as analysis
from rtdetrv2.analysis.profile import _LiveMemory, _measure, profile
from rtdetrv2.commands import profile as command
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError
from tests.conftest import CONFIGS
from tests.goldens import load_models
from tests.random_detectors import NAMES, SIZE_HW, save_random_detector

MODELS = load_models()


class Small(nn.Module):
    """A convolution, a list of two linear layers, and a ReLU."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1, bias=False)
        self.linears = nn.ModuleList([nn.Linear(8, 4), nn.Linear(4, 5)])

    def forward(self, x):
        x = self.conv(x).relu().mean((2, 3))
        for linear in self.linears:
            x = linear(x)
        return x


def test_layers_by_hand():
    """Batch 2, 16x20 pixels: the convolution has 8x10 positions of 3*9 products for 8 channels."""
    with torch.device("meta"):
        network, images = Small(), torch.empty(2, 3, 16, 20)
    layers, peak = _measure(network, images)
    found = {layer.name: layer for layer in layers}
    assert found["conv"].macs == 2 * 8 * 10 * 3 * 9 * 8
    assert found["linears.0"].macs == 2 * 8 * 4
    assert found["linears"].macs == 2 * 8 * 4 + 2 * 4 * 5
    assert found[""].macs == found["conv"].macs + found["linears"].macs
    assert found["conv"].parameters == 3 * 9 * 8
    assert found["linears.1"].parameters == 4 * 5 + 5
    assert found[""].parameters == 216 + 36 + 25
    assert found["conv"].output_shape == (2, 8, 8, 10)
    assert found["conv"].output_bytes == 4 * 2 * 8 * 80
    assert [layer.depth for layer in layers] == [0, 1, 1, 2, 2]
    # The output of the convolution, its ReLU, the images and the weights exist together.
    assert peak == 4 * (2 * 2 * 8 * 80 + 2 * 3 * 16 * 20 + 277)


def test_memory_that_is_released_does_not_count():
    with _LiveMemory() as memory:
        one = torch.empty(1000, device="meta")
        two = one + 1
        del one
        three = two.view(10, 100)  # no memory of its own
        del two
        _ = three * 2
    assert memory.peak_bytes == 8000


@pytest.mark.parametrize("name", sorted(MODELS))
def test_parameters_equal_those_of_the_reference(name, monkeypatch):
    """Of all published models; the layers, which take longer, have other tests."""
    layer = SimpleNamespace(macs=0)
    monkeypatch.setattr(analysis, "_measure", lambda network, images: ([layer], 0))
    monkeypatch.setattr(analysis, "_training_bytes", lambda network, images: 0)
    found = profile(config=CONFIGS / f"{name}.yml", size_hw=(64, 64))
    assert found.parameters == MODELS[name]["params_total"]
    assert found.trainable_parameters == MODELS[name]["params_trainable"]
    assert found.deployed_parameters < found.parameters


@pytest.mark.parametrize(("size", "published_gflops"), [("S", 60), ("L", 136)])
def test_flops_are_those_of_the_publication(size, published_gflops):
    """At 640 pixels; the published numbers include norms and elementwise operations."""
    found = profile(size)
    assert 0.95 * published_gflops < found.flops / 1e9 < published_gflops
    assert found.layers[0].parameters == found.deployed_parameters


def test_totals_grow_with_the_batch(tmp_path):
    one, four = profile("S", size_hw=(64, 96)), profile("S", size_hw=(64, 96), batch_size=4)
    assert four.macs == 4 * one.macs
    assert four.training_bytes > 3 * one.training_bytes
    assert four.inference_bytes - four.weights_bytes > 3 * (one.inference_bytes - one.weights_bytes)
    assert four.parameters == one.parameters


def test_command_shows_a_checkpoint_as_a_tree_and_json(tmp_path, capsys):
    checkpoint = save_random_detector(tmp_path / "best.pth")
    target = tmp_path / "profile.json"
    assert command.main([str(checkpoint), "--depth", "2", "--json", str(target)]) == 0
    out = capsys.readouterr().out
    values = json.loads(target.read_text())
    state = torch.load(checkpoint, weights_only=True)["model"]
    weights = sum(value.numel() for key, value in state.items() if "running" not in key)
    assert 0.99 * weights < values["parameters"] <= weights
    assert tuple(values["input_size_hw"]) == SIZE_HW
    assert values["layers"][0]["output_shape"][-1] == len(NAMES)
    assert values["flops"] == 2 * values["macs"]
    assert re.search(r"^  backbone +PResNet +[\d,]+ +[\d.]+ ", out, re.MULTILINE)
    assert re.search(r"^    res_layers\.2 +Stage ", out, re.MULTILINE)
    assert f"parameters: {values['parameters']:,}" in out
    assert str(target) in out


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"model": "Z"}, CheckpointError, "Z: neither a file nor a model; .* S, M, L, X"),
        ({"model": "best.onnx"}, CheckpointError, "best.onnx: no such file"),
        ({}, ConfigError, "no model: give a checkpoint, a name such as S"),
        ({"model": "S", "batch_size": 0}, ConfigError, "batch_size = 0"),
        ({"model": "S", "size_hw": (100, 100)}, ConfigError, "eval_spatial_size"),
    ],
)
def test_errors_name_value_and_remedy(arguments, kind, message):
    with pytest.raises(kind, match=message):
        profile(**arguments)


def test_exports_have_no_layers(tmp_path):
    (tmp_path / "best.onnx").touch()
    with pytest.raises(
        ConfigError, match=r"best.onnx: exports have no PyTorch layers; give the ch"
    ):
        profile(tmp_path / "best.onnx")

"""Speed of a model in all runtimes."""

import json
from types import SimpleNamespace

import pytest
import torch

from rtdetrv2.analysis import speed, timing
from rtdetrv2.analysis.speed import RuntimeSpeed, benchmark
from rtdetrv2.analysis.timing import every_turn, machine
from rtdetrv2.commands import benchmark as command
from rtdetrv2_pytorch.src.deploy.detector import load_detector
from rtdetrv2_pytorch.src.deploy.onnx import write_onnx
from rtdetrv2_pytorch.src.misc.errors import CheckpointError, ConfigError
from tests.random_detectors import SIZE_HW, save_random_detector


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    checkpoint = save_random_detector(folder / "best.pth")
    write_onnx(*load_detector(checkpoint), folder / "best.onnx")
    return SimpleNamespace(folder=folder, checkpoint=checkpoint, onnx=folder / "best.onnx")


def test_median_quartiles_and_throughput_by_hand():
    found = RuntimeSpeed(runtime="x", batch_size=4, seconds=(0.1, 0.5, 0.2, 0.3, 0.4))
    assert found.median_ms == pytest.approx(300)
    assert found.quartiles_ms == (pytest.approx(200), pytest.approx(400))
    assert found.images_per_s == pytest.approx(4 / 0.3)
    assert RuntimeSpeed(runtime="x", batch_size=1, seconds=(0.1,)).quartiles_ms == (100, 100)


def test_runtimes_take_turns_after_the_warm_up():
    calls, progress = [], []
    ways = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = every_turn(
        ways,
        torch.device("cpu"),
        rounds=2,
        warmup=1,
        on_call=lambda *counts: progress.append(counts),
    )
    assert calls == ["a", "b"] * 3
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 2, "b": 2}
    assert progress == [(n, 6) for n in range(6)]


def test_command_measures_a_checkpoint_in_all_runtimes(files, tmp_path, capsys):
    target = tmp_path / "new" / "speed.json"
    options = ["--rounds", "2", "--batch-sizes", "1", "3", "--json", str(target)]
    assert command.main([str(files.folder), *options]) == 0
    values = json.loads(target.read_text())
    found = {(each["runtime"], each["batch_size"]): each for each in values["speeds"]}
    for name in ("PyTorch", "ONNX Runtime", "OpenVINO"):
        for batch in (1, 3):
            assert len(found[name, batch]["seconds"]) == 2
            assert found[name, batch]["images_per_s"] == pytest.approx(
                1000 * batch / found[name, batch]["median_ms"]
            )
    assert tuple(values["input_size_hw"]) == SIZE_HW
    assert values["machine"]["torch"] == torch.__version__
    assert values["not_measured"]["TensorRT"] == "needs an engine of this GPU; give an .engine file"
    out = capsys.readouterr().out
    assert "TensorRT: not measured, needs an engine" in out
    assert str(target) in out


def test_missing_packages_and_unsupported_batches_are_listed(files, monkeypatch):
    find = speed.importlib.util.find_spec
    monkeypatch.setattr(
        speed.importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name)
    )
    opened = speed.open_runtime

    def with_limit(*arguments, **options):
        runtime = opened(*arguments, **options)
        runtime.max_batch_size = 2
        return runtime

    monkeypatch.setattr(speed, "open_runtime", with_limit)
    found = benchmark(files.onnx, batch_sizes=[2, 3], rounds=1, warmup=0)
    assert [(each.runtime, each.batch_size) for each in found.speeds] == [("ONNX Runtime", 2)]
    assert found.not_measured == {
        "PyTorch": "needs the checkpoint (.pth)",
        "OpenVINO": "the package openvino is not installed",
        "OpenVINO bfloat16": "the package openvino is not installed",
        "TensorRT": "needs an engine of this GPU; give an .engine file",
        "ONNX Runtime, batch 3": "at most 2 images per batch",
    }


def test_errors_name_value_and_remedy(files):
    with pytest.raises(CheckpointError, match="nothing.pth: no such file; give a checkpoint"):
        benchmark(files.folder / "nothing.pth")
    with pytest.raises(ConfigError, match=r"rounds = 0, batch_sizes = \[1, 4\]: must be 1 or"):
        benchmark(files.onnx, rounds=0)
    engine = files.folder / "best.engine"
    engine.touch()
    with pytest.raises(
        ConfigError, match=r"best.engine: no runtime can open .*TensorRT needs a GPU"
    ):
        benchmark(engine, device="cpu")


@pytest.mark.parametrize(("is_fast", "expected"), [(True, "(AVX512, bfloat16)"), (False, "(AVX2)")])
def test_processors_of_different_speed_are_told_apart(is_fast, expected, monkeypatch):
    capability = "AVX512" if is_fast else "AVX2"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(timing, "has_bfloat16", lambda device: is_fast)
    assert machine(torch.device("cpu"))["device"].endswith(f" {expected}")

"""Latency and throughput of one detector in every runtime."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from torch._dynamo.exc import TorchDynamoException

from rtdetrv2.analysis.timing import OtherProcesses, every_turn, ratio, spread, summary
from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.deploy.detector import Detector, load_detector
from rtdetrv2_pytorch.src.deploy.int8.calibration import quantize
from rtdetrv2_pytorch.src.deploy.int8.graph import MixedGraph
from rtdetrv2_pytorch.src.deploy.int8.trials import save_model
from rtdetrv2_pytorch.src.deploy.model_card import ModelCard
from rtdetrv2_pytorch.src.deploy.onnx import convert_onnx, write_onnx
from rtdetrv2_pytorch.src.deploy.runtimes import (
    OnnxRuntime,
    OpenVINORuntime,
    PyTorchRuntime,
    Runtime,
    openvino_core,
)
from rtdetrv2_pytorch.src.deploy.tensorrt import TensorRTRuntime, build_engine, load_tensorrt
from rtdetrv2_pytorch.src.misc.errors import RTDETRError
from rtdetrv2_pytorch.src.misc.text import first_line
from tests.tiny import CONFIGS

MODELS = ("rtdetrv2_r18vd_120e_coco", "rtdetrv2_hgnetv2_l_6x_coco")
BATCHES = (1, 4)
EAGER = "PyTorch eager"
_FILES = ("fp32", "fp16", "int8", "whole", "fp32 gather", "fp16 gather")  # without GridSample
_BASELINES = {"OpenVINO INT8": "OpenVINO", "OpenVINO INT8 bf16": "OpenVINO bf16"}


def random_checkpoint(path: Path, model: str, size: int) -> Path:
    """Write a checkpoint with random weights, which do not affect the times.

    Args:
        path: file to write.
        model: name of a file in `configs/rtdetrv2`.
        size: input size in pixels.
    """
    torch.manual_seed(0)
    cfg = YAMLConfig(
        CONFIGS / "rtdetrv2" / f"{model}.yml",
        PResNet={"pretrained": False},
        HGNetv2={"pretrained": False},
        eval_spatial_size=[size, size],
    )
    content = {
        "model": cfg.model.state_dict(),
        "config": cfg.yaml_cfg,
        "eval_spatial_size": [size, size],
    }
    torch.save(content, path)
    return path


def runtimes(
    device: torch.device,
    models: Sequence[str] = MODELS,
    batches: Sequence[int] = BATCHES,
    size: int = 640,
    rounds: int = 7,
) -> dict[str, Any]:
    """Measure detectors as serving calls them, with the same number of threads.

    Args:
        device: device to run on.
        models: names of files in `configs/rtdetrv2`.
        batches: batch sizes.
        size: input size in pixels.
        rounds: number of rounds; each calls every runtime once.
    """
    result: dict[str, Any] = {
        "what": f"detector, {size} px, {torch.get_num_threads()} threads, random weights",
        "seconds": {},
        "rates": {"images/s": {}},
        "ratios": {},
        "spread": {},
        "facts": {},
        "not measured": {},
    }
    others = OtherProcesses()
    for model in models:
        with TemporaryDirectory() as folder:
            checkpoint = random_checkpoint(Path(folder, "model.pth"), model, size)
            detector, card = load_detector(checkpoint)
            # Export before the detector is compiled or moved to a GPU.
            files, facts = _export(detector, card, Path(folder))
            result["facts"][f"{_short(model)}, export"] = facts
            for batch in batches:
                ways = _runtimes(detector, card, files, device, max(batches))
                title = f"{_short(model)}, batch {batch}"
                _measure(result, title, ways, card, device, batch, rounds, others)
    result["facts"]["other programs"] = {"cores": others.cores()}
    return result


def _short(model: str) -> str:
    return model.removeprefix("rtdetrv2_").removesuffix("_coco")


def _export(
    detector: Detector, card: ModelCard, folder: Path
) -> tuple[dict[str, Path], dict[str, float]]:
    """Export the files for the runtimes; return facts about the graphs."""
    files = {name: folder / f"{name}.onnx" for name in _FILES}
    begin = time.perf_counter()
    write_onnx(detector, card, files["fp32"])
    facts = {"seconds": time.perf_counter() - begin}
    write_onnx(detector, card, files["fp16"], precision="fp16")
    for precision in ("fp32", "fp16"):
        converted = files[f"{precision} gather"]
        convert_onnx(files[precision], converted, precision=precision, grid_sample=False)
    _quantize(files["fp32"], card, files["int8"])
    write_onnx(detector, card, files["whole"], slim=False)
    for name, path in files.items():
        facts[f"nodes {name}"] = len(onnx.load(path).graph.node)
    # Not of the unslimmed file: torch stores equal weights once.
    facts |= {f"MB {name}": files[name].stat().st_size / 1e6 for name in ("fp32", "fp16", "int8")}
    return files, facts


def _quantize(source: Path, card: ModelCard, path: Path) -> None:
    """Write an INT8 file with the default layers; the ranges do not affect the times."""
    openvino_core()  # before NNCF creates its own one
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*card.input_size_hw, 3), np.uint8) for _ in range(2)]
    graph = MixedGraph(
        *quantize(onnx.load(source), images, card.input_size_hw, lambda *progress: None)
    )
    save_model(graph.with_float(()), replace(card, precision="int8"), path)


def _runtimes(
    detector: Detector,
    card: ModelCard,
    files: dict[str, Path],
    device: torch.device,
    largest_batch: int,
) -> dict[str, Callable[[], Runtime]]:
    """Return functions that open the runtimes by name."""
    threads = torch.get_num_threads()

    def compiled() -> Runtime:
        torch.compiler.reset()  # compile for each batch size
        return PyTorchRuntime(torch.compile(detector, dynamic=False), card, device)  # type: ignore[arg-type]

    def tensorrt(precision: str) -> Runtime:
        load_tensorrt()
        engine = files[precision].with_suffix(".engine")
        if not engine.is_file():
            sizes = (1, largest_batch, largest_batch)
            cache = engine.with_name("timing_cache")
            build_engine(files[precision], engine, batch_sizes=sizes, timing_cache=cache)
        return TensorRTRuntime(engine, device)

    ways: dict[str, Callable[[], Runtime]] = {
        EAGER: lambda: PyTorchRuntime(detector, card, device),
        "PyTorch compiled": compiled,
        "ONNX Runtime": lambda: OnnxRuntime(files["fp32"], device, threads),
    }
    ways["ONNX Runtime gather"] = lambda: OnnxRuntime(files["fp32 gather"], device, threads)
    if device.type == "cpu":
        ways["OpenVINO"] = lambda: OpenVINORuntime(files["fp32"], device, threads)
        half = partial(OpenVINORuntime, device=device, num_threads=threads, bfloat16=True)
        ways["OpenVINO bf16"] = partial(half, files["fp32"])
        ways["OpenVINO INT8"] = lambda: OpenVINORuntime(files["int8"], device, threads)
        ways["OpenVINO INT8 bf16"] = partial(half, files["int8"])
        ways["ONNX Runtime INT8"] = lambda: OnnxRuntime(files["int8"], device, threads)
        ways["OpenVINO gather"] = lambda: OpenVINORuntime(files["fp32 gather"], device, threads)
    else:
        ways["ONNX Runtime fp16"] = lambda: OnnxRuntime(files["fp16"], device, threads)
        for kind in ("fp32", "fp16", "fp32 gather", "fp16 gather"):
            ways[f"TensorRT {kind}"] = partial(tensorrt, kind)
    return ways


def _measure(
    result: dict[str, Any],
    title: str,
    ways: dict[str, Callable[[], Runtime]],
    card: ModelCard,
    device: torch.device,
    batch: int,
    rounds: int,
    others: OtherProcesses,
) -> None:
    """Open all runtimes and time them alternately; record the reason for each that does not run."""
    ready: dict[str, Callable[[], Any]] = {}
    scores: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 3, *card.input_size_hw)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    sizes_wh = torch.tensor([[640, 480]]).repeat(batch, 1)
    for name, open_one in ways.items():
        row = f"{title}, {name}"
        begin = time.perf_counter()
        try:
            runtime = open_one()
            pixels = images.to(runtime.device)
            scores[name] = runtime(pixels, sizes_wh)[2].cpu()
        except (RTDETRError, TorchDynamoException) as error:
            result["not measured"][row] = first_line(error)
            continue
        opened = time.perf_counter() - begin
        result["facts"][row] = {
            "seconds to the first answer": opened,
            "difference of scores": (scores[name] - scores[EAGER]).abs().max().item(),
        }
        ready[row] = partial(runtime, pixels, sizes_wh)
    with others:
        samples = every_turn(ready, device, rounds=rounds, pause_s=0.05)
    result["seconds"] |= {row: summary(seconds) for row, seconds in samples.items()}
    eager = f"{title}, {EAGER}"
    pairs = [(f"{row} vs eager", eager, row) for row in samples if row != eager]
    pairs += [
        (f"{title}, {name} vs {base}", f"{title}, {base}", f"{title}, {name}")
        for name, base in _BASELINES.items()
    ]
    for name, base, row in pairs:
        if base in samples and row in samples:
            result["ratios"][name] = ratio(result["seconds"], base, row)
            result["spread"][name] = spread(samples[base], samples[row])
    for row, seconds in samples.items():
        result["rates"]["images/s"][row] = batch / statistics.median(seconds)

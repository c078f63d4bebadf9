"""Latency and throughput of a model in all runtimes of this machine."""

import importlib
import importlib.util
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtdetrv2_pytorch.src.deploy.runtimes import Runtime, open_runtime
from rtdetrv2_pytorch.src.misc.errors import ConfigError, RTDETRError
from rtdetrv2_pytorch.src.misc.text import counted, first_line

from .opening import model_file, open_model
from .timing import OtherProcesses, every_turn, machine

OnProgress = Callable[[str, int, int], None]  # activity, calls done, calls in total
_Open = Callable[[], Runtime]

_PAUSE_S = 0.05  # before each call: threads of some runtimes spin after their work
_PACKAGES = {
    "ONNX Runtime": "onnxruntime",
    "OpenVINO": "openvino",
    "OpenVINO bfloat16": "openvino",
}
_IMAGE_WH = (1280, 960)  # of the images whose boxes are computed


@dataclass(frozen=True, kw_only=True)
class RuntimeSpeed:
    """Calls of one runtime with one batch size, from uint8 pixels to boxes."""

    runtime: str  # with the precision
    batch_size: int
    seconds: tuple[float, ...]  # of each timed call, in order

    @property
    def median_ms(self) -> float:
        """Median latency of a batch."""
        return 1000 * statistics.median(self.seconds)

    @property
    def quartiles_ms(self) -> tuple[float, float]:
        """Lower and upper quartile of the latency."""
        if len(self.seconds) < 2:
            return self.median_ms, self.median_ms
        lower, _, upper = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return 1000 * lower, 1000 * upper

    @property
    def images_per_s(self) -> float:
        """Throughput at the median latency."""
        return 1000 * self.batch_size / self.median_ms

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        lower, upper = self.quartiles_ms
        return {
            **asdict(self),
            "median_ms": self.median_ms,
            "lower_quartile_ms": lower,
            "upper_quartile_ms": upper,
            "images_per_s": self.images_per_s,
        }


@dataclass(frozen=True, kw_only=True)
class SpeedReport:
    """Result of `benchmark`.

    Attributes:
        model: the file.
        input_size_hw: height and width of the images in pixels.
        machine: processor or GPU, cores, threads, versions.
        speeds: by batch size and runtime.
        not_measured: reason by runtime, or by runtime and batch size.
        other_processes_cores: mean number of cores that other processes used meanwhile.
    """

    model: str
    input_size_hw: tuple[int, int]
    machine: Mapping[str, str]
    speeds: Sequence[RuntimeSpeed]
    not_measured: Mapping[str, str]
    other_processes_cores: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "speeds": [speed.as_dict() for speed in self.speeds]}


def benchmark(
    model: str | Path,
    *,
    batch_sizes: Sequence[int] = (1, 4),
    device: str | None = None,
    rounds: int = 10,
    warmup: int = 2,
    compiled: bool = False,
    config: Path | None = None,
    class_names: Sequence[str] | None = None,
    on_progress: OnProgress | None = None,
) -> SpeedReport:
    """Measure a model in every runtime that can open it.

    The runtimes are measured in alternation, so that other processes affect all of them equally,
    and use the same number of threads. A checkpoint is also exported to a temporary ONNX file.

    Args:
        model: checkpoint, ONNX file, TensorRT engine, or the output folder of a training.
        batch_sizes: images per call.
        device: cuda, cuda:1 or cpu; default: a GPU if available.
        rounds: timed calls per runtime and batch size.
        warmup: calls before them.
        compiled: whether to measure `torch.compile`, which compiles for minutes.
        config: YAML file, for a checkpoint that does not contain one.
        class_names: in label order, for a checkpoint that does not contain them.
        on_progress: called with the activity, and the number of calls done and of all calls.

    Raises:
        RTDETRError: if the file or an option is invalid, or no runtime can run the model.
    """
    if rounds < 1 or not batch_sizes or min(batch_sizes) < 1:
        raise ConfigError(
            f"rounds = {rounds}, batch_sizes = {list(batch_sizes)}: must be 1 or higher"
        )
    report = on_progress or (lambda activity, done, total: None)
    file = model_file(model)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    source = {"config": config, "class_names": class_names}
    with tempfile.TemporaryDirectory() as folder:
        if file.suffix.lower() in (".pth", ".pt"):
            ways, missing = _of_checkpoint(file, chosen, Path(folder), source, compiled, report)
        else:
            ways, missing = _of_export(file, chosen)
        runtimes: dict[str, Runtime] = {}
        for name, way in ways.items():
            report(f"opening {name}", 0, 0)
            try:
                runtimes[name] = way()
            except (RTDETRError, ImportError) as error:
                missing[name] = first_line(error)
        if not runtimes:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
            raise ConfigError(f"{file}: no runtime can open the file ({reasons})")
        others, speeds = OtherProcesses(), []
        for number, batch in enumerate(batch_sizes, start=1):
            calls = _calls(runtimes, batch, missing)
            with others:
                samples = every_turn(
                    calls,
                    torch.device(chosen),
                    rounds=rounds,
                    warmup=warmup,
                    pause_s=_PAUSE_S,
                    on_call=partial(report, f"batch {batch}, {number} of {len(batch_sizes)}"),
                )
            speeds += [
                RuntimeSpeed(runtime=name, batch_size=batch, seconds=tuple(seconds))
                for name, seconds in samples.items()
            ]
    return SpeedReport(
        model=str(file),
        input_size_hw=next(iter(runtimes.values())).card.input_size_hw,
        machine=_machine(torch.device(chosen)),
        speeds=speeds,
        not_measured=missing,
        other_processes_cores=others.cores(),
    )


def _machine(device: torch.device) -> dict[str, str]:
    facts = machine(device)
    del facts["commit"]  # of the current folder
    packages = [name for name in sorted(set(_PACKAGES.values())) if importlib.util.find_spec(name)]
    return facts | {name: str(importlib.import_module(name).__version__) for name in packages}


def _of_checkpoint(
    file: Path,
    device: str,
    folder: Path,
    source: Mapping[str, Any],
    compiled: bool,
    report: OnProgress,
) -> tuple[dict[str, _Open], dict[str, str]]:
    """Return the ways to run a checkpoint, and reasons for those that are missing."""
    open_torch = partial(open_model, file, device=device, **source)
    ways: dict[str, _Open] = {"PyTorch": open_torch}
    if compiled:
        ways["PyTorch compiled"] = partial(open_torch, compiled=True)
    if device.startswith("cuda"):
        ways["PyTorch CUDA graphs"] = partial(open_torch, cuda_graphs=True)
    report("exporting to ONNX", 0, 0)
    try:
        from rtdetrv2_pytorch.src.deploy.detector import load_detector
        from rtdetrv2_pytorch.src.deploy.onnx import write_onnx

        onnx_file = folder / f"{file.stem}.onnx"
        write_onnx(*load_detector(file, **source), onnx_file)
    except ImportError as error:
        reason = f"not exported ({first_line(error)}); install rtdetrv2[onnx]"
        return ways, {"ONNX Runtime": reason, "OpenVINO": reason}
    exported, missing = _of_export(onnx_file, device)
    del missing["PyTorch"]
    return {**ways, **exported}, missing


def _of_export(file: Path, device: str) -> tuple[dict[str, _Open], dict[str, str]]:
    """Return the ways to run an export, and reasons for those that are missing."""
    if file.suffix.lower() != ".onnx":
        reason = "needs the checkpoint (.pth) or an ONNX file"
        missing = dict.fromkeys(("PyTorch", *_PACKAGES), reason)
        return {"TensorRT": partial(open_runtime, file, device=device)}, missing
    missing = {
        name: f"the package {package} is not installed"
        for name, package in _PACKAGES.items()
        if importlib.util.find_spec(package) is None
    }
    threads = torch.get_num_threads()
    common: dict[str, Any] = {"device": device, "num_threads": threads}
    ways: dict[str, _Open] = {
        "ONNX Runtime": partial(open_runtime, file, "onnxruntime", **common),
        "OpenVINO": partial(open_runtime, file, "openvino", **common),
        "OpenVINO bfloat16": partial(open_runtime, file, "openvino", bfloat16=True, **common),
    }
    return {name: way for name, way in ways.items() if name not in missing}, {
        **missing,
        "PyTorch": "needs the checkpoint (.pth)",
        "TensorRT": "needs an engine of this GPU; give an .engine file",
    }


def _calls(
    runtimes: Mapping[str, Runtime], batch: int, missing: dict[str, str]
) -> dict[str, Callable[[], Any]]:
    """Return a call per runtime that works with this batch size; add the reasons of the others."""
    calls: dict[str, Callable[[], Any]] = {}
    for name, runtime in runtimes.items():
        if batch > (runtime.max_batch_size or batch):
            missing[f"{name}, batch {batch}"] = (
                f"at most {counted(runtime.max_batch_size or batch, 'image')} per batch"
            )
            continue
        images, sizes_wh = _inputs(runtime, batch)
        try:
            runtime(images, sizes_wh)
        except (RTDETRError, RuntimeError) as error:
            missing[f"{name}, batch {batch}"] = first_line(error)
            continue
        calls[name] = partial(runtime, images, sizes_wh)
    return calls


def _inputs(runtime: Runtime, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 3, *runtime.card.input_size_hw)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return images.to(runtime.device), torch.tensor([_IMAGE_WH]).repeat(batch, 1)

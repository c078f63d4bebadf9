"""Build and run TensorRT engines through the Python API of TensorRT 10 and 11.

Networks are strongly typed: the ONNX file (`graph/half.py`) sets the type of every layer.
TensorRT 11 removed the flags by which TensorRT 10 chose precisions itself.
"""

import json
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..misc.errors import CheckpointError, ConfigError, ExportError, extra
from .detector import RawDetections
from .model_card import ModelCard
from .onnx_file import INPUTS, OUTPUTS, read_card

logger = logging.getLogger(__name__)

_SUPPORTED = (10, 11)  # major versions


@dataclass(frozen=True)
class KnownFault:
    """An operator that some versions of TensorRT are reported to compute wrongly."""

    operator: str
    first: tuple[int, ...]  # version
    last: tuple[int, ...]  # latest version with a report
    reports: str


KNOWN_FAULTS = (
    KnownFault(
        *("GridSample", (10, 13), (11, 1)),
        reports="NVIDIA/TensorRT issues 4646 (10.13.3), 4813 (10.14.1, 11.1), 4853; "
        "pytorch/TensorRT issue 4074 (10.14.1); lightly-train pull request 917 (10.13.3)",
    ),
)
_WORKSPACE_BYTES = 4 << 30  # per layer


def card_file(engine: Path) -> Path:
    """Return the path of an engine's model card; an engine itself cannot contain text."""
    return engine.with_name(f"{engine.name}.json")


def load_tensorrt() -> Any:
    """Import TensorRT.

    Raises:
        ConfigError: if it is not installed or its version is not supported.
    """
    try:
        import tensorrt
    except ImportError as error:
        raise ConfigError(
            f"TensorRT is not available ({error}); on a machine with an NVIDIA GPU, run: "
            "pip install 'rtdetrv2[tensorrt]'; or choose the runtime onnxruntime"
        ) from error
    major = int(tensorrt.__version__.split(".")[0])
    if major not in _SUPPORTED:
        raise ConfigError(
            f"TensorRT {tensorrt.__version__} is not supported; install version "
            f"{' or '.join(map(str, _SUPPORTED))}"
        )
    return tensorrt


def _make_logger(trt: Any, messages: list[str]) -> Any:
    """Return a TensorRT logger that collects error messages."""

    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                messages.append(message)
            elif severity == trt.ILogger.Severity.WARNING:
                logger.debug("TensorRT: %s", message)

    return Collector()


def build_engine(
    onnx_file: Path,
    engine_file: Path,
    *,
    batch_sizes: tuple[int, int, int] = (1, 1, 16),
    timing_cache: Path | None = None,
) -> ModelCard:
    """Build an engine from an exported ONNX file.

    Args:
        onnx_file: float32 or mixed precision, which the engine adopts.
        engine_file: file to write; its model card is written next to it.
        batch_sizes: minimum, optimum and maximum batch size.
        timing_cache: file with measurements of earlier builds, updated here. None: no cache.

    Returns:
        The model card of the engine.

    Raises:
        ConfigError: if TensorRT is not available.
        ExportError: with the messages of TensorRT; no engine file remains.
    """
    minimum, optimum, maximum = batch_sizes
    if not 1 <= minimum <= optimum <= maximum:
        raise ExportError(
            f"batch_sizes = {batch_sizes}: must be minimum <= optimum <= maximum, from 1"
        )
    trt = load_tensorrt()
    card = read_card(onnx_file)
    for old in (engine_file, card_file(engine_file)):
        old.unlink(missing_ok=True)
    _warn_of_known_faults(onnx_file, trt.__version__)
    messages: list[str] = []
    builder = trt.Builder(_make_logger(trt, messages))
    network = builder.create_network(_network_flags(trt))
    onnx_parser = trt.OnnxParser(network, _make_logger(trt, messages))
    if not onnx_parser.parse(onnx_file.read_bytes()):
        errors = [str(onnx_parser.get_error(i)) for i in range(onnx_parser.num_errors)]
        raise _failure(onnx_file, "cannot parse the file", [*errors, *messages])
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # TF32 has only 10 bits of mantissa
    height, width = card.input_size_hw
    profile = builder.create_optimization_profile()
    for name, shape in zip(INPUTS, ((3, height, width), (2,)), strict=True):
        profile.set_shape(name, *((batch, *shape) for batch in batch_sizes))
    config.add_optimization_profile(profile)
    cache = _load_cache(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _failure(onnx_file, "cannot build an engine", messages)
    _save_cache(cache, timing_cache)
    engine_file.write_bytes(bytes(plan))
    metadata = card.to_metadata() | {
        "tensorrt": trt.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "batch_sizes": json.dumps(list(batch_sizes)),
    }
    card_file(engine_file).write_text(json.dumps(metadata, indent=1), encoding="utf-8")
    return card


def _warn_of_known_faults(onnx_file: Path, version: str) -> None:
    with extra("onnx"):
        import onnx
    operators = {node.op_type for node in onnx.load(onnx_file).graph.node}
    numbers = tuple(int(part) for part in version.split(".")[:2])
    for fault in KNOWN_FAULTS:
        if fault.operator in operators and fault.first <= numbers <= fault.last:
            logger.warning(
                "%s contains %s, which TensorRT %s is reported to compute wrongly, mostly at batch "
                "sizes above 1 (%s); export without it",
                *(onnx_file.name, fault.operator, version, fault.reports),
            )


def _network_flags(trt: Any) -> int:
    """Return the flag for strong typing, which TensorRT 11 may not need."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _failure(onnx_file: Path, what: str, messages: list[str]) -> ExportError:
    reasons = "; ".join(message.strip() for message in messages) or "no reason given"
    return ExportError(f"{onnx_file.name}: TensorRT {what}: {reasons}")


def _load_cache(config: Any, path: Path | None) -> Any:
    if path is None:
        return None
    content = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")  # the file is of another version or GPU
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _save_cache(cache: Any, path: Path | None) -> None:
    if cache is None or path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(cache.serialize()))
    except OSError as error:
        logger.warning("Could not write the timing cache %s: %s", path, error.strerror)


class TensorRTRuntime:
    """A TensorRT engine; one call at a time, because calls share its buffers.

    Raises:
        ConfigError: if TensorRT or the GPU is not available.
        CheckpointError: if the engine or its model card is not usable.
    """

    kind = "tensorrt"
    max_batch_size: int | None

    def __init__(self, path: Path, device: torch.device) -> None:
        if device.type != "cuda":
            raise ConfigError(f"device = {str(device)!r}: TensorRT needs a GPU; use cuda")
        trt = load_tensorrt()
        self.device = device
        self.card, self.max_batch_size, metadata = read_card_file(path)
        messages: list[str] = []
        with torch.cuda.device(device):
            runtime = trt.Runtime(_make_logger(trt, messages))
            self._engine = runtime.deserialize_cuda_engine(path.read_bytes())
            if self._engine is None:
                built = (
                    f"TensorRT {metadata.get('tensorrt', '?')} on {metadata.get('gpu') or 'a GPU'}"
                )
                raise CheckpointError(
                    f"{path}: TensorRT {trt.__version__} cannot load the engine "
                    f"({'; '.join(messages) or 'no reason given'}). It was built by {built}; an "
                    "engine needs the same version and GPU, so build it on this machine"
                )
            self._context = self._engine.create_execution_context()
        self._lock = threading.Lock()

    def __call__(self, images: Tensor, sizes_wh: Tensor) -> RawDetections:
        """See `runtimes.Runtime`."""
        values = (
            images.to(self.device).float().div_(255).contiguous(),
            sizes_wh.to(self.device, torch.int64).contiguous(),
        )
        with self._lock, torch.cuda.device(self.device):
            for name, value in zip(INPUTS, values, strict=True):
                if not self._context.set_input_shape(name, tuple(value.shape)):
                    raise ConfigError(
                        f"{name} has shape {list(value.shape)}: the engine supports batches of up "
                        f"to {self.max_batch_size}, and images of {self.card.input_size_hw} pixels"
                    )
                self._context.set_tensor_address(name, value.data_ptr())
            labels, boxes, scores = (self._output(name) for name in OUTPUTS)
            stream = torch.cuda.current_stream(self.device)
            if not self._context.execute_async_v3(stream.cuda_stream):
                raise ExportError("TensorRT failed to run the engine; build it again")
            stream.synchronize()
        return labels, boxes, scores

    def _output(self, name: str) -> Tensor:
        shape = tuple(self._context.get_tensor_shape(name))
        dtype = torch.int64 if name == "labels" else torch.float32
        result = torch.empty(shape, dtype=dtype, device=self.device)
        self._context.set_tensor_address(name, result.data_ptr())
        return result


def read_card_file(engine: Path) -> tuple[ModelCard, int, dict[str, str]]:
    """Return the model card of an engine, its maximum batch size, and all metadata."""
    path = card_file(engine)
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(fact, str) for fact in metadata.values()):
            raise TypeError("not a mapping of strings")
        card = ModelCard.from_metadata(metadata, source=str(path))
        return card, int(json.loads(metadata["batch_sizes"])[2]), metadata
    except OSError as error:
        raise CheckpointError(
            f"{path}: file is missing; it contains the classes and input size of {engine.name}: "
            "copy it beside the engine"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001 (any content)
        raise CheckpointError(f"{path}: file is damaged; build the engine again") from error

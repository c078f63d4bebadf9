"""PyTorch, ONNX Runtime, OpenVINO and TensorRT behind one protocol."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..interchange.folders import is_folder
from ..misc.devices import checked_device
from ..misc.errors import CheckpointError, ConfigError, ExportError, extra
from ..misc.text import first_line
from .cuda_graphs import GraphedDetector
from .detector import RawDetections, load_detector
from .model_card import ModelCard
from .onnx_file import INPUTS, OUTPUTS, read_card
from .tensorrt import TensorRTRuntime


class Runtime(Protocol):
    """A detector, loaded and ready to run.

    Attributes:
        kind: pytorch, onnxruntime, openvino or tensorrt.
        card: model card of the file.
        device: device of the input images.
        max_batch_size: maximum batch size; None: unlimited.
    """

    kind: str
    card: ModelCard
    device: torch.device
    max_batch_size: int | None

    def __call__(self, images: Tensor, sizes_wh: Tensor) -> RawDetections:
        """Detect.

        Args:
            images: [B, 3, H, W] uint8 RGB of the card's input size, on `device`.
            sizes_wh: [B, 2] (width, height) of the original images.

        Returns:
            labels [B, N] int64, boxes [B, N, 4] xyxy in pixels, scores [B, N] float32, best
            first, on `device`.
        """


class PyTorchRuntime:
    """A checkpoint, run by PyTorch in float32.

    Args:
        detector: see `Detector`.
        card: model card of the detector.
        device: device to run on.
        compiled: whether to use `torch.compile`; the first call with each batch size takes seconds
            to minutes.
        cuda_graphs: whether to use CUDA graphs, see `GraphedDetector`; on a GPU only.

    Raises:
        ConfigError: if CUDA graphs are requested for a CPU.
    """

    kind = "pytorch"
    max_batch_size: int | None = None

    def __init__(
        self,
        detector: nn.Module,
        card: ModelCard,
        device: torch.device,
        *,
        compiled: bool = False,
        cuda_graphs: bool = False,
    ) -> None:
        if cuda_graphs and device.type != "cuda":
            raise ConfigError(
                f"cuda_graphs with device = {str(device)!r}: CUDA graphs need a GPU; disable them"
            )
        self.card = card
        self.device = device
        self.detector = detector.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compiled:
            self.detector.compile(dynamic=False)
        if cuda_graphs:
            self.detector = GraphedDetector(self.detector)

    @torch.inference_mode()
    def __call__(self, images: Tensor, sizes_wh: Tensor) -> RawDetections:
        """See `Runtime`."""
        images = images.contiguous(memory_format=torch.channels_last)
        result: RawDetections = self.detector(images, sizes_wh.to(self.device))
        return result


class OnnxRuntime:
    """An ONNX file, run by ONNX Runtime."""

    kind = "onnxruntime"
    max_batch_size: int | None = None

    def __init__(self, path: Path, device: torch.device, num_threads: int = 0) -> None:
        with extra("onnx"):
            import onnxruntime as ort
        self.card = read_card(path)
        self.device = device
        options = ort.SessionOptions()
        options.log_severity_level = 3  # only errors
        options.intra_op_num_threads = num_threads
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.type == "cuda":
            # TF32 would reduce float32 to 10 bits of mantissa.
            cuda = {"device_id": device.index or 0, "use_tf32": 0}
            providers.insert(0, ("CUDAExecutionProvider", cuda))
        try:
            self._session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # noqa: BLE001 (ONNX Runtime has no common base class)
            raise ExportError(
                f"{path}: ONNX Runtime cannot load the file ({first_line(error)}); export the "
                "checkpoint again"
            ) from error
        # Without the CUDA libraries ONNX Runtime silently falls back to the CPU.
        if device.type == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise ConfigError(
                "device = 'cuda': ONNX Runtime does not find CUDA (onnxruntime-gpu needs CUDA 12 "
                "and cuDNN 9); use the runtime pytorch, or device cpu"
            )

    def __call__(self, images: Tensor, sizes_wh: Tensor) -> RawDetections:
        """See `Runtime`."""
        try:
            results = self._session.run(list(OUTPUTS), _numpy_inputs(images, sizes_wh))
        except Exception as error:  # noqa: BLE001 (as above)
            raise ExportError(
                f"ONNX Runtime cannot run the model ({first_line(error)}); use the runtime pytorch"
            ) from error
        labels, boxes, scores = (torch.from_numpy(result).to(self.device) for result in results)
        return labels, boxes, scores


class OpenVINORuntime:
    """An ONNX file, run by OpenVINO on the CPU.

    Args:
        path: ONNX file.
        device: the CPU.
        num_threads: threads per call; 0: one per core.
        bfloat16: compute in bfloat16 instead of the precision of the file, which is about twice
            as fast on CPUs that support it. Scores change by hundredths and boxes by a pixel;
            the export verification does not cover this, so check your AP.

    Raises:
        ConfigError: if the device is not the CPU, or does not support bfloat16.
        ExportError: if OpenVINO rejects the file.
    """

    kind = "openvino"
    max_batch_size: int | None = None

    def __init__(
        self, path: Path, device: torch.device, num_threads: int = 0, *, bfloat16: bool = False
    ) -> None:
        if device.type != "cpu":
            raise ConfigError(f"device = {str(device)!r}: OpenVINO runs on the CPU; use cpu")
        core = openvino_core()
        self.card = read_card(path)
        self.device = device
        if bfloat16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ConfigError("bfloat16 = True: this CPU does not support bfloat16; disable it")
        # By default OpenVINO uses bfloat16 where the CPU supports it.
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32"}
        if num_threads:
            options["INFERENCE_NUM_THREADS"] = num_threads
        try:
            self._model = core.compile_model(str(path), "CPU", options)
        except RuntimeError as error:
            raise ExportError(
                f"{path}: OpenVINO cannot load the file ({first_line(error)}); export the "
                "checkpoint again"
            ) from error

    def __call__(self, images: Tensor, sizes_wh: Tensor) -> RawDetections:
        """See `Runtime`."""
        # One request per call, so that threads can share a model.
        request = self._model.create_infer_request()
        try:
            results = request.infer(_numpy_inputs(images, sizes_wh))
        except RuntimeError as error:
            raise ExportError(
                f"OpenVINO cannot run the model ({first_line(error)}); use the runtime pytorch"
            ) from error
        labels, boxes, scores = (torch.from_numpy(results[name].copy()) for name in OUTPUTS)
        return labels.to(torch.int64), boxes, scores


@cache
def openvino_core() -> Any:
    """Return the `openvino.Core` of this process, which is never released.

    On CPUs with AMX, OpenVINO's CPU plugin sets the stack that signal handlers run on, and frees
    it with the last `Core`: the next signal, for example Ctrl-C or `docker stop`, would crash the
    process instead of saving the training.

    Raises:
        ConfigError: if OpenVINO is not installed.
    """
    with extra("openvino"):
        import openvino as ov  # the import starts a thread
    return ov.Core()


def _numpy_inputs(images: Tensor, sizes_wh: Tensor) -> dict[str, np.ndarray]:
    pixels = images.float().div_(255).contiguous().cpu().numpy()
    return dict(zip(INPUTS, (pixels, sizes_wh.to(torch.int64).cpu().numpy()), strict=True))


def _open_pytorch(
    path: Path,
    device: torch.device,
    *,
    compiled: bool = False,
    cuda_graphs: bool = False,
    **source: Any,
) -> Runtime:
    detector, card = load_detector(path, **source)
    return PyTorchRuntime(detector, card, device, compiled=compiled, cuda_graphs=cuda_graphs)


# Kind -> (function that opens it, suffixes); the first kind with a suffix is its default.
_KINDS: dict[str, tuple[Callable[..., Runtime], tuple[str, ...]]] = {
    "pytorch": (_open_pytorch, (".pth", ".pt")),
    "onnxruntime": (OnnxRuntime, (".onnx",)),
    "openvino": (OpenVINORuntime, (".onnx",)),
    "tensorrt": (TensorRTRuntime, (".engine",)),
}


def open_runtime(
    path: str | Path, kind: str | None = None, *, device: str | torch.device = "cpu", **options: Any
) -> Runtime:
    """Open a model file with a runtime.

    Args:
        path: checkpoint, folder of `transformers`, ONNX file or TensorRT engine.
        kind: see `Runtime.kind`; None: chosen by the suffix.
        device: "cpu", "cuda", "cuda:1".
        **options: for checkpoints `config`, `class_names` and `sampling`, see `load_detector`, and
            `compiled` and `cuda_graphs`, see `PyTorchRuntime`; for OpenVINO `bfloat16`.

    Raises:
        ConfigError: if the runtime or device is unknown, or the runtime does not support the file.
        CheckpointError: if the file is missing, damaged, or has no model card.
        ExportError: if the runtime rejects the file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if is_folder(path):
        suffix = ".pth"  # read like a checkpoint
    chosen = kind or next((k for k, (_, taken) in _KINDS.items() if suffix in taken), None)
    if chosen not in _KINDS:
        raise ConfigError(f"runtime = {kind or path.suffix!r}: unknown; choose {', '.join(_KINDS)}")
    opener, suffixes = _KINDS[chosen]
    if suffix not in suffixes:
        raise ConfigError(
            f"{path.name}: {chosen} needs a {' or '.join(suffixes)} file; give one, or choose "
            "another runtime"
        )
    if chosen != "pytorch" and not path.is_file():
        raise CheckpointError(f"{path}: no such file; export the checkpoint first")
    return opener(path, checked_device(device), **options)

"""Export a checkpoint for another runtime. The file is kept only if it matches PyTorch."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch

from ..misc.errors import ConfigError, ExportError
from ..misc.files import replacing
from .comparison_images import ComparisonImages, generated_images
from .detector import Detector, Sampling, load_detector
from .model_card import ExportPrecision, ModelCard
from .onnx import ConversionOptions, OnnxOptions, convert_onnx, write_onnx
from .parity import (
    OnProgress,
    ParityReport,
    check_parity,
    raise_if_failed,
    remove_parity,
    save_parity,
)
from .runtimes import PyTorchRuntime, Runtime, open_runtime
from .tensorrt import build_engine, card_file, load_tensorrt

logger = logging.getLogger(__name__)

# Card of the model -> images to compare on.
FindImages = Callable[[ModelCard], ComparisonImages]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint to export, or an exported ONNX file to convert, and its options."""

    checkpoint: str | Path  # or URL, or ONNX file
    config: Path | None = None  # YAML file, for a checkpoint without a configuration
    class_names: Sequence[str] | None = None  # in label order, for a checkpoint without them
    sampling: Sampling | None = None  # to use instead of the trained method
    input_size_hw: tuple[int, int] | None = None  # to use instead of the trained size
    find_images: FindImages | None = None  # to compare on; None: generated images

    def load(
        self, sampling: Sampling | None = None, input_size_hw: tuple[int, int] | None = None
    ) -> tuple[Detector, ModelCard]:
        """Load the detector with this sampling method and input size; None: the trained ones."""
        return load_detector(
            self.checkpoint,
            config=self.config,
            class_names=self.class_names,
            sampling=sampling,
            input_size_hw=input_size_hw,
        )

    @property
    def onnx_file(self) -> Path | None:
        """The ONNX file to convert; None for a checkpoint."""
        path = Path(self.checkpoint)
        return path if path.suffix.lower() == ".onnx" else None

    def check(self) -> None:
        """Check that no option needs the checkpoint, if there is none.

        Raises:
            ConfigError: with the option.
        """
        options = {
            "config": self.config,
            "classes": self.class_names,
            "sampling": self.sampling,
            "size": self.input_size_hw,
        }
        given = [name for name, value in options.items() if value is not None]
        if self.onnx_file is not None and given:
            raise ConfigError(f"{given[0]}: {self.checkpoint} is exported; give its checkpoint")


class _Checkpoint:
    """A detector in PyTorch: the model to export, and the reference to compare with."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._detector, self.card = source.load(source.sampling, source.input_size_hw)

    def write(self, path: Path, **options: Unpack[OnnxOptions]) -> None:
        """Write an ONNX file; see `write_onnx`."""
        write_onnx(self._detector, self.card, path, **options)

    def reference(self, device: torch.device) -> Runtime:
        """Return the runtime to compare with."""
        return PyTorchRuntime(self._detector, self.card, device)

    def trained(self, device: torch.device) -> Runtime | None:
        """Return PyTorch as trained, if the export uses another sampling method or input size."""
        if self._source.sampling is None and self._source.input_size_hw is None:
            return None
        detector, card = self._source.load()
        if (card.sampling, card.input_size_hw) == (self.card.sampling, self.card.input_size_hw):
            return None
        return PyTorchRuntime(detector, card, device)


class _OnnxFile:
    """The same of an exported file, which ONNX Runtime runs on the CPU."""

    def __init__(self, path: Path) -> None:
        self._path, self._runtime = path, open_runtime(path, "onnxruntime")
        self.card = self._runtime.card

    def write(self, path: Path, **options: Unpack[OnnxOptions]) -> None:
        """Write a converted ONNX file; see `convert_onnx`, which has fewer options."""
        kept = ConversionOptions.__annotations__
        convert_onnx(self._path, path, **{k: v for k, v in options.items() if k in kept})  # type: ignore[arg-type]

    def reference(self, device: torch.device) -> Runtime:
        """Return the runtime to compare with, on any device."""
        return self._runtime

    def trained(self, device: torch.device) -> Runtime | None:
        """Return None: the file contains one sampling method and input size."""
        return None


Model = _Checkpoint | _OnnxFile


def open_source(source: Source) -> Model:
    """Load a checkpoint or an ONNX file.

    Raises:
        CheckpointError: if the file is not usable.
        ExportError: if it is not an ONNX model.
    """
    file = source.onnx_file
    return _Checkpoint(source) if file is None else _OnnxFile(file)


# (file to write, progress) -> the file, opened.
_Build = Callable[[Path, OnProgress], Runtime]


def export_onnx(
    source: Source,
    output: Path,
    *,
    on_progress: OnProgress | None = None,
    **options: Unpack[OnnxOptions],
) -> ParityReport:
    """Write an ONNX file and verify it with ONNX Runtime on the CPU.

    Args:
        source: what to export.
        output: file to write; an existing file is replaced.
        on_progress: called with (activity, images done, images in total).
        **options: see `onnx.write_onnx`.

    Returns:
        The comparison, which is also saved in `parity.json` next to the file.

    Raises:
        ExportError: if the export fails or its results differ; no file remains.
        CheckpointError: if the checkpoint is not usable.
        ConfigError: if the configuration is invalid.
        DatasetError: if the images to compare on are not usable.
    """
    if source.onnx_file is not None:
        raise ConfigError(
            f"{source.checkpoint}: already exported; give its checkpoint, or use int8"
        )

    on_progress = on_progress or no_progress
    on_progress("loading", 0, 0)
    model = _Checkpoint(source)

    def build(path: Path, report: OnProgress) -> Runtime:
        report("exporting", 0, 0)
        model.write(path, **options)
        return open_runtime(path, "onnxruntime")

    return _verified_export(model, source.find_images, output, build, on_progress)


def export_tensorrt(
    source: Source,
    output: Path,
    *,
    precision: ExportPrecision = "fp16",
    nms_iou: float | None = None,
    batch_sizes: tuple[int, int, int] = (1, 1, 16),
    timing_cache: Path | None = None,
    device: str = "cuda",
    grid_sample: bool = False,
    on_progress: OnProgress | None = None,
) -> ParityReport:
    """Build a TensorRT engine and verify it on the GPU that built it.

    An ONNX file is compared with itself in ONNX Runtime.

    Args:
        source: what to export.
        output: file to write; its model card is written next to it.
        precision: "fp16" or "fp32".
        nms_iou: adds NMS within classes at this IoU.
        batch_sizes: minimum, optimum and maximum batch size.
        timing_cache: see `tensorrt.build_engine`.
        device: GPU to build and verify on.
        grid_sample: whether to keep the operator GridSample, which TensorRT is reported to compute
            wrongly; see `tensorrt.KNOWN_FAULTS`.
        on_progress: called with (activity, images done, images in total).

    Returns:
        The comparison, which is also saved in `parity.json` next to the file.

    Raises:
        ConfigError: if TensorRT or the GPU is not available.
        ExportError: if the build fails or its results differ; no file remains.
        CheckpointError: if the checkpoint is not usable.
        DatasetError: if the images to compare on are not usable.
    """
    load_tensorrt()  # fail early
    source.check()
    on_progress = on_progress or no_progress
    on_progress("loading", 0, 0)
    model = open_source(source)

    def build(path: Path, report: OnProgress) -> Runtime:
        with tempfile.TemporaryDirectory() as folder:
            onnx_file = Path(folder, f"{output.stem}.onnx")
            report("exporting", 0, 0)
            model.write(onnx_file, precision=precision, nms_iou=nms_iou, grid_sample=grid_sample)
            report("building the engine, which takes minutes", 0, 0)
            build_engine(onnx_file, path, batch_sizes=batch_sizes, timing_cache=timing_cache)
        return open_runtime(path, "tensorrt", device=device)

    return _verified_export(model, source.find_images, output, build, on_progress)


def _verified_export(
    model: Model,
    find_images: FindImages | None,
    output: Path,
    build: _Build,
    on_progress: OnProgress,
) -> ParityReport:
    """Build a file under a temporary name; rename it if it matches the model."""
    images = generated_images() if find_images is None else find_images(model.card)
    with replacing_output(output) as partial:
        exported = build(partial, on_progress)
        report = check_parity(
            exported,
            model.reference(exported.device),
            images,
            file=output.name,
            trained=model.trained(exported.device),
            on_progress=on_progress,
        )
        raise_if_failed(report)
    save_verified(report, model.card, output)
    return report


def save_verified(report: ParityReport, card: ModelCard, output: Path) -> None:
    """Save the report of a written file, and warn of what its options cost."""
    _warn_of_changes(report, card)
    save_parity(report, output.parent)


def _warn_of_changes(report: ParityReport, card: ModelCard) -> None:
    """Warn about the AP of an export whose sampling method or input size is not the trained one."""
    if report.ap_trained is not None:
        logger.warning(
            "%s: AP is %.4f with %s sampling and an input of %d x %d pixels, and %.4f as trained",
            *(report.file, report.ap_exported, card.sampling, *card.input_size_hw),
            report.ap_trained,
        )
    elif card.trained_size_hw is not None:
        logger.warning(
            "%s: an input of %d x %d pixels, but trained with %d x %d: check the accuracy, for "
            "example by an export with --data",
            *(report.file, *card.input_size_hw, *card.trained_size_hw),
        )


@contextmanager
def replacing_output(output: Path) -> Iterator[Path]:
    """Yield a temporary name and rename it to `output` on success; on failure no file remains.

    An existing file is removed first, so that it is not mistaken for the result of a failed export.
    """
    with _write_errors(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        for path in (output, card_file(output)):
            path.unlink(missing_ok=True)
        remove_parity(output)
    with replacing(output, suffix=output.suffix) as partial:
        try:
            yield partial
            with _write_errors(output):
                if card_file(partial).exists():
                    card_file(partial).replace(card_file(output))
        finally:
            card_file(partial).unlink(missing_ok=True)


@contextmanager
def _write_errors(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExportError(
            f"{output}: cannot be written ({error.strerror or error}); choose another output"
        ) from error


def no_progress(activity: str, done: int, total: int) -> None:
    """Show nothing."""

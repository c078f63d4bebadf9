"""From a checkpoint to a file for another runtime, which exists only if its results are right."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ..misc.errors import ExportError
from .comparison_images import ComparisonImages, generated_images
from .detector import Detector, Sampling, load_detector
from .model_card import ExportPrecision, ModelCard
from .onnx import OPSET, Exporter, write_onnx
from .parity import OnProgress, ParityReport, check_parity, remove_report, require, write_report
from .runtimes import PyTorchRuntime, Runtime, open_runtime
from .tensorrt import build_engine, card_file, load_tensorrt

logger = logging.getLogger(__name__)

# Class names of the model -> images to compare on.
FindImages = Callable[[Sequence[str]], ComparisonImages]


@dataclass(frozen=True, kw_only=True)
class Source:
    """What to export.

    Attributes:
        checkpoint: path or URL.
        config: YAML file of the network, for a checkpoint that does not describe itself.
        class_names: in label order, for a checkpoint that does not know them.
        sampling: another one than the network was trained with; None keeps it.
        find_images: images to compare on; None: generated ones.
    """

    checkpoint: str | Path
    config: Path | None = None
    class_names: Sequence[str] | None = None
    sampling: Sampling | None = None
    find_images: FindImages | None = None


def export_onnx(
    source: Source,
    output: Path,
    *,
    opset: int = OPSET,
    exporter: Exporter = "torchscript",
    slim: bool = True,
    precision: ExportPrecision = "fp32",
    nms_iou: float | None = None,
    on_progress: OnProgress | None = None,
) -> ParityReport:
    """Write an ONNX file and prove it with ONNX Runtime on the CPU.

    Args:
        source: what to export.
        output: file to write; one that is there is replaced.
        opset: see `onnx.write_onnx`, and so for `exporter`, `slim`, `precision` and `nms_iou`.
        exporter: which of torch's two.
        slim: whether to simplify the graph.
        precision: "fp32" or "fp16".
        nms_iou: adds suppression within classes at this overlap.
        on_progress: called as the work goes on.

    Returns:
        The proof, which lies beside the file in `parity.json`, too.

    Raises:
        ExportError: if it cannot be exported, or the results differ; no file is left then.
        CheckpointError: if the checkpoint cannot be used.
        ConfigError: if the configuration is wrong.
        DatasetError: if the images to compare on cannot be used.
    """
    tell = on_progress or _silent
    tell("loading", 0, 0)
    detector, card = _load(source)
    samples = _samples(source, card.class_names)
    with _replacing(output) as partial:
        tell("exporting", 0, 0)
        write_onnx(
            detector,
            card,
            partial,
            opset=opset,
            exporter=exporter,
            slim=slim,
            precision=precision,
            nms_iou=nms_iou,
        )
        exported = open_runtime(partial, "onnxruntime")
        reference = PyTorchRuntime(detector, card, torch.device("cpu"))
        report = _prove(exported, reference, samples, source, output, tell)
    write_report(report, output.parent)
    return report


def export_tensorrt(
    source: Source,
    output: Path,
    *,
    precision: ExportPrecision = "fp16",
    nms_iou: float | None = None,
    batch_sizes: tuple[int, int, int] = (1, 1, 16),
    timing_cache: Path | None = None,
    device: str = "cuda",
    on_progress: OnProgress | None = None,
) -> ParityReport:
    """Build a TensorRT engine and prove it on the GPU that it was built on.

    Args:
        source: what to export.
        output: file to write; its description goes beside it.
        precision: "fp16" or "fp32".
        nms_iou: adds suppression within classes at this overlap.
        batch_sizes: smallest, most usual and largest batch.
        timing_cache: see `tensorrt.build_engine`.
        device: GPU to build and prove on.
        on_progress: called as the work goes on.

    Returns:
        The proof, which lies beside the file in `parity.json`, too.

    Raises:
        ConfigError: if TensorRT or the GPU is not there.
        ExportError: if it cannot be built, or the results differ; no file is left then.
        CheckpointError: if the checkpoint cannot be used.
        DatasetError: if the images to compare on cannot be used.
    """
    tell = on_progress or _silent
    load_tensorrt()  # before any work is done
    tell("loading", 0, 0)
    detector, card = _load(source)
    samples = _samples(source, card.class_names)
    with _replacing(output) as partial, tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder, f"{output.stem}.onnx")
        tell("exporting", 0, 0)
        write_onnx(detector, card, onnx_file, precision=precision, nms_iou=nms_iou)
        tell("building the engine, which takes minutes", 0, 0)
        build_engine(onnx_file, partial, batch_sizes=batch_sizes, timing_cache=timing_cache)
        exported = open_runtime(partial, "tensorrt", device=device)
        reference = PyTorchRuntime(detector, card, exported.device)
        report = _prove(exported, reference, samples, source, output, tell)
    write_report(report, output.parent)
    return report


def _load(source: Source) -> tuple[Detector, ModelCard]:
    return load_detector(
        source.checkpoint,
        config=source.config,
        class_names=source.class_names,
        sampling=source.sampling,
    )


def _samples(source: Source, class_names: Sequence[str]) -> ComparisonImages:
    return generated_images() if source.find_images is None else source.find_images(class_names)


def _prove(
    exported: Runtime,
    reference: Runtime,
    samples: ComparisonImages,
    source: Source,
    output: Path,
    on_progress: OnProgress,
) -> ParityReport:
    trained = None
    if source.sampling is not None:
        detector, card = load_detector(
            source.checkpoint, config=source.config, class_names=source.class_names
        )
        if card.sampling != reference.card.sampling:
            trained = PyTorchRuntime(detector, card, reference.device)
    report = check_parity(
        exported, reference, samples, file=output.name, trained=trained, on_progress=on_progress
    )
    require(report)
    if report.ap_trained is not None:
        logger.warning(
            "%s: with %s sampling AP is %.4f, with that of the training %.4f",
            output.name,
            reference.card.sampling,
            report.ap_exported,
            report.ap_trained,
        )
    return report


@contextmanager
def _replacing(output: Path) -> Iterator[Path]:
    """Yield a name to write to, which becomes `output` if all goes well; else nothing is left.

    An earlier file goes first: if this export fails it must not be taken for its result.
    """
    partial = output.with_name(f".{output.stem}.partial{output.suffix}")
    with _writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        for path in (output, card_file(output)):
            path.unlink(missing_ok=True)
        remove_report(output)
    try:
        yield partial
        with _writing(output):
            if card_file(partial).exists():
                card_file(partial).replace(card_file(output))
            partial.replace(output)
    finally:
        for path in (partial, card_file(partial)):
            path.unlink(missing_ok=True)


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExportError(
            f"{output}: cannot be written ({error.strerror or error}); choose another place"
        ) from error


def _silent(what: str, done: int, total: int) -> None:
    pass

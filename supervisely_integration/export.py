"""Exports as the apps want them: a path that exists, or the reason why there is none."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from rtdetrv2_pytorch.src.deploy import export
from rtdetrv2_pytorch.src.deploy.model_card import Precision
from rtdetrv2_pytorch.src.deploy.parity import OnProgress
from rtdetrv2_pytorch.src.deploy.samples import Samples, validation_samples

logger = logging.getLogger(__name__)


def export_onnx(
    checkpoint: Path,
    output: Path,
    *,
    config: Path | None = None,
    class_names: Sequence[str] | None = None,
    find_samples: export.FindSamples | None = None,
    fp16: bool = False,
    on_progress: OnProgress | None = None,
) -> Path:
    """Write an ONNX file with proof; see `rtdetrv2_pytorch.src.deploy.export.export_onnx`.

    Args:
        checkpoint: what to export.
        output: file to write; `parity.json` goes beside it.
        config: YAML file of the network, for a checkpoint that does not describe itself.
        class_names: in label order, for a checkpoint that does not know them.
        find_samples: images to compare on; default: generated ones.
        fp16: whether most of it computes in 16 bits.
        on_progress: called as the work goes on.

    Returns:
        The output.

    Raises:
        RTDETRError: if it fails; no file is left then.
    """
    source = _source(checkpoint, config, class_names, find_samples)
    export.export_onnx(source, output, precision=_precision(fp16), on_progress=on_progress)
    return output


def export_tensorrt(
    checkpoint: Path,
    output: Path,
    *,
    config: Path | None = None,
    class_names: Sequence[str] | None = None,
    find_samples: export.FindSamples | None = None,
    fp16: bool = True,
    on_progress: OnProgress | None = None,
) -> Path:
    """Build a TensorRT engine with proof, on the first GPU; see `export_onnx`."""
    source = _source(checkpoint, config, class_names, find_samples)
    export.export_tensorrt(source, output, precision=_precision(fp16), on_progress=on_progress)
    return output


def split_samples(ann_file: Path, img_folder: Path) -> export.FindSamples | None:
    """Images of a validation split on disk; None, with a warning, if it is not there any more."""
    if not ann_file.is_file():
        logger.warning("%s: is not there, so the export is compared on generated images", ann_file)
        return None

    def find(class_names: Sequence[str]) -> Samples:
        return validation_samples(ann_file, img_folder, class_names)

    return find


def _precision(fp16: bool) -> Precision:
    return "fp16" if fp16 else "fp32"


def _source(
    checkpoint: Path,
    config: Path | None,
    class_names: Sequence[str] | None,
    find_samples: Callable[[Sequence[str]], Samples] | None,
) -> export.Source:
    return export.Source(
        checkpoint=checkpoint, config=config, class_names=class_names, find_samples=find_samples
    )

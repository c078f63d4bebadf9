"""Exports as the apps want them: a path that exists, or the reason why there is none."""

import logging
from collections.abc import Sequence
from pathlib import Path

from rtdetrv2_pytorch.src.deploy import export
from rtdetrv2_pytorch.src.deploy.comparison_images import ComparisonImages, validation_images
from rtdetrv2_pytorch.src.deploy.parity import OnProgress

logger = logging.getLogger(__name__)


def export_onnx(
    checkpoint: Path,
    output: Path,
    *,
    config: Path | None = None,
    find_images: export.FindImages | None = None,
    on_progress: OnProgress | None = None,
) -> Path:
    """Write an ONNX file in float32 with proof; see `rtdetrv2_pytorch.src.deploy.export`.

    Args:
        checkpoint: what to export.
        output: file to write; `parity.json` goes beside it.
        config: YAML file of the network, for a checkpoint that does not describe itself.
        find_images: images to compare on; default: generated ones.
        on_progress: called as the work goes on.

    Returns:
        The output.

    Raises:
        RTDETRError: if it fails; no file is left then.
    """
    source = export.Source(checkpoint=checkpoint, config=config, find_images=find_images)
    export.export_onnx(source, output, precision="fp32", on_progress=on_progress)
    return output


def export_tensorrt(
    checkpoint: Path,
    output: Path,
    *,
    config: Path | None = None,
    find_images: export.FindImages | None = None,
    on_progress: OnProgress | None = None,
) -> Path:
    """Build a TensorRT engine in 16 bits with proof, on the first GPU; see `export_onnx`."""
    source = export.Source(checkpoint=checkpoint, config=config, find_images=find_images)
    export.export_tensorrt(source, output, precision="fp16", on_progress=on_progress)
    return output


def split_images(ann_file: Path, img_folder: Path) -> export.FindImages | None:
    """Images of a validation split on disk; None, with a warning, if it is not there any more."""
    if not ann_file.is_file():
        logger.warning("%s: is not there, so the export is compared on generated images", ann_file)
        return None

    def find(class_names: Sequence[str]) -> ComparisonImages:
        return validation_images(ann_file, img_folder, class_names)

    return find

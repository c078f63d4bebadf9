"""Exports of a checkpoint, as both apps request them."""

import logging
from collections.abc import Sequence
from pathlib import Path

from rtdetrv2_pytorch.src.deploy import export
from rtdetrv2_pytorch.src.deploy.comparison_images import ComparisonImages, validation_images
from rtdetrv2_pytorch.src.deploy.parity import OnProgress

logger = logging.getLogger(__name__)


def export_checkpoint(
    checkpoint: Path,
    output: Path,
    *,
    config: Path | None = None,
    find_images: export.FindImages | None = None,
    on_progress: OnProgress | None = None,
) -> Path:
    """Export to ONNX (float32) or TensorRT (float16, on the first GPU) and compare with PyTorch.

    Args:
        checkpoint: file to export.
        output: file to write, ending in .onnx or .engine; `parity.json` is written next to it.
        config: YAML file of the network, for a checkpoint without one.
        find_images: images to compare on; default: generated images.
        on_progress: called with the progress of each stage.

    Returns:
        The output.

    Raises:
        RTDETRError: if the export fails or differs from PyTorch; no partial file remains.
    """
    source = export.Source(checkpoint=checkpoint, config=config, find_images=find_images)
    if output.suffix == ".onnx":
        export.export_onnx(source, output, precision="fp32", on_progress=on_progress)
    else:
        export.export_tensorrt(source, output, precision="fp16", on_progress=on_progress)
    return output


def split_images(ann_file: Path, img_folder: Path) -> export.FindImages | None:
    """Return a function that loads images of a validation split; None if the split is missing."""
    if not ann_file.is_file():
        logger.warning("%s: not found; comparing the export on generated images", ann_file)
        return None

    def find(class_names: Sequence[str]) -> ComparisonImages:
        return validation_images(ann_file, img_folder, class_names)

    return find

"""Exports of a checkpoint for both apps."""

from pathlib import Path

from rtdetrv2_pytorch.src.deploy import export
from rtdetrv2_pytorch.src.deploy.parity import OnProgress


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

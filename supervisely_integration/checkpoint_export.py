"""Exports of a checkpoint for both apps."""

from pathlib import Path

from rtdetrv2_pytorch.src.data.splits import Splits
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


def export_quantized(onnx_file: Path, *, data: Splits, on_progress: OnProgress) -> Path:
    """Quantize an exported file to INT8, and compare its AP with that of the file.

    Args:
        onnx_file: float32 file.
        data: training split for calibration, validation split for AP.
        on_progress: called with the progress of each stage.

    Returns:
        The new file, next to the other one.

    Raises:
        RTDETRError: if too much accuracy is lost; no file remains.
    """
    from rtdetrv2_pytorch.src.deploy.int8.export import export_int8  # takes seconds to import

    output = int8_file(onnx_file)
    source = export.Source(checkpoint=onnx_file)
    export_int8(source, output, data=data, on_progress=on_progress)
    return output


def int8_file(onnx_file: Path) -> Path:
    """Return the path of the INT8 file next to a float32 file."""
    return onnx_file.with_name(f"{onnx_file.stem}_int8.onnx")

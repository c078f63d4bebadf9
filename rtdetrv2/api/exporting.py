"""Export a model file with the options of `RTDETR.export`."""

from pathlib import Path

from rtdetrv2_pytorch.src.data.splits import CONVERTED, find_splits
from rtdetrv2_pytorch.src.deploy.comparison_images import validation_images
from rtdetrv2_pytorch.src.deploy.export import FindImages, Source, export_onnx, export_tensorrt
from rtdetrv2_pytorch.src.misc.errors import ConfigError

from ..terminal.console import LiveLine
from .model_file import ModelFile


def export(
    file: ModelFile,
    suffix: str,
    *,
    output: Path | None,
    data: Path | None,
    size_hw: tuple[int, int] | None,
    fp16: bool | None,
    nms_iou: float | None,
    int8: bool,
    device: str | None,
    line: LiveLine,
) -> Path:
    """Export; see `RTDETR.export`.

    Raises:
        RTDETRError: if an option is invalid or the export fails.
    """
    assert file.path is not None
    is_quantized = int8 and file.path.suffix.lower() == ".onnx"
    if not (file.is_checkpoint or is_quantized):
        raise ConfigError(f"{file.path}: only checkpoints can be exported; open best.pth instead")
    data = data or file.data
    if int8:
        _check_int8(suffix, fp16, data)
    tag = "_int8" if int8 else ""
    target = file.path.with_name(f"{file.path.stem}{tag}{suffix}") if output is None else output
    if target.suffix.lower() != suffix:
        raise ConfigError(f"output = {str(target)!r}: give a name that ends in {suffix}")
    source = Source(
        checkpoint=file.path,
        config=file.config,
        input_size_hw=size_hw,
        find_images=None if data is None or int8 else _images_of(data, target.parent),
    )

    def show(activity: str, done: int, total: int) -> None:
        line.show(activity, done, total or None)

    if int8:
        from rtdetrv2_pytorch.src.deploy.int8.export import export_int8

        assert data is not None
        splits = find_splits(data, target.parent / CONVERTED)
        export_int8(source, target, data=splits, nms_iou=nms_iou, on_progress=show)
    elif suffix == ".onnx":
        export_onnx(
            source,
            target,
            precision="fp16" if fp16 else "fp32",
            nms_iou=nms_iou,
            on_progress=show,
        )
    else:
        export_tensorrt(
            source,
            target,
            precision="fp32" if fp16 is False else "fp16",
            nms_iou=nms_iou,
            device=device or "cuda",
            on_progress=show,
        )
    return target


def _check_int8(suffix: str, fp16: bool | None, data: Path | None) -> None:
    if suffix != ".onnx":
        raise ConfigError("int8=True: only for format='onnx'; other formats have fp16")
    if fp16:
        raise ConfigError("int8=True and fp16=True: choose one")
    if data is None:
        raise ConfigError(
            "int8=True needs data: images of the training split for calibration, and of the "
            "validation split to measure the loss of AP"
        )


def _images_of(data: Path, output: Path) -> FindImages:
    split = find_splits(data, output / CONVERTED).val
    return lambda card: validation_images(split.ann_file, split.img_folder, card)

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
    device: str | None,
    line: LiveLine,
) -> Path:
    """Export; see `RTDETR.export`.

    Raises:
        RTDETRError: if an option is invalid or the export fails.
    """
    assert file.path is not None
    if not file.is_checkpoint:
        raise ConfigError(f"{file.path}: only checkpoints can be exported; open best.pth instead")
    target = file.path.with_suffix(suffix) if output is None else output
    if target.suffix.lower() != suffix:
        raise ConfigError(f"output = {str(target)!r}: give a name that ends in {suffix}")
    source = Source(
        checkpoint=file.path,
        config=file.config,
        input_size_hw=size_hw,
        find_images=None if data is None else _images_of(data, target.parent),
    )

    def show(activity: str, done: int, total: int) -> None:
        line.show(activity, done, total or None)

    if suffix == ".onnx":
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


def _images_of(data: Path, output: Path) -> FindImages:
    split = find_splits(data, output / CONVERTED).val
    return lambda card: validation_images(split.ann_file, split.img_folder, card)

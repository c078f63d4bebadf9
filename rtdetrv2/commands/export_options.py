"""Options and body that the export commands share."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from ..terminal.command import PATH, ListOption
from ..terminal.command_log import CommandLog, run_logged
from ..terminal.console import LiveLine, print_detail, print_headline, print_path

if TYPE_CHECKING:
    from rtdetrv2_pytorch.src.deploy.export import FindImages
    from rtdetrv2_pytorch.src.deploy.parity import ParityReport

LOG_FILE = "export.log"
EXCLUSIVE = (("data", "images"), ("fp16", "int8"), ("int8", "images"))
_FORMATS = {".onnx": "ONNX", ".engine": "TensorRT"}

OPTIONS = (
    click.Option(
        ("-r", "--resume", "--onnx", "resume"),
        required=True,
        metavar="CHECKPOINT",
        help="Path or URL of a checkpoint; for TensorRT and INT8 also an exported ONNX file.",
    ),
    click.Option(("-o", "--output"), type=PATH, help="[default: next to the checkpoint]"),
    click.Option(
        ("-c", "--config"), type=PATH, help="YAML file, for a checkpoint that does not contain one."
    ),
    click.Option(
        ("--classes",),
        help="Names a,b,c in label order, for a checkpoint that does not contain them.",
    ),
    click.Option(
        ("--data",),
        type=PATH,
        help="Dataset folder; compare outputs and AP on its validation split.",
    ),
    ListOption(
        ("--images",),
        type=PATH,
        metavar="PATH...",
        help="Image files or folders; compare outputs on them.",
    ),
    click.Option(
        ("--triton",), type=PATH, metavar="DIR", help="Also write a model repository for Triton."
    ),
    click.Option(
        ("--deepstream",), type=PATH, metavar="DIR", help="Also write files for DeepStream."
    ),
    click.Option(
        ("--size",),
        type=int,
        nargs=2,
        metavar="H W",
        help="Height and width of the input in pixels, multiples of 32.  [default: as trained]",
    ),
    click.Option(
        ("--nms-iou",), type=float, help="Suppress boxes of the same class above this IoU."
    ),
)


def run_export(
    suffix: str,
    export: "Callable[..., ParityReport]",
    *,
    resume: str,
    output: Path | None,
    config: Path | None,
    classes: str | None,
    data: Path | None,
    images: Sequence[Path],
    size: tuple[int, int] | None,
    nms_iou: float | None,
    triton: Path | None,
    deepstream: Path | None,
    discrete: bool = False,
    tag: str = "",
) -> int:
    """Export a checkpoint and print how the result compares; return the exit status.

    The keywords are those of `OPTIONS`; `export` is `export_onnx`, `export_int8` or
    `export_tensorrt` with the options of its format. `tag` is the end of the default name.
    """
    from rtdetrv2_pytorch.src.deploy.export import Source
    from rtdetrv2_pytorch.src.deploy.server_files import write_deepstream, write_triton
    from rtdetrv2_pytorch.src.misc.weights import locate

    def body(console: Console, log: CommandLog) -> int:
        target = _target(resume, output, tag, suffix)
        if "://" not in resume and not Path(resume).expanduser().exists():
            locate(resume)  # raises, before a log file is written
        log.open_in(target.parent, LOG_FILE, option="--output")
        print_headline(console, "Exporting", f"{resume} to {_FORMATS[suffix]}")
        source = Source(
            checkpoint=resume,
            config=config,
            class_names=[name.strip() for name in classes.split(",")] if classes else None,
            sampling="discrete" if discrete else None,
            input_size_hw=size,
            find_images=_find_images(data, images, target.parent),
        )
        with LiveLine(console) as line:
            report = export(
                source,
                target,
                nms_iou=nms_iou,
                on_progress=lambda what, done, total: line.show(what, done, total or None),
            )
        if console.is_terminal:  # elsewhere the log shows it
            print_detail(console, str(report))
        print_detail(console, f"{target.stat().st_size / 1e6:.1f} MB")
        written = [target, target.parent / LOG_FILE]
        if triton is not None:
            written.append(write_triton(target, triton))
        if deepstream is not None:
            written.append(write_deepstream(target, deepstream))
        for path in written:
            print_path(console, path)
        return 0

    return run_logged(body)


def _target(checkpoint: str, output: Path | None, tag: str, suffix: str) -> Path:
    """Return the output path; by default the checkpoint's name with another suffix.

    Raises:
        ConfigError: if the output has another suffix; runtimes are chosen by suffix.
    """
    from rtdetrv2_pytorch.src.misc.errors import ConfigError

    if output is None:
        path = Path(checkpoint)
        folder = Path() if "://" in checkpoint else path.parent
        return folder / f"{path.stem}{tag}{suffix}"
    if output.suffix.lower() != suffix:
        raise ConfigError(f"--output {output}: give a name that ends in {suffix}")
    return output


def _find_images(data: Path | None, images: Sequence[Path], output: Path) -> "FindImages | None":
    from rtdetrv2_pytorch.src.data.splits import CONVERTED, find_splits
    from rtdetrv2_pytorch.src.deploy.comparison_images import given_images, validation_images

    if data is not None:
        split = find_splits(data, output / CONVERTED).val
        return lambda card: validation_images(split.ann_file, split.img_folder, card)
    if images:
        files = [file for path in images for file in _image_files(path)]
        return lambda card: given_images(files, card)
    return None


def _image_files(path: Path) -> list[Path]:
    from rtdetrv2_pytorch.src.data.images.opening import is_image
    from rtdetrv2_pytorch.src.misc.errors import ConfigError

    if not path.is_dir():
        return [path]
    files = sorted(filter(is_image, path.iterdir()))
    if not files:
        raise ConfigError(f"--images {path}: the folder contains no image files; give images")
    return files

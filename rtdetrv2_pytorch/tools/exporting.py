"""What the export tools share: where the weights come from, what to compare on, how it is told."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image
from rich.console import Console

from ..src.data.splits import find_splits
from ..src.deploy.comparison_images import given_images, validation_images
from ..src.deploy.export import FindImages, Source
from ..src.deploy.parity import ParityReport
from ..src.misc.errors import ConfigError
from .command import run_command
from .command_log import CommandLog
from .console import LiveLine, print_detail, print_headline, print_path

LOG_FILE = "export.log"
_KINDS = {".onnx": "ONNX", ".engine": "TensorRT"}


def _source(args: argparse.Namespace) -> Source:
    """What the options say to export, and what to compare it on."""
    names = [name.strip() for name in args.classes.split(",")] if args.classes else None
    return Source(
        checkpoint=args.resume,
        config=args.config,
        class_names=names,
        sampling="discrete" if getattr(args, "discrete", False) else None,
        find_images=_find_images(args.data, args.images),
    )


def _output(args: argparse.Namespace, suffix: str) -> Path:
    """The given output, or the checkpoint's name with another suffix.

    Raises:
        ConfigError: if the output has another suffix, by which no runtime would know it.
    """
    if args.output is None:
        given = Path(args.resume)
        folder = Path() if "://" in args.resume else given.parent
        return folder / f"{given.stem}{suffix}"
    if args.output.suffix.lower() != suffix:
        raise ConfigError(f"--output {args.output}: give a name that ends in {suffix}")
    return Path(args.output)


def _find_images(data: Path | None, images: Sequence[Path] | None) -> FindImages | None:
    if data is not None:
        split = find_splits(data).val
        return lambda names: validation_images(split.ann_file, split.img_folder, names)
    if images is not None:
        files = [file for path in images for file in _image_files(path)]
        return lambda names: given_images(files)
    return None


def _image_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    readable = Image.registered_extensions()
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in readable)
    if not files:
        raise ConfigError(f"--images {path}: no image files are in this folder")
    return files


def run(args: argparse.Namespace, suffix: str, export: Callable[..., ParityReport]) -> int:
    """Export, and say how it compares; returns the exit status.

    Args:
        args: what was typed.
        suffix: of the file.
        export: `export_onnx` or `export_tensorrt`, with its options.
    """

    def body(console: Console, log: CommandLog) -> int:
        output = _output(args, suffix)
        log.open_in(output.parent, LOG_FILE, option="--output")
        print_headline(console, "Exporting", f"{args.resume} to {_KINDS[suffix]}")
        with LiveLine(console) as line:
            report = export(
                _source(args),
                output,
                nms_iou=args.nms_iou,
                on_progress=lambda what, done, total: line.show(what, done, total or None),
            )
        if console.is_terminal:  # elsewhere it is in the log
            print_detail(console, str(report))
        print_detail(console, f"{output.stat().st_size / 1e6:.1f} MB")
        for path in (output, output.parent / LOG_FILE):
            print_path(console, path)
        return 0

    return run_command(body)

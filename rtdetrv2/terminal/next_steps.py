"""The commands at the end of a training: open the report, predict on an image, export."""

import shlex
from pathlib import Path

from rich.console import Console

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.report.training_report import REPORT
from rtdetrv2_pytorch.src.solver.checkpointing import BEST

from .console import print_headline, print_path, python_name, short_path


def print_next_steps(console: Console, cfg: YAMLConfig, data: Path | None) -> None:
    """Print the commands that use the results of a training; they work when pasted."""
    best = cfg.output_dir / BEST
    data_set = cfg.val_dataset
    image = data_set.img_folder / data_set.annotations[0].file_name
    print_commands(console, report=cfg.output_dir / REPORT, best=best, image=image, data=data)


def print_commands(
    console: Console, *, report: Path, best: Path, image: Path | None, data: Path | None
) -> None:
    """Print the commands for files that exist."""
    commands: list[list[str]] = []
    if report.is_file():
        commands.append(["-m", "webbrowser", "-t", report.resolve().as_uri()])
    if best.is_file():
        if image is not None and image.is_file():
            commands.append(["-m", "rtdetrv2", "predict", short_path(best), short_path(image)])
        source = ["--data", str(data)] if data is not None else []
        export = ["-m", "rtdetrv2_pytorch.tools.export_onnx", "-r", short_path(best)]
        commands.append([*export, *source])
    if commands:
        print_headline(console, "Next", "open the report, predict, export")
    for words in commands:
        print_path(console, shlex.join([python_name(), *words]))

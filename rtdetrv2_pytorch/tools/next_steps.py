"""The commands at the end of a training: open the report, predict on an image, export."""

import shlex
import shutil
import sys
from pathlib import Path

from rich.console import Console

from ..src.core import YAMLConfig
from ..src.report.training_report import REPORT
from ..src.solver.checkpointing import BEST
from .console import print_headline, print_path

_DEMO = Path(__file__).parents[2] / "supervisely_integration" / "demo" / "demo_pytorch.py"


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
            commands.append([_shown(_DEMO), _shown(image), "--model", _shown(best)])
        source = ["--data", str(data)] if data is not None else []
        commands.append(["-m", "rtdetrv2_pytorch.tools.export_onnx", "-r", _shown(best), *source])
    if commands:
        print_headline(console, "Next", "open the report, predict, export")
    for words in commands:
        print_path(console, shlex.join([python_name(), *words]))


def python_name() -> str:
    """Return how a shell in this directory starts this Python."""
    found = shutil.which("python")
    if found is not None and Path(found).absolute() == Path(sys.executable).absolute():
        return "python"
    return _shown(Path(sys.executable))


def _shown(path: Path) -> str:
    """Return a path relative to the current directory, if it is inside."""
    absolute = Path.cwd() / path  # without following the links of a virtual environment
    is_inside = absolute.is_relative_to(Path.cwd())
    return str(absolute.relative_to(Path.cwd()) if is_inside else absolute)

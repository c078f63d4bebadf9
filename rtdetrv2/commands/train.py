"""Train and evaluate from the command line; see --help."""

import os
import sys
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from rtdetrv2_pytorch.src.data.augment.presets import PRESETS

from ..terminal.command import PATH, Command, update_option
from ..terminal.command_log import CommandLog, run_logged
from ..terminal.console import LiveLine, print_path, starting
from ..terminal.training_steps import ConsoleProgress
from ..training.options import TrainOptions

if TYPE_CHECKING:
    from rtdetrv2_pytorch.src.core import YAMLConfig

LOG_FILE = "train.log"
_SIZES = ("S", "M", "L", "X")
_EXAMPLES = """
examples:
  rtdetrv2 train --data my_dataset --model M --epochs 20
  rtdetrv2 train --data my_dataset --resume
  rtdetrv2 train --data my_dataset --weights objects365 --name second --seed 1
  rtdetrv2 train -c my.yml -u epoches=20 optimizer.lr=0.0002
  rtdetrv2 train -c my.yml -r output/last.pth
  rtdetrv2 train -c my.yml -r output/best.pth --test-only
"""


@click.command(
    cls=Command,
    epilog=_EXAMPLES,
    exclusive=(
        ("data", "sample"),
        ("resume", "tuning"),
        ("resume", "overwrite"),
        ("config", "model"),
        ("output_dir", "name"),
        ("epochs", "time_budget"),
    ),
)
@click.option(
    "-c",
    "--config",
    type=PATH,
    help="YAML file.  [default: that of --model, with a short schedule on a CPU]",
)
@click.option("--data", type=PATH, help="Dataset folder; its splits are detected.")
@click.option("--sample", is_flag=True, help="Generate a small dataset of digits and train on it.")
@click.option(
    "--model",
    metavar="NAME",
    shell_complete=lambda *_: [*_SIZES],
    help="S, M, L, X, RT-DETRv2-M*, or the name of a configuration.  [default: S]",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Number of epochs.")
@click.option(
    "--time-budget",
    metavar="30m|2h",
    help="Duration of the run; chooses the number of epochs that fits.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Images per training batch.")
@click.option("--size", type=click.IntRange(min=32), help="Image size in pixels, a multiple of 32.")
@click.option(
    "-r",
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[CHECKPOINT]",
    help="Resume the run of this checkpoint.  [default: that of the output folder]",
)
@click.option(
    "-t",
    "--tuning",
    "--weights",
    metavar="WEIGHTS",
    help="Start from coco, objects365, none (random weights), a file or a URL."
    "  [default: coco, or as in the file of -c]",
)
@click.option(
    "--augmentation",
    type=click.Choice([*PRESETS]),
    help="Augmentation for a kind of pictures; see `rtdetrv2 augment`."
    "  [default: that of the configuration]",
)
@click.option("-d", "--device", help="cuda, cuda:1 or cpu.  [default: a GPU if available]")
@click.option("--use-amp/--no-amp", default=None, help="Mixed precision or float32.")
@click.option("--seed", type=int, help="Random seed.")
@click.option("--output-dir", help="Folder for checkpoints and logs.")
@click.option("--name", help="Name of the run; writes to output/NAME.")
@click.option("--overwrite", is_flag=True, help="Delete results in the output folder.")
@click.option("--no-doctor", is_flag=True, help="Do not examine the dataset of --data first.")
@click.option("--test-only", is_flag=True, help="Evaluate without training.")
@update_option("a value of the configuration")
def main(*, no_doctor: bool, **values: Any) -> int:
    """Train RT-DETRv2."""
    options = TrainOptions(examine=not no_doctor, **values)
    if not (options.config or options.folder or options.resume or options.tuning):
        raise click.UsageError(
            "give a configuration (-c), a dataset (--data or --sample), or a checkpoint (-r)"
        )
    with starting():
        from ..terminal.next_steps import print_next_steps
        from ..terminal.training_view import TrainingFollower, print_metrics
        from ..training.run import train

    def body(console: Console, log: CommandLog) -> int:
        with LiveLine(console) as line:
            progress = LoggedProgress(console, log, line)
            outcome = train(options, progress=progress, followers=[TrainingFollower(console, line)])
        if os.environ.get("RANK", "0") != "0":
            return 0
        if options.test_only and outcome.evaluation is not None:
            print_metrics(console, outcome.evaluation.as_dict(), "Validation")
        if outcome.report is not None:
            print_path(console, outcome.report)
        print_path(console, outcome.cfg.output_dir / LOG_FILE)
        if not options.test_only:
            print_next_steps(console, outcome.cfg, options.folder)
        return 0

    return run_logged(body)


class LoggedProgress(ConsoleProgress):
    """Opens the log file of the run, and asks the user at a terminal.

    Args:
        console: of the command.
        log: of the command.
        line: of the console.
    """

    def __init__(self, console: Console, log: CommandLog, line: LiveLine) -> None:
        super().__init__(console, line)
        self._log = log

    def confirm(self, question: str) -> bool:
        """Ask a person at a terminal."""
        self._line.pause()
        can_ask = sys.stdin.isatty() and self._console.is_terminal
        return can_ask and click.confirm(question, default=True)

    def configured(self, cfg: "YAMLConfig") -> None:
        """Open the log file of the run."""
        self._log.open_in(cfg.output_dir, LOG_FILE, option="output_dir =")

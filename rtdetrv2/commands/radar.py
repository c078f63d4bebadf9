"""Find annotation errors in the data of a training; see --help."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from rtdetrv2_pytorch.src.misc.text import counted

from ..terminal.command import PATH, Command, update_option
from ..terminal.command_log import CommandLog, run_logged
from ..terminal.console import (
    LiveLine,
    print_detail,
    print_headline,
    print_notice,
    print_path,
    result_table,
    starting,
)

if TYPE_CHECKING:
    from ..analysis.radar.radar import RadarResult

LOG_FILE = "label_radar.log"
_SHOWN = 15
_EXAMPLES = """
examples:
  rtdetrv2 radar output/my
  rtdetrv2 radar output/my --folds 2 --epochs 5      # faster

Images of the validation split are compared with detections of best.pth; those of the training split
with detections of networks that are trained further on the other training images. By default this
takes as many training steps as the training itself. Stop with Ctrl-C; the same command resumes it.
Annotations are not changed.
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("run", type=PATH)
@click.option("--data", type=PATH, help="Dataset folder, if it has moved since the training.")
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    default=3,
    show_default=True,
    help="Parts of the training images, each with a network of its own.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    help="Epochs of each network.  [default: (those of the training - 1) / (folds - 1)]",
)
@click.option("-d", "--device", help="cuda, cuda:1 or cpu.  [default: a GPU if available]")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed."
)
@update_option("a value of the configuration of these networks")
def main(*, run: Path, **options: Any) -> int:
    """Find missing, wrong and inaccurate labels in the data of RUN, the folder of a training."""
    with starting():
        from rtdetrv2_pytorch.src.report.training_report import write_report

        from ..analysis.radar.radar import RadarOptions, find_label_errors
        from ..terminal.training_steps import ConsoleProgress
        from ..terminal.training_view import TrainingFollower
        from ..training.finished_run import best_weights

    def find(console: Console, log: CommandLog) -> int:
        best_weights(run)
        log.open_in(run, LOG_FILE, option="run")
        with LiveLine(console) as line:
            result = find_label_errors(
                run,
                RadarOptions(**options),
                progress=ConsoleProgress(console, line),
                followers=[TrainingFollower(console, line)],
            )
            _print(console, result)
            line.show("writing the report")
            report = write_report(result.source)
        for path in (result.path, report, run / LOG_FILE):
            print_path(console, path)
        return 0

    return run_logged(find)


def _print(console: Console, result: "RadarResult") -> None:
    from ..analysis.radar.suspicions import KINDS

    labels, images = sum(result.labels.values()), sum(result.images.values())
    print_headline(console, "Suspicions", f"in {labels} labels of {counted(images, 'image')}")
    table = result_table(console, "By kind")
    for name in ("error", "certain (90 %)", "likely (50 %)", "possible"):
        table.add_column(name, justify="left" if name == "error" else "right")
    for kind, title in KINDS.items():
        values = [each.probability for each in result.suspicions if each.kind == kind]
        counts = (sum(v >= 0.9 for v in values), sum(v >= 0.5 for v in values), len(values))
        table.add_row(title, *map(str, counts))
    console.print(table)
    for each in result.suspicions[:_SHOWN]:
        box = each.label or each.detection
        assert box is not None
        found = each.detection.class_name if each.detection else "nothing"
        what = f"{each.label.class_name} -> {found}" if each.label else found
        print_detail(
            console,
            f"{each.probability:.2f}  {KINDS[each.kind]}: {what}, {each.split} {each.file_name} "
            f"at {[round(v) for v in box.box]}",
        )
    if not result.suspicions:
        print_notice(console, "No suspicions: labels and detections agree")

"""Write the report of a finished run again; see --help."""

from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from ..terminal.command import PATH, Command, update_option
from ..terminal.command_log import CommandLog, run_logged
from ..terminal.console import LiveLine, print_headline, print_path, starting

_EXAMPLES = """
examples:
  rtdetrv2 report output/my
  rtdetrv2 report output/my --data my_dataset    # moved dataset

The best weights are evaluated again on the validation split. The training curves come from the
log of the run.
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("run", type=PATH)
@click.option("--data", type=PATH, help="Dataset folder, if it has moved since the training.")
@click.option("-d", "--device", help="cuda, cuda:1 or cpu.  [default: a GPU if available]")
@update_option("a value of the configuration")
def main(*, run: Path, data: Path | None, device: str | None, update: tuple[str, ...]) -> int:
    """Write report.html of RUN, the output folder of a training, again."""
    with starting():
        from rtdetrv2_pytorch.src.core import ConfigError
        from rtdetrv2_pytorch.src.core.yaml_files import merge_layers, parse_overrides, read_layers
        from rtdetrv2_pytorch.src.report.report_source import report_source
        from rtdetrv2_pytorch.src.report.training_report import write_report
        from rtdetrv2_pytorch.src.solver import DetSolver
        from rtdetrv2_pytorch.src.solver.run import MODEL_CONFIG

        from ..terminal.training_view import TrainingFollower, print_metrics
        from ..training.finished_run import open_run
        from .train import LOG_FILE

    def report(console: Console, log: CommandLog) -> int:
        cfg = open_run(run, data=data, device=device, overrides=parse_overrides(update))
        log.open_in(run, LOG_FILE, option="run")
        weights = Path(cfg.yaml_cfg["resume"]).name
        print_headline(console, "Reporting", f"on {run}; evaluating {weights}")
        with LiveLine(console) as line:
            line.show("building the network and loading the data")
            evaluation = DetSolver(cfg, events=TrainingFollower(console, line)).val()
            print_metrics(console, evaluation.as_dict(), weights)
            line.show("writing the report")
            # The report shows the configuration of the training, without the overrides used here.
            trained = merge_layers(read_layers(run / MODEL_CONFIG))
            source = replace(report_source(cfg, run, evaluation), config=trained)
            try:
                path = write_report(source)
            except OSError as error:
                raise ConfigError(
                    f"{run}: not writable ({error.strerror}); copy the run to another folder"
                ) from error
        for each in (path, run / LOG_FILE):
            print_path(console, each)
        return 0

    return run_logged(report)

"""Write the report of a finished run again; see --help."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from ..terminal.command import PATH, Command, update_option
from ..terminal.command_log import CommandLog, run_logged
from ..terminal.console import LiveLine, print_headline, print_path, starting

if TYPE_CHECKING:
    from rtdetrv2_pytorch.src.core import YAMLConfig

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
        from rtdetrv2_pytorch.src.core.yaml_files import merge_layers, read_layers
        from rtdetrv2_pytorch.src.report.report_source import report_source
        from rtdetrv2_pytorch.src.report.training_report import write_report
        from rtdetrv2_pytorch.src.solver import DetSolver
        from rtdetrv2_pytorch.src.solver.run import MODEL_CONFIG

        from ..terminal.training_view import TrainingFollower, print_metrics
        from .train import LOG_FILE

    def report(console: Console, log: CommandLog) -> int:
        cfg = _configure(run, data, device, update)
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
                raise ConfigError(f"{run}: not writable ({error.strerror})") from error
        for each in (path, run / LOG_FILE):
            print_path(console, each)
        return 0

    return run_logged(report)


def _configure(
    run: Path, data: Path | None, device: str | None, update: tuple[str, ...]
) -> "YAMLConfig":
    """Open the configuration of a run with its best weights."""
    from rtdetrv2_pytorch.src.core import ConfigError, YAMLConfig
    from rtdetrv2_pytorch.src.core.error_places import naming_overrides
    from rtdetrv2_pytorch.src.core.yaml_files import merge, parse_overrides
    from rtdetrv2_pytorch.src.data.splits import CONVERTED, find_splits
    from rtdetrv2_pytorch.src.solver.checkpointing import BEST, LAST
    from rtdetrv2_pytorch.src.solver.run import MODEL_CONFIG

    from ..training.auto_config import data_overrides

    config = run / MODEL_CONFIG
    weights = [path for path in (run / BEST, run / LAST) if path.is_file()]
    if not config.is_file() or not weights:
        raise ConfigError(
            f"{run}: not the folder of a run, which has {MODEL_CONFIG} and {BEST}; give the "
            "output folder of a training"
        )
    # The device of the training may not exist on this machine.
    overrides: dict[str, Any] = {"resume": str(weights[0]), "tuning": "", "device": device}
    if data is not None:
        splits = find_splits(data, run / CONVERTED)
        overrides = merge(data_overrides(splits.train, splits.val), overrides)
    with naming_overrides("-u"):
        return YAMLConfig(config, **merge(overrides, parse_overrides(update)))

"""What the command line that makes a report anew does; `report` has its options."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ..src.core import ConfigError, YAMLConfig
from ..src.core.yaml_files import merge, merge_layers, parse_overrides, read_layers
from ..src.data.splits import find_splits
from ..src.report.training_report import report_source, write_report
from ..src.solver import DetSolver
from ..src.solver.checkpointing import BEST, LAST
from ..src.solver.solver import MODEL_CONFIG
from . import recipe
from .command import run_command
from .command_log import CommandLog
from .console import LiveLine, print_headline, print_path
from .training import LOG_FILE
from .training_view import TrainingFollower, print_metrics


def _configure(args: argparse.Namespace) -> YAMLConfig:
    config = args.run / MODEL_CONFIG
    weights = [path for path in (args.run / BEST, args.run / LAST) if path.is_file()]
    if not config.is_file() or not weights:
        raise ConfigError(
            f"{args.run}: is no folder of a run: it needs {MODEL_CONFIG} and {BEST}; give the "
            "output folder of a training"
        )
    # The device of then need not be there now.
    overrides: dict[str, Any] = {"resume": str(weights[0]), "tuning": "", "device": args.device}
    if args.data is not None:
        splits = find_splits(args.data)
        overrides = merge(recipe.data_overrides(splits.train, splits.val), overrides)
    return YAMLConfig(config, **merge(overrides, parse_overrides(args.update)))


def _as_trained(run: Path) -> dict[str, Any]:
    """The configuration of the run, without what was changed to evaluate it here."""
    values: dict[str, Any] = merge_layers(read_layers(run / MODEL_CONFIG))
    return values


def run(args: argparse.Namespace) -> int:
    """Evaluate the run's weights and write its report; returns the exit status."""

    def make_report(console: Console, log: CommandLog) -> int:
        cfg = _configure(args)
        log.open_in(args.run, LOG_FILE, option="run")
        weights = Path(cfg.yaml_cfg["resume"]).name
        print_headline(console, "Reporting", f"on {args.run}, {weights} evaluated again")
        with LiveLine(console) as line:
            line.show("preparing the network and the data")
            evaluation = DetSolver(cfg, events=TrainingFollower(console, line)).val()
            print_metrics(console, evaluation.as_dict(), weights)
            line.show("writing the report")
            source = report_source(cfg, args.run, evaluation)
            try:
                path = write_report(replace(source, config=_as_trained(args.run)))
            except OSError as error:
                raise ConfigError(f"{args.run}: cannot be written ({error.strerror})") from error
        for each in (path, args.run / LOG_FILE):
            print_path(console, each)
        return 0

    return run_command(make_report)

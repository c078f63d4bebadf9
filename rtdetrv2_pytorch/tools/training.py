"""What the command line of the trainer does; `train` has its options."""

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from ..src.core import ConfigError, YAMLConfig
from ..src.core.yaml_files import get, merge, parse_overrides
from ..src.data.digits import make_digits_dataset
from ..src.data.finding_kinds import Severity
from ..src.data.splits import find_splits
from ..src.doctor.cache import default_folder
from ..src.doctor.examination import Options
from ..src.misc import distributed
from ..src.misc.errors import DatasetError
from ..src.solver import DetSolver
from ..src.solver.solver import MODEL_CONFIG
from . import recipe
from .command import run_command
from .command_log import CommandLog
from .console import LiveLine, print_headline, print_notice, print_path
from .examining import examine_folder, print_report
from .training_view import TrainingFollower, print_metrics

LOG_FILE = "train.log"


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """What the options change in the configuration."""
    values: dict[str, Any] = {}
    for name in ("device", "use_amp", "seed", "tuning", "resume", "output_dir"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    return merge(values, parse_overrides(args.update))


def configure(args: argparse.Namespace, console: Console, line: LiveLine) -> YAMLConfig:
    """Turn the command line into a checked configuration.

    With a configuration file, that file and the options decide. A resumed run brings its own.
    Without either, weights are looked for, and on a CPU a size and a number of epochs are chosen
    that end soon.
    """
    overrides = overrides_of(args)
    if args.resume and args.config is None:
        beside = Path(args.resume).parent / MODEL_CONFIG
        args.config = beside if beside.is_file() else None
    if args.sample:
        folder = Path("data", "digits")
        line.show("making the sample data set")
        make_digits_dataset(folder)
        args.data = folder
    if args.data is not None:
        splits = find_splits(args.data)
        overrides = merge(recipe.data_overrides(splits.train, splits.val), overrides)
        if splits.note:
            print_notice(console, splits.note)
    if args.config is not None:
        return YAMLConfig(args.config, **overrides)

    if args.data is None:
        raise ConfigError(f"{args.resume}: no {MODEL_CONFIG} beside it; give its configuration, -c")
    config = recipe.SAMPLE_CONFIG if args.sample else recipe.DEFAULT_CONFIG
    if "output_dir" not in overrides and not args.sample:
        overrides["output_dir"] = str(Path("output", args.data.resolve().name))
    if not (args.tuning or args.resume):
        line.show("looking for weights to start from")
        chosen, told = recipe.initial_weights()
        print_notice(console, told)
        overrides = merge(chosen, overrides)
    device = str(overrides.get("device") or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device == "cpu" and not args.test_only:
        line.show("timing a few steps to choose what fits this machine")
        overrides, told = recipe.fit_to_cpu(config, overrides)
        print_notice(console, told)
    return YAMLConfig(config, **overrides)


def examine_data(
    args: argparse.Namespace, cfg: YAMLConfig, console: Console, line: LiveLine
) -> None:
    """Say what is wrong with the data before anything is trained on it.

    Raises:
        DatasetError: if it cannot be trained on.
    """
    options = Options(
        size_hw=tuple(cfg.yaml_cfg.get("eval_spatial_size") or Options.size_hw),
        num_queries=get(cfg.yaml_cfg, ("RTDETRTransformerv2", "num_queries"))
        or Options.num_queries,
        cache=default_folder(),
    )
    splits = find_splits(args.data)
    name = args.data.resolve().name
    report, paths = examine_folder(console, line, name, splits, options, cfg.output_dir)
    if any(group.kind.severity is not Severity.NOTE for group in report.groups()):
        print_report(console, report)
    for path in paths:
        print_path(console, path)
    if report.refusals:
        raise DatasetError(f"{report.refusals[0]}; {report.refusals[0].kind.remedy}")


def run(args: argparse.Namespace) -> int:
    """Train, or evaluate; returns the exit status."""

    def train(console: Console, log: CommandLog) -> int:
        try:
            with LiveLine(console) as line:
                _train(args, console, log, line)
        except Exception as error:
            reported = distributed.report_failure(error)
            if reported is error:
                raise
            raise reported from error
        finally:
            distributed.shutdown()
        return 0

    return run_command(train)


def _train(args: argparse.Namespace, console: Console, log: CommandLog, line: LiveLine) -> None:
    cfg = configure(args, console, line)
    log.open_in(cfg.output_dir, LOG_FILE, option="output_dir =")
    is_first = os.environ.get("RANK", "0") == "0"  # the others wait for it to start
    if args.data and is_first and not (args.no_doctor or args.test_only or args.resume):
        examine_data(args, cfg, console, line)
    line.show("preparing the network and the data")
    solver = DetSolver(cfg, events=TrainingFollower(console, line))
    if args.test_only:
        if distributed.is_main():
            print_headline(console, "Evaluating", str(args.resume or args.tuning))
        evaluation = solver.val()
        if distributed.is_main():
            print_metrics(console, evaluation.as_dict(), "Validation")
    else:
        report = solver.fit().report
        if report is not None:
            print_path(console, report)
    if distributed.is_main():
        print_path(console, cfg.output_dir / LOG_FILE)

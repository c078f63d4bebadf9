"""Make the report of a run anew; see --help."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ..src.core import ConfigError, YAMLConfig
from ..src.core.yaml_files import merge, merge_layers, parse_overrides, read_layers
from ..src.data.layouts import find_splits
from ..src.misc.errors import RTDETRError
from ..src.report.training_report import REPORT, write_report
from ..src.solver import DetSolver
from ..src.solver.checkpointing import BEST, LAST
from ..src.solver.det_solver import MODEL_CONFIG
from ..src.solver.reporting import report_source
from . import recipe
from .console import ConsoleProgress, print_error, print_path, set_up_logging
from .options import add_update_option

_EXAMPLES = """
examples:
  python -m rtdetrv2_pytorch.tools.report output/my
  python -m rtdetrv2_pytorch.tools.report output/my --data my_coco_folder      # it has moved

The best weights are evaluated again on the validation split; what happened in training is read from
the run's log.
"""


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rtdetrv2_pytorch.tools.report",
        description=f"Make {REPORT} of a run anew.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="output folder of the run")
    parser.add_argument("--data", type=Path, help="folder of its data set, if it is elsewhere now")
    parser.add_argument("-d", "--device", help="cuda, cuda:1, cpu; default: a GPU if there is one")
    add_update_option(parser, of="a value of the configuration")
    return parser.parse_args(argv)


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit status."""
    args = parse_arguments(argv)
    console = Console(soft_wrap=True, highlight=False)
    set_up_logging(console)
    progress = ConsoleProgress(console)
    try:
        cfg = _configure(args)
        with progress:
            evaluation = DetSolver(cfg, events=progress).val()
        with console.status("writing the report"):
            source = report_source(cfg, args.run, evaluation)
            path = write_report(replace(source, config=_as_trained(args.run)))
    except RTDETRError as error:
        print_error(error)
        return 1
    except OSError as error:
        print_error(ConfigError(f"{args.run}: cannot be written ({error.strerror})"))
        return 1
    except KeyboardInterrupt:
        return 130
    print_path(console, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

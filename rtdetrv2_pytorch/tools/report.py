"""Make the report of a run anew; see --help."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .console import starting
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
        description="Make report.html of a run anew.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="output folder of the run")
    parser.add_argument("--data", type=Path, help="folder of its data set, if it is elsewhere now")
    parser.add_argument("-d", "--device", help="cuda, cuda:1, cpu; default: a GPU if there is one")
    add_update_option(parser, of="a value of the configuration")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit status."""
    args = parse_arguments(argv)
    with starting():
        from .reporting import run
    return run(args)


if __name__ == "__main__":
    sys.exit(main())

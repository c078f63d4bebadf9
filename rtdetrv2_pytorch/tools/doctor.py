"""Examine a data set before training; see --help."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .console import starting

_EXAMPLES = """
examples:
  python -m rtdetrv2_pytorch.tools.doctor --data my_coco_folder
  python -m rtdetrv2_pytorch.tools.doctor --data my_coco_folder --size 800x1333 --queries 500

The exit status is 0 if the data can be trained on, 1 if the trainer would refuse it.
"""


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rtdetrv2_pytorch.tools.doctor",
        description="Say what is wrong with a data set, and what the trainer does about it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of a COCO data set, its splits are found"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        help="folder for data_report.json and data_report.html; default: the current one",
    )
    parser.add_argument(
        "--size",
        dest="size_hw",
        type=_size,
        metavar="HxW",
        help="height and width of the images in training; default: 640x640",
    )
    parser.add_argument(
        "--queries", dest="num_queries", type=_positive, help="of the model; default: 300"
    )
    parser.add_argument("--no-cache", action="store_true", help="decode every image again")
    parser.add_argument("--workers", type=_positive, help="images decoded at once")
    return parser.parse_args(argv)


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.lower().partition("x")
    if not cross:
        raise argparse.ArgumentTypeError(f"{text!r}: give height x width, for example 640x640")
    return _positive(height), _positive(width)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number above 0")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit status."""
    args = parse_arguments(argv)
    with starting():
        from .examining import run
    return run(args)


if __name__ == "__main__":
    sys.exit(main())

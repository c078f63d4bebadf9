"""Train and evaluate from the command line; see --help."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .console import starting
from .options import add_update_option

_EXAMPLES = """
examples:
  python -m rtdetrv2_pytorch.tools.train --data my_coco_folder
  python -m rtdetrv2_pytorch.tools.train -c my.yml -u epoches=20 -u optimizer.lr=0.0002
  python -m rtdetrv2_pytorch.tools.train -c my.yml -r output/last.pth
  python -m rtdetrv2_pytorch.tools.train -c my.yml -r output/best.pth --test-only
"""


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m rtdetrv2_pytorch.tools.train",
        description="Train RT-DETRv2.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-c", "--config", type=Path, help="YAML file; without it, RT-DETRv2-S and what fits here"
    )
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--data", type=Path, help="folder of a COCO data set, its splits are found")
    data.add_argument(
        "--sample", action="store_true", help="a small data set of digits, made on the spot"
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("-r", "--resume", help="checkpoint of a run to go on with")
    weights.add_argument("-t", "--tuning", help="checkpoint whose weights to start from")
    parser.add_argument("-d", "--device", help="cuda, cuda:1, cpu; default: a GPU if there is one")
    amp = parser.add_mutually_exclusive_group()
    amp.add_argument("--use-amp", action="store_true", default=None, help="mixed precision")
    amp.add_argument("--no-amp", dest="use_amp", action="store_false", help="float32 throughout")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--output-dir", type=Path)
    parser.add_argument(
        "--no-doctor", action="store_true", help="do not examine the images of --data first"
    )
    parser.add_argument("--test-only", action="store_true", help="evaluate, do not train")
    add_update_option(parser, of="a value of the configuration")
    args = parser.parse_args(argv)
    if not (args.config or args.data or args.sample or args.resume):
        parser.error("give a configuration (-c), a data set (--data), --sample, or -r to go on")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit status."""
    args = parse_arguments(argv)
    with starting():
        from .training import run
    return run(args)


if __name__ == "__main__":
    sys.exit(main())

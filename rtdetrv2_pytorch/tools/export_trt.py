"""Build a TensorRT engine from a checkpoint, compared with PyTorch; see --help."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .console import starting
from .options import export_parser

_EXAMPLES = """
An engine runs on the kind of GPU and the version of TensorRT that it was built with.

examples:
  python -m rtdetrv2_pytorch.tools.export_trt -r output/best.pth --data my_coco_folder
  python -m rtdetrv2_pytorch.tools.export_trt -r output/best.pth --fp32 --batch-sizes 1 8 32
"""


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = export_parser("export_trt", "Build a TensorRT engine from a checkpoint.", _EXAMPLES)
    parser.add_argument("--fp32", action="store_true", help="float32 throughout")
    parser.add_argument(
        "--batch-sizes",
        type=int,
        nargs=3,
        default=(1, 1, 16),
        metavar=("MIN", "USUAL", "MAX"),
        help="batches that the engine takes (1 1 16)",
    )
    parser.add_argument(
        "--timing-cache", type=Path, help="file that makes the next build faster; written again"
    )
    parser.add_argument("-d", "--device", default="cuda", help="cuda, cuda:1 (%(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit status."""
    args = parse_arguments(argv)
    with starting():
        from ..src.deploy.export import export_tensorrt
        from .exporting import run
    export = partial(
        export_tensorrt,
        precision="fp32" if args.fp32 else "fp16",
        batch_sizes=tuple(args.batch_sizes),
        timing_cache=args.timing_cache,
        device=args.device,
    )
    return run(args, ".engine", export)


if __name__ == "__main__":
    sys.exit(main())

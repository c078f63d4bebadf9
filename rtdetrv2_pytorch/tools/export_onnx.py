"""Export a checkpoint to ONNX, compared with PyTorch; see --help."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from .console import starting
from .options import export_parser

_EXAMPLES = """
examples:
  python -m rtdetrv2_pytorch.tools.export_onnx -r output/best.pth --data my_coco_folder
  python -m rtdetrv2_pytorch.tools.export_onnx -r output/best.pth --fp16 --data my_coco_folder
  python -m rtdetrv2_pytorch.tools.export_onnx -r output/best.pth --nms-iou 0.7 --images a.jpg
"""


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = export_parser("export_onnx", "Export a checkpoint to one ONNX file.", _EXAMPLES)
    parser.add_argument("--opset", type=int, help="ONNX operators; default: the oldest that do")
    parser.add_argument(
        "--exporter",
        choices=("torchscript", "dynamo"),
        default="torchscript",
        help="of torch; both give the same results (%(default)s)",
    )
    parser.add_argument("--no-slim", action="store_true", help="leave the graph as torch wrote it")
    parser.add_argument("--fp16", action="store_true", help="16 bits where that is safe")
    parser.add_argument(
        "--discrete", action="store_true", help="sample without GridSample; accuracy drops a little"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns the exit status."""
    args = parse_arguments(argv)
    with starting():
        from ..src.deploy.export import export_onnx
        from ..src.deploy.onnx import OPSET
        from .exporting import run
    export = partial(
        export_onnx,
        opset=OPSET if args.opset is None else args.opset,
        exporter=args.exporter,
        slim=not args.no_slim,
        precision="fp16" if args.fp16 else "fp32",
    )
    return run(args, ".onnx", export)


if __name__ == "__main__":
    sys.exit(main())

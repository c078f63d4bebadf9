"""Export a checkpoint to ONNX and compare it with PyTorch; see --help."""

from functools import partial
from typing import Any, Literal

import click

from ..terminal.command import Command
from ..terminal.console import starting
from .export_options import EXCLUSIVE, OPTIONS, run_export

_EXAMPLES = """
examples:
  rtdetrv2 export output/best.pth --data my_dataset
  rtdetrv2 export output/best.pth --fp16 --data my_dataset
  rtdetrv2 export output/best.pth --nms-iou 0.7 --images a.jpg
"""


@click.command(cls=Command, epilog=_EXAMPLES, params=[*OPTIONS], exclusive=EXCLUSIVE)
@click.option("--opset", type=int, help="ONNX opset.  [default: the lowest that works]")
@click.option(
    "--exporter",
    type=click.Choice(("torchscript", "dynamo")),
    default="torchscript",
    show_default=True,
    help="Exporter of torch; both give the same results.",
)
@click.option("--no-slim", is_flag=True, help="Do not simplify the graph.")
@click.option("--fp16", is_flag=True, help="Use float16 where it is safe.")
@click.option(
    "--no-grid-sample",
    is_flag=True,
    help="Use basic operators in place of GridSample, with the same results.",
)
@click.option(
    "--discrete", is_flag=True, help="Sample without GridSample; slightly lower accuracy."
)
def main(
    *,
    opset: int | None,
    exporter: Literal["torchscript", "dynamo"],
    no_slim: bool,
    fp16: bool,
    no_grid_sample: bool,
    discrete: bool,
    **options: Any,
) -> int:
    """Export a checkpoint to one ONNX file."""
    with starting():
        from rtdetrv2_pytorch.src.deploy.export import export_onnx
        from rtdetrv2_pytorch.src.deploy.onnx import OPSET
    export = partial(
        export_onnx,
        opset=OPSET if opset is None else opset,
        exporter=exporter,
        slim=not no_slim,
        precision="fp16" if fp16 else "fp32",
        grid_sample=not no_grid_sample,
    )
    return run_export(".onnx", export, discrete=discrete, **options)

"""Build a TensorRT engine from a checkpoint and compare it with PyTorch; see --help."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from ..terminal.command import PATH, Command
from ..terminal.console import starting
from .export_options import EXCLUSIVE, OPTIONS, run_export

_EXAMPLES = """
An engine runs only on the GPU model and TensorRT version that it was built with.

examples:
  rtdetrv2 export output/best.pth --format tensorrt --data my_dataset
  rtdetrv2 export output/best.onnx --format tensorrt --data my_dataset
  rtdetrv2 export output/best.pth --format tensorrt --fp32 --batch-sizes 1 8 32
"""


@click.command(cls=Command, epilog=_EXAMPLES, params=[*OPTIONS], exclusive=EXCLUSIVE)
@click.option("--fp32", is_flag=True, help="Use float32 for all layers.")
@click.option(
    "--batch-sizes",
    type=int,
    nargs=3,
    default=(1, 1, 16),
    metavar="MIN OPT MAX",
    help="Batch sizes that the engine accepts.  [default: 1 1 16]",
)
@click.option(
    "--timing-cache", type=PATH, help="File that speeds up later builds; read and updated."
)
@click.option(
    "--grid-sample",
    is_flag=True,
    help="Keep the operator GridSample, which TensorRT is reported to compute wrongly.",
)
@click.option("-d", "--device", default="cuda", show_default=True, help="cuda or cuda:1.")
def main(
    *,
    fp32: bool,
    batch_sizes: tuple[int, int, int],
    timing_cache: Path | None,
    grid_sample: bool,
    device: str,
    **options: Any,
) -> int:
    """Build a TensorRT engine from a checkpoint or an exported ONNX file."""
    with starting():
        from rtdetrv2_pytorch.src.deploy.export import export_tensorrt
    export = partial(
        export_tensorrt,
        precision="fp32" if fp32 else "fp16",
        batch_sizes=batch_sizes,
        timing_cache=timing_cache,
        grid_sample=grid_sample,
        device=device,
    )
    return run_export(".engine", export, **options)

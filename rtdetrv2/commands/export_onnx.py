"""Export a checkpoint to ONNX and compare it with PyTorch; see --help."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ..terminal.command import Command
from ..terminal.console import starting
from .export_options import EXCLUSIVE, OPTIONS, run_export

if TYPE_CHECKING:
    from rtdetrv2_pytorch.src.deploy.onnx import OnnxOptions

_EXAMPLES = """
examples:
  rtdetrv2 export output/best.pth --data my_dataset
  rtdetrv2 export output/best.pth --fp16 --data my_dataset
  rtdetrv2 export output/best.pth --nms-iou 0.7 --images a.jpg
  rtdetrv2 export output/best.pth --int8 --data my_dataset
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
    "--int8",
    is_flag=True,
    help="Quantize to INT8 with images of --data; also accepts a float32 ONNX file.",
)
@click.option(
    "--calibration-images",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Images of the training split, for --int8.",
)
@click.option(
    "--search-minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=5,
    show_default=True,
    help="Limit for the search of layers to keep in float32, for --int8.",
)
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
    int8: bool,
    calibration_images: int,
    search_minutes: float,
    no_grid_sample: bool,
    discrete: bool,
    **options: Any,
) -> int:
    """Export a checkpoint to one ONNX file."""
    with starting():
        from rtdetrv2_pytorch.src.deploy.export import export_onnx
        from rtdetrv2_pytorch.src.deploy.onnx import OPSET, OnnxOptions
    is_exported = options["resume"].lower().endswith(".onnx")
    if int8 and is_exported and (opset is not None or exporter != "torchscript" or no_slim):
        raise click.UsageError("--opset, --exporter and --no-slim need a checkpoint")
    graph: OnnxOptions = {
        "opset": OPSET if opset is None else opset,
        "exporter": exporter,
        "slim": not no_slim,
        "grid_sample": not no_grid_sample,
    }
    if int8:
        return _export_int8(graph, calibration_images, search_minutes, discrete=discrete, **options)
    graph["precision"] = "fp16" if fp16 else "fp32"
    return run_export(".onnx", partial(export_onnx, **graph), discrete=discrete, **options)


def _export_int8(
    graph: "OnnxOptions", calibration_images: int, search_minutes: float, **options: Any
) -> int:
    """Export with options of the graph, of the quantization, and of `run_export`."""
    data: Path | None = options["data"]
    if data is None:
        raise click.UsageError(
            "--int8 needs --data: images of the training split for calibration, and of the "
            "validation split to measure the loss of AP"
        )

    def export(source: Any, target: Path, **values: Any) -> Any:
        from rtdetrv2_pytorch.src.data.splits import CONVERTED, find_splits
        from rtdetrv2_pytorch.src.deploy.int8.export import export_int8

        return export_int8(
            source,
            target,
            data=find_splits(data, target.parent / CONVERTED),
            calibration_images=calibration_images,
            search_minutes=search_minutes,
            **graph,
            **values,
        )

    return run_export(".onnx", export, tag="_int8", **{**options, "data": None})

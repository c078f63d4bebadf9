"""Detect objects in images from the command line; see --help."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from ..terminal.command import PATH, Command, predictions_option
from ..terminal.command_log import CommandLog, run_logged
from ..terminal.console import starting

_EXAMPLES = """
examples:
  rtdetrv2 predict output/my/best.pth image.jpg
  rtdetrv2 predict best.onnx folder video.mp4 --score auto --runtime openvino
  rtdetrv2 predict RT-DETRv2-S https://example.com/image.jpg --classes person,car
  rtdetrv2 predict output/my folder --format coco --no-draw

MODEL is a checkpoint, ONNX file or TensorRT engine, the folder of a run or an experiment, or a
name such as RT-DETRv2-S. SOURCE is an image, a folder with its subfolders, a video or a URL.
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("model")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@predictions_option
@click.option(
    "--score",
    default="0.5",
    metavar="NUMBER|auto",
    show_default=True,
    help="Lowest score; auto: the best threshold of each class.",
)
@click.option("--nms-iou", type=float, help="Suppress boxes of the same class above this IoU.")
@click.option("--classes", metavar="NAME,...", help="Classes to keep.  [default: all]")
@click.option(
    "--format",
    "format_",
    type=click.Choice(("json", "coco", "supervisely")),
    default="json",
    show_default=True,
    help="Format of the results.",
)
@click.option("--no-draw", is_flag=True, help="Do not save images with boxes and names.")
@click.option(
    "--runtime",
    metavar="NAME",
    help="pytorch, onnxruntime, openvino or tensorrt.  [default: by the suffix of the file]",
)
@click.option("-d", "--device", help="cuda, cuda:1 or cpu.  [default: a GPU if available]")
@click.option(
    "-c", "--config", type=PATH, help="YAML file, for a checkpoint that does not contain one."
)
def main(
    *,
    model: str,
    sources: tuple[str, ...],
    output: Path,
    score: str,
    nms_iou: float | None,
    classes: str | None,
    format_: str,
    no_draw: bool,
    runtime: str | None,
    device: str | None,
    config: Path | None,
) -> int:
    """Detect objects in images, folders and videos."""
    with starting():
        from ..api.model_file import find_model
        from ..api.prediction import PredictionOptions
        from ..api.prediction_files import PredictionRun
        from ..api.prediction_formats import FORMATS

    def body(console: Console, log: CommandLog) -> int:
        del log
        options = PredictionOptions(
            score=_score(score),
            nms_iou=nms_iou,
            classes=[name.strip() for name in classes.split(",")] if classes else None,
        )
        file = find_model(model)
        if config is not None:
            file = replace(file, config=config)
        run = PredictionRun(
            console=console,
            sources=sources,
            output=output,
            write=FORMATS[format_](output),
            is_drawn=not no_draw,
        )
        return run.run(lambda: file.predictor(runtime, device), options)

    return run_logged(body, level=logging.WARNING)


def _score(text: str) -> Any:
    """Return a number, or the text, which `PredictionOptions` checks."""
    try:
        return float(text)
    except ValueError:
        return text

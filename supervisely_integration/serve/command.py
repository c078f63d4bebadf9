"""The command line of the serving app: `predict` and `deploy`; see --help."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rtdetrv2.terminal.command import PATH, Command, LazyGroup, ListOption, predictions_option
from rtdetrv2.terminal.command_log import CommandLog, run_logged
from rtdetrv2.terminal.console import print_error, starting

if TYPE_CHECKING:
    from rich.console import Console

COMMANDS = ("predict", "deploy")
_EXAMPLES = """
examples:
  python -m supervisely_integration.serve.main predict image.jpg --model best.pth --draw
  python -m supervisely_integration.serve.main predict folder --model best.onnx --runtime OpenVINO
  python -m supervisely_integration.serve.main predict image.jpg --settings conf=0.3 classes=car,bus
"""
_MODEL = (
    click.Option(
        ("--model",),
        help="Name of a published model, or a file.  [default: the first published model]",
    ),
    click.Option(
        ("--runtime",),
        help="PyTorch, ONNXRuntime, OpenVINO or TensorRT.  [default: by the suffix of the file]",
    ),
    click.Option(("--device",), help="cpu, cuda, cuda:1, ...  [default: a GPU if available]"),
)
_PLATFORM = (
    click.Option(("--project_id",), type=int, help="Predict a project of the platform."),
    click.Option(("--dataset_id",), help="Predict datasets of the platform: 505,506."),
    click.Option(("--image_id",), type=int, help="Predict an image of the platform."),
    click.Option(("--upload",), is_flag=True, help="Upload the predictions to the platform."),
)


@click.command(
    cls=Command,
    epilog=_EXAMPLES,
    params=[*_MODEL, *_PLATFORM],
    short_help="Detect objects in images.",
)
@click.argument("input_path", metavar="[INPUT]", type=PATH, required=False)
@predictions_option
@click.option("--draw", is_flag=True, help="Save images with boxes, class names and scores.")
@click.option(
    "--settings",
    cls=ListOption,
    metavar="KEY=VALUE...",
    help="confidence_threshold, nms_iou, classes; or the path of a YAML or JSON file of them.",
)
def predict(
    *,
    input_path: Path | None,
    output: Path,
    draw: bool,
    model: str | None,
    runtime: str | None,
    device: str | None,
    settings: tuple[str, ...],
    **platform: Any,
) -> int:
    """Detect objects in INPUT, an image or a folder of images, without the platform."""
    if any(platform.values()):
        return run_app()
    if input_path is None:
        raise click.UsageError("give an image, a folder, --project_id, --dataset_id or --image_id")
    with starting():
        from .local_prediction import Request, run

    def body(console: "Console", log: CommandLog) -> int:
        del log
        return run(Request(input_path, output, draw, model, runtime, device, settings), console)

    return run_logged(body, level=logging.WARNING)


@click.command(cls=Command, params=[*_MODEL], short_help="Serve a model over HTTP.")
@click.option("--host", help="Address to listen on.  [default: UVICORN_HOST, or 127.0.0.1]")
def deploy(**options: Any) -> int:
    """Serve a model on port 8000, without authentication."""
    del options  # the SDK parses them again
    return run_app()


def run_app() -> int:
    """Run the SDK's command line, with errors as one sentence; return the exit status."""
    with starting():
        from rtdetrv2_pytorch.src.misc.errors import RTDETRError

        from .rtdetrv2 import RTDETRv2
    try:
        RTDETRv2().serve()
    except (RTDETRError, OSError, ValueError, RuntimeError) as error:
        print_error(type(error).__name__, str(error))
        return 1
    return 0


group = LazyGroup(
    name="serve",
    help="Detect objects with a trained or published model.",
    lazy={name: f"{__name__}:{name}" for name in COMMANDS},
)

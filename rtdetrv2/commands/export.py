"""Export a checkpoint to any format; see --help."""

import copy
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ..terminal.command import Command
from . import export_onnx, export_trt
from .export_options import EXCLUSIVE

_FORMATS = {"onnx": export_onnx.main, "tensorrt": export_trt.main}
_SUFFIXES = {".engine": "tensorrt"}
_EXAMPLES = """
An engine runs only on the GPU model and TensorRT version that it was built with.

examples:
  rtdetrv2 export output/my/best.pth --data my_dataset
  rtdetrv2 export output/my/best.pth --fp16 --data my_dataset
  rtdetrv2 export output/my/best.pth --int8 --data my_dataset
  rtdetrv2 export output/my/best.pth --nms-iou 0.7 --images a.jpg
  rtdetrv2 export output/my/best.pth --format tensorrt --batch-sizes 1 8 32
"""


def _options() -> list[click.Parameter]:
    """Return the options of all formats; the help of some names their format."""
    options: dict[str, click.Parameter] = {}
    for name, command in _FORMATS.items():
        others = [c for other, c in _FORMATS.items() if other != name]
        shared = {p.name for other in others for p in other.params}
        for option in command.params:
            assert isinstance(option, click.Option) and option.name is not None
            if option.name == "resume" or option.name in options:
                continue
            if option.name not in shared:
                option = _of_format(option, name)
            options[option.name] = option
    return [*options.values()]


def _of_format(option: click.Option, name: str) -> click.Option:
    """Return a copy of an option whose help starts with its format."""
    copied = copy.copy(option)
    copied.help = f"{name}: {option.help}"
    return copied


@click.command(cls=Command, epilog=_EXAMPLES, exclusive=EXCLUSIVE)
@click.argument("model")
@click.option(
    "--format",
    "format_",
    type=click.Choice(tuple(_FORMATS)),
    help="Format of the result.  [default: by the suffix of --output, or onnx]",
)
@click.pass_context
def main(ctx: click.Context, /, *, model: str, format_: str | None, **values: Any) -> int:
    """Export MODEL, the path or URL of a checkpoint, and compare it with PyTorch."""
    output: Path | None = values["output"]
    suffix = "" if output is None else output.suffix.lower()
    chosen = format_ or _SUFFIXES.get(suffix, "onnx")
    command = _FORMATS[chosen]
    names = {option.name for option in command.params}
    for option in main.params:
        assert option.name is not None
        is_given = ctx.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
        if is_given and option.name not in {*names, "model", "format_"}:
            raise click.UsageError(
                f"{option.opts[-1]} is not an option of --format {chosen}; remove it", ctx
            )
    options = {name: value for name, value in values.items() if name in names}
    assert command.callback is not None
    return int(command.callback(resume=model, **options))


main.params += _options()

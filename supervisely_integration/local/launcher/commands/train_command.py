"""The `train` command: train on a project in the app; see --help."""

from typing import Any

import click

from rtdetrv2.terminal.command import PATH, Command, update_option
from rtdetrv2.terminal.command_log import CommandLog
from rtdetrv2.terminal.console import open_console, starting

from ..selection import EXPORTS
from ..train_options import TrainArguments, check_options
from .options import APP_PORT, ROOT


def _check_name(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    """Reject names that the SDK rejects, but only after the training has started."""
    if name is not None and (not name or any(each in name for each in "/\\")):
        raise click.BadParameter(f"{name!r}: use a name without / and \\", context, parameter)
    return name


_EXAMPLES = """
examples:
  rtdetrv2 local train
  rtdetrv2 local train --data my_folder --model RT-DETRv2-S --epochs 20
  rtdetrv2 local train --project my_folder --classes cat,dog --split random:90
  rtdetrv2 local train --project my_folder -u batch_size=8 augmentation=aerial
  rtdetrv2 local train --project my_folder --export onnx --speedtest
  rtdetrv2 local train --project my_folder --gui
  rtdetrv2 local train --task 7
"""


@click.command(
    cls=Command,
    epilog=_EXAMPLES,
    exclusive=(("project", "data", "sample"),),
    short_help="Train on a project, in the app.",
)
@click.option("--project", help="Name or ID of a project of the instance.")
@click.option("--data", type=PATH, help="Folder to import as a project first.")
@click.option("--sample", is_flag=True, help="Train on generated digits.")
@click.option("--model", help="Model of the app's table, such as RT-DETRv2-S.")
@click.option("--epochs", type=click.IntRange(min=1), help="Number of epochs.")
@click.option("--classes", help="Class names, separated by commas.  [default: all]")
@click.option(
    "--split", help="random:80 | datasets:a,b:c | tags:a:b; the training split comes first."
)
@click.option("--name", callback=_check_name, help="Experiment name.")
@update_option("a hyperparameter")
@click.option(
    "--benchmark/--no-benchmark",
    default=True,
    show_default=True,
    help="Evaluate the best checkpoint and upload a report.",
)
@click.option("--speedtest", is_flag=True, help="Include a speed test in the report.")
@click.option(
    "--export",
    type=click.Choice([*EXPORTS]),
    multiple=True,
    help="Export the best checkpoint. Repeatable.",
)
@click.option("--app-state", type=PATH, help="Use the app_state.json of an experiment.")
@click.option("--task", type=int, help="Resume this interrupted task.")
@click.option("--gui", is_flag=True, help="Serve the app's page and wait for its Start button.")
@APP_PORT
@ROOT
@click.pass_obj
def main(log: CommandLog, /, **values: Any) -> int:
    """Train on a project, in the app.

    Without --project, --data or --sample, train on generated digits.
    """
    options = TrainArguments(**values)
    check_options(options)
    with starting():
        from ..train_session import run
    return run(options, open_console(), log)

"""The options of `train`, apart from what it does, so that other commands start quickly."""

import argparse
from pathlib import Path

EXPORTS = {"onnx": "ONNXRuntime", "tensorrt": "TensorRT"}  # as typed -> as the SDK has it


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `train`."""
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--project", help="name or id of a project of the instance")
    data.add_argument("--data", type=Path, help="folder to import as a project first")
    data.add_argument("--sample", action="store_true", help="train on generated digits")
    parser.add_argument("--model", help="row of the app's table of models, such as RT-DETRv2-S")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--classes", help="names, separated by commas; default: all")
    parser.add_argument("--split", help="random:80 | datasets:a,b:c | tags:a:b, train first")
    parser.add_argument("--name", type=_experiment_name, help="of the experiment")
    parser.add_argument(
        "-u",
        "--update",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a hyperparameter; dots separate nested keys; repeatable",
    )
    parser.add_argument(
        "--benchmark",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="end with an evaluation report of the best checkpoint; default: yes",
    )
    parser.add_argument("--speedtest", action="store_true", help="with its speed in the report")
    parser.add_argument(
        "--export",
        choices=EXPORTS,
        action="append",
        default=[],
        help="convert the best checkpoint, too; may be repeated",
    )
    parser.add_argument(
        "--app-state", type=Path, help="app_state.json of an experiment, instead of choices"
    )
    parser.add_argument("--task", type=int, help="go on with this interrupted task")
    parser.add_argument("--gui", action="store_true", help="serve the app's page, and wait")
    parser.add_argument("--port", type=int, default=8000, help="of the app (default: %(default)s)")


def _experiment_name(text: str) -> str:
    """As the SDK has it, which says so only when the app trains."""
    if not text or any(each in text for each in "/\\"):
        raise argparse.ArgumentTypeError(f"{text!r}: give a name without / and \\")
    return text

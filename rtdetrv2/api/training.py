"""Train a model file with the options of `RTDETR.train`."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from rtdetrv2_pytorch.src.core.catalog import BACKBONES
from rtdetrv2_pytorch.src.interchange.folders import is_folder
from rtdetrv2_pytorch.src.misc.errors import ConfigError

from ..terminal.console import LiveLine, print_path
from ..terminal.training_steps import ConsoleProgress
from ..terminal.training_view import TrainingFollower
from ..training import run
from ..training.model_table import NONE
from ..training.options import TrainOptions
from .model_file import ModelFile
from .results import TrainingResult

_RANDOM_BACKBONE = [f"{name}.pretrained=False" for name in BACKBONES]


def train(
    file: ModelFile, options: dict[str, Any], console: Console, line: LiveLine
) -> TrainingResult:
    """Train; see `RTDETR.train`.

    Args:
        file: of the model.
        options: of `TrainOptions`, without model and weights.
        console: to print to.
        line: of the console.

    Raises:
        RTDETRError: if an option, the dataset or the model is invalid, or the training fails.
    """
    if None not in (options["epochs"], options["time_budget"]):
        raise ConfigError("train: give epochs or time_budget, not both")
    start = start_options(file, options.pop("update"))
    wanted = TrainOptions(**options, **start, update_name="update")
    assert wanted.folder is not None
    outcome = run.train(
        wanted,
        progress=ConsoleProgress(console, line),
        followers=[TrainingFollower(console, line)],
    )
    result = outcome.result
    assert result is not None
    if outcome.report is not None:
        print_path(console, outcome.report)
    return TrainingResult(
        folder=outcome.cfg.output_dir,
        data=wanted.folder.absolute(),
        best=result.checkpoints.get("best"),
        last=result.checkpoints.get("last"),
        report=outcome.report,
        metrics={} if result.best is None else result.best.as_dict(),
        best_epoch=result.best_epoch + 1,
        stopped=result.stopped,
    )


def start_options(file: ModelFile, update: Sequence[str]) -> dict[str, Any]:
    """Return the options for model and weights, and the other values of the configuration."""
    if file.path is None and file.size is not None:
        return {"model": file.size, "tuning": NONE, "update": update}
    if file.path is None:
        return {"config": file.config, "update": [*_RANDOM_BACKBONE, *update]}
    if not file.is_checkpoint:
        raise ConfigError(
            f"{file.path}: an exported file cannot be trained; open the checkpoint instead"
        )
    start = {"tuning": str(file.path), "update": update}
    if file.size is not None:
        return {"model": file.size, **start}
    if is_folder(file.path):
        return start
    return {"config": file.config or file.path, **start}

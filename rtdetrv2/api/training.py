"""Train a model file with the options of `RTDETR.train`."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from rtdetrv2_pytorch.src.solver.run import MODEL_CONFIG

from ..terminal.console import LiveLine, print_path
from ..terminal.training_steps import ConsoleProgress
from ..terminal.training_view import TrainingFollower
from ..training import run
from ..training.model_table import NONE
from ..training.options import TrainOptions
from .model_file import ModelFile
from .results import TrainingResult

_RANDOM_BACKBONE = ("PResNet.pretrained=False", "HGNetv2.pretrained=False")


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
    with start_options(file, options.pop("update")) as start:
        outcome = run.train(
            TrainOptions(**options, **start, update_name="update"),
            progress=ConsoleProgress(console, line),
            followers=[TrainingFollower(console, line)],
        )
    result = outcome.result
    assert result is not None
    if outcome.report is not None:
        print_path(console, outcome.report)
    return TrainingResult(
        folder=outcome.cfg.output_dir,
        best=result.checkpoints.get("best"),
        last=result.checkpoints.get("last"),
        report=outcome.report,
        metrics={} if result.best is None else result.best.as_dict(),
        best_epoch=result.best_epoch + 1,
        stopped=result.stopped,
    )


@contextmanager
def start_options(file: ModelFile, update: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the options for model and weights, and the other values of the configuration."""
    if file.path is None and file.size is not None:
        yield {"model": file.size, "tuning": NONE, "update": update}
    elif file.path is None:
        yield {"config": file.config, "update": [*_RANDOM_BACKBONE, *update]}
    elif not file.is_checkpoint:
        raise ConfigError(
            f"{file.path}: an exported file cannot be trained; open the checkpoint instead"
        )
    elif file.size is not None:
        yield {"model": file.size, "tuning": str(file.path), "update": update}
    elif file.config is not None:
        yield {"config": file.config, "tuning": str(file.path), "update": update}
    else:
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder, MODEL_CONFIG)
            config.write_text(yaml.safe_dump(_configuration(file.path)), encoding="utf-8")
            yield {"config": config, "tuning": str(file.path), "update": update}


def _configuration(checkpoint: Path) -> dict[str, Any]:
    """Return the configuration in a checkpoint.

    Raises:
        ConfigError: if it has none.
    """
    config = load_checkpoint(checkpoint).get("config")
    if not isinstance(config, dict):
        raise ConfigError(
            f"{checkpoint}: the checkpoint does not contain its configuration; open it as weights "
            'of its model, for example RTDETR("S", weights=...)'
        )
    return {key: value for key, value in config.items() if key not in ("resume", "tuning")}

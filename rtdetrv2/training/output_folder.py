"""Choice of the output folder: a training never replaces the results of another one."""

import os
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc import distributed
from rtdetrv2_pytorch.src.misc.errors import CheckpointError
from rtdetrv2_pytorch.src.misc.text import counted
from rtdetrv2_pytorch.src.misc.weights import load_checkpoint
from rtdetrv2_pytorch.src.solver.checkpointing import LAST, check_unused, has_results

from .progress import TrainingProgress


def choose_output(
    folder: Path, *, data: Path | None, progress: TrainingProgress
) -> tuple[Path, Path | None]:
    """Choose the output folder of a new training.

    An unused folder is taken as it is. If the folder contains an unfinished training on the same
    data, the user is asked whether to resume it. Otherwise, and always without a user to ask, a
    new folder such as `output/digits-2` is chosen.

    Args:
        folder: the wanted folder.
        data: the dataset, if it is given.
        progress: asks the question and reports the choice.

    Returns:
        The folder, and the checkpoint to resume, if any.

    Raises:
        ConfigError: if the folder is used and there are several ranks, which could choose
            differently.
    """
    if not has_results(folder) or _is_own_restart(folder):
        return folder, None
    if os.environ.get("WORLD_SIZE", "1") != "1":
        check_unused(folder, None)
    unfinished = _unfinished(folder, data)
    question = f"{folder} contains an unfinished training ({unfinished}). Resume it?"
    if unfinished and progress.confirm(question):
        return folder, folder / LAST
    new = _unused_name(folder)
    state = f"an unfinished training ({unfinished})" if unfinished else "another training"
    progress.notice(
        f"{folder} contains {state}: writing to {new}. To resume that training, add --resume; to "
        "delete its results, add --overwrite"
    )
    return new, None


def _is_own_restart(folder: Path) -> bool:
    """Return whether `torchrun` restarted the training in this folder."""
    run = distributed.run_id()
    return run is not None and _progress(folder).get("run") == run


def _unfinished(folder: Path, data: Path | None) -> str:
    """Describe the progress of an unfinished training on the same data; empty if there is none."""
    try:
        checkpoint = load_checkpoint(folder / LAST)
        epoch, config = checkpoint["progress"]["epoch"], checkpoint["config"]
        epochs = config["epoches"]
        images = Path(config["train_dataloader"]["dataset"]["img_folder"])
    except (CheckpointError, KeyError, TypeError):
        return ""
    if epoch >= epochs or (data and not images.resolve().is_relative_to(data.resolve())):
        return ""
    return f"{epoch} of {counted(epochs, 'epoch')}"


def _progress(folder: Path) -> dict[str, Any]:
    try:
        return load_checkpoint(folder / LAST).get("progress") or {}
    except CheckpointError:
        return {}


def _unused_name(folder: Path) -> Path:
    number = 2
    while (new := folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return new

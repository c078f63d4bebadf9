"""Interchange of `RTDETR` with `transformers`."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from rtdetrv2_pytorch.src.deploy.export import Source
from rtdetrv2_pytorch.src.deploy.transformers import export_transformers
from rtdetrv2_pytorch.src.interchange.folders import read_model
from rtdetrv2_pytorch.src.misc.errors import ConfigError

from .model_file import ModelFile


def saved(model: Any, processor: Any) -> TemporaryDirectory[str]:
    """Save an instance as `transformers.pth` in a temporary folder, which ends with its object.

    Raises:
        CheckpointError: if it is not RTDetrV2ForObjectDetection.
    """
    content = read_model(model, processor)
    folder = TemporaryDirectory(prefix="rtdetrv2-")
    torch.save(content, Path(folder.name, "transformers.pth"))
    return folder


def write(file: ModelFile, folder: Path) -> Path:
    """Write the model of a checkpoint for `transformers`; return the folder.

    Raises:
        ConfigError: if the file is not a checkpoint, or naming what `transformers` cannot hold.
    """
    if not file.is_checkpoint or file.path is None:
        raise ConfigError(
            f"{file.path}: only checkpoints can be written for transformers; open best.pth"
        )
    export_transformers(Source(checkpoint=file.path, config=file.config), folder)
    return folder

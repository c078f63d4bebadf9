"""TensorBoard, which the SDK starts by its bare name."""

import os
import sys
from pathlib import Path


def add_executables_to_path() -> None:
    """Add the folder of this Python's executables to PATH.

    `TrainApp._init_tensorboard` (supervisely/nn/training/train_app.py) starts `tensorboard`, which
    is not on PATH unless the virtual environment is activated.
    """
    folder = str(Path(sys.executable).parent)
    if folder not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join((folder, os.environ.get("PATH", "")))

"""Open a model file in a runtime, with interactive defaults."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rtdetrv2_pytorch.src.deploy.runtimes import Runtime, open_runtime
from rtdetrv2_pytorch.src.misc.errors import CheckpointError
from rtdetrv2_pytorch.src.solver.checkpointing import BEST


def model_file(model: str | Path) -> Path:
    """Return the file of a model: the file itself, or best.pth of the folder of a training.

    Raises:
        CheckpointError: if it does not exist.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        path = path / BEST
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; give a checkpoint (.pth), an export (.onnx, .engine), or the "
            "output folder of a training"
        )
    return path


def open_model(
    model: str | Path,
    runtime: str | None = None,
    *,
    device: str | None = None,
    config: Path | None = None,
    class_names: Sequence[str] | None = None,
    **options: Any,
) -> Runtime:
    """Open a model file.

    Args:
        model: see `model_file`.
        runtime: see `Runtime.kind`; default: by the suffix of the file.
        device: default: a GPU if there is one, but the CPU for OpenVINO.
        config: YAML file of the network, for checkpoints.
        class_names: in label order, for checkpoints.
        **options: see `open_runtime`.

    Raises:
        RTDETRError: if the file or the runtime cannot be used.
    """
    path = model_file(model)
    if device is None:
        device = "cuda" if torch.cuda.is_available() and runtime != "openvino" else "cpu"
    if path.suffix.lower() in (".pth", ".pt"):
        options |= {"config": config, "class_names": class_names}
    return open_runtime(path, runtime, device=device, **options)

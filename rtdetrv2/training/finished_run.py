"""The configuration of a finished training."""

from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.core import YAMLConfig
from rtdetrv2_pytorch.src.core.error_places import naming_overrides
from rtdetrv2_pytorch.src.core.yaml_files import merge
from rtdetrv2_pytorch.src.data.splits import CONVERTED, find_splits
from rtdetrv2_pytorch.src.misc.errors import ConfigError
from rtdetrv2_pytorch.src.solver.checkpointing import BEST, LAST
from rtdetrv2_pytorch.src.solver.run import MODEL_CONFIG

from .auto_config import data_overrides


def best_weights(run: Path) -> Path:
    """Return the best checkpoint of a run, or else its last one.

    Raises:
        ConfigError: if the folder is not that of a run.
    """
    weights = [path for path in (run / BEST, run / LAST) if path.is_file()]
    if not (run / MODEL_CONFIG).is_file() or not weights:
        raise ConfigError(
            f"{run}: not the folder of a run, which has {MODEL_CONFIG} and {BEST}; give the "
            "output folder of a training"
        )
    return weights[0]


def open_run(
    run: Path, *, data: Path | None, device: str | None, overrides: dict[str, Any] | None = None
) -> YAMLConfig:
    """Open the configuration of a run with its best weights.

    Args:
        run: output folder of the training.
        data: dataset folder, if it has moved since the training.
        device: default: a GPU if there is one; the device of the training may not exist here.
        overrides: other values of the configuration.

    Raises:
        ConfigError: if the folder is not that of a run.
        DatasetError: if `data` is not usable.
    """
    values: dict[str, Any] = {"resume": str(best_weights(run)), "tuning": "", "device": device}
    if data is not None:
        splits = find_splits(data, run / CONVERTED)
        values = merge(data_overrides(splits.train, splits.val), values)
    with naming_overrides("-u"):
        return YAMLConfig(run / MODEL_CONFIG, **merge(values, overrides or {}))

"""The files of a finished training, in the format that `TrainApp` uploads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc.errors import CheckpointError

BEST, LAST = "best", "last"


@dataclass(frozen=True, kw_only=True)
class ExperimentInfo:
    """A finished or stopped training."""

    model_name: str  # in the model table
    config: Path  # self-contained, without local paths
    checkpoints: Sequence[Path]
    best_checkpoint: str  # name of one of them

    @classmethod
    def from_checkpoints(
        cls, model_name: str, config: Path, checkpoints: Mapping[str, Path]
    ) -> "ExperimentInfo":
        """Describe the checkpoints of a training.

        The last checkpoint replaces the best one if the training was stopped before its first
        evaluation.

        Args:
            model_name: in the model table.
            config: the configuration to upload.
            checkpoints: files by name, as in `FitResult.checkpoints`.

        Raises:
            CheckpointError: if the checkpoint does not exist.
        """
        best = checkpoints.get(BEST) or checkpoints.get(LAST)
        if best is None:
            raise CheckpointError("the training saved no checkpoint; train for longer")
        return cls(
            model_name=model_name,
            config=config,
            checkpoints=tuple(checkpoints.values()),
            best_checkpoint=best.name,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the result that `TrainApp` expects from the training function."""
        return {
            "model_name": self.model_name,
            "task_type": "object detection",
            # `TrainApp._preprocess_artifacts` treats other keys as paths: use add_output_files.
            "model_files": {"config": str(self.config)},
            "checkpoints": [str(path) for path in self.checkpoints],
            "best_checkpoint": self.best_checkpoint,
        }

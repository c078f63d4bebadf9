"""What a training hands to the platform: which files there are, and which is the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc.errors import CheckpointError

BEST, LAST = "best", "last"
_SUFFIXES = (".pth", ".pt")  # of the files that the SDK takes for checkpoints


@dataclass(frozen=True, kw_only=True)
class ExperimentInfo:
    """A finished, or stopped, training.

    Raises:
        CheckpointError: if a file is not there, or the best checkpoint is not among them.
    """

    model_name: str  # as in the table of models
    config: Path  # self-contained, without paths of this machine
    checkpoints: Sequence[Path]
    best_checkpoint: str  # name of one of them
    task_type: str = "object detection"

    def __post_init__(self) -> None:
        for path in (self.config, *self.checkpoints):
            if not path.is_file():
                raise CheckpointError(
                    f"{path}: is not there; it may have been deleted, train again"
                )
        names = [path.name for path in self.checkpoints]
        if len(set(names)) < len(names):
            raise CheckpointError(
                f"checkpoints {sorted(names)} share a name and would overwrite each other in Team "
                "Files; rename one of them"
            )
        for name in names:
            if not name.endswith(_SUFFIXES):
                raise CheckpointError(f"{name}: is no checkpoint; give files that end in .pth")
        if self.best_checkpoint not in names:
            raise CheckpointError(
                f"{self.best_checkpoint}: is not among the checkpoints {names}; give one of them"
            )

    @classmethod
    def from_checkpoints(
        cls, model_name: str, config: Path, checkpoints: Mapping[str, Path]
    ) -> "ExperimentInfo":
        """Describe what a training left.

        A training that was stopped before its first evaluation has no best checkpoint: the last
        one takes its place.

        Args:
            model_name: as in the table of models.
            config: the configuration to upload.
            checkpoints: files by name, as in `FitResult.checkpoints`.

        Raises:
            CheckpointError: if there is none, or a file is not there.
        """
        best = checkpoints.get(BEST) or checkpoints.get(LAST)
        if best is None:
            raise CheckpointError("the training left no checkpoint to save; let it run for longer")
        return cls(
            model_name=model_name,
            config=config,
            checkpoints=tuple(checkpoints.values()),
            best_checkpoint=best.name,
        )

    def as_dict(self) -> dict[str, Any]:
        """What `TrainApp` expects of the training function."""
        return {
            "model_name": self.model_name,
            "task_type": self.task_type,
            # Of other model files the SDK takes the keys for paths: they go with add_output_files.
            "model_files": {"config": str(self.config)},
            "checkpoints": [str(path) for path in self.checkpoints],
            "best_checkpoint": self.best_checkpoint,
        }

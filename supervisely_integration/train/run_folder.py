"""The folder of a training that outlives the app's process, so that a relaunched task can resume.

The SDK deletes its working folder at every start, so this folder is its sibling. It belongs to one
task and to one training: the same project, classes, split, model and hyperparameters.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc.files import write_text

logger = logging.getLogger(__name__)

LAST = "last.pth"
_RECORD = "run.json"

# Images of a split in order: (dataset, name).
Items = list[tuple[str, str]]


@dataclass(frozen=True)
class SavedRun:
    """Settings that a training was started with."""

    fingerprint: str
    app_state: dict[str, Any]  # settings of the GUI, in the SDK's format
    train: Items
    val: Items


class RunFolder:
    """The folder of a task's training.

    Args:
        data_dir: folder that the agent keeps between two launches of a task.
        task_id: of the platform; -1 in development.
    """

    def __init__(self, data_dir: Path, task_id: int) -> None:
        self.path = data_dir / "runs" / str(task_id)

    @property
    def output(self) -> Path:
        """The engine's output directory."""
        return self.path / "output"

    @property
    def last_checkpoint(self) -> Path | None:
        """The checkpoint to resume from, if there is one."""
        path = self.output / LAST
        return path if path.is_file() else None

    def load(self) -> SavedRun | None:
        """Read the record of an earlier launch; None if there is none that can be used."""
        try:
            content = json.loads((self.path / _RECORD).read_text(encoding="utf-8"))
            for split in ("train", "val"):
                content[split] = [(str(dataset), str(name)) for dataset, name in content[split]]
            return SavedRun(**content)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("%s: not readable (%s); starting a new run", self.path, error)
            return None

    def begin(self, run: SavedRun) -> Path | None:
        """Assign the folder to this training, and delete another one's files.

        Returns:
            The checkpoint to resume from, if an earlier launch began the same training.
        """
        saved = self.load()
        if saved is not None and saved.fingerprint != run.fingerprint:
            logger.info(
                "%s holds a different training (project, classes, split, model or "
                "hyperparameters); starting a new run",
                self.path,
            )
        is_same = saved is not None and saved.fingerprint == run.fingerprint
        if not is_same or self.last_checkpoint is None:
            self.remove()
        self.output.mkdir(parents=True, exist_ok=True)
        write_text(self.path / _RECORD, json.dumps(asdict(run)))
        return self.last_checkpoint

    def remove(self, *, keep_checkpoint: bool = False) -> None:
        """Delete the folder, if it exists.

        Args:
            keep_checkpoint: keep a folder that a later launch can resume from.
        """
        if not (keep_checkpoint and self.last_checkpoint):
            shutil.rmtree(self.path, ignore_errors=True)


def fingerprint(
    *,
    project_id: int,
    classes: list[str],
    train: Items,
    val: Items,
    model: Mapping[str, Any],
    hyperparameters: Mapping[str, Any],
) -> str:
    """Hash everything that determines a training's numbers; order matters, formatting does not."""
    content = {
        "project_id": project_id,
        "classes": classes,
        "train": train,
        "val": val,
        "model": model,
        "hyperparameters": hyperparameters,
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()

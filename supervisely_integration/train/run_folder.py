"""What has to outlive the process: checkpoints, and what a relaunched task needs to go on.

The SDK wipes its working folder at every start, so this folder lies beside it. It belongs to a
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

logger = logging.getLogger(__name__)

LAST = "last.pth"
_RECORD = "run.json"

# Images of a split in their order: (dataset, name).
Items = list[tuple[str, str]]


@dataclass(frozen=True)
class SavedRun:
    """What a training was started with."""

    fingerprint: str
    app_state: dict[str, Any]  # settings of the GUI, in the SDK's form
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
        """Where the engine writes."""
        return self.path / "output"

    @property
    def last_checkpoint(self) -> Path | None:
        """What to go on from, if there is anything."""
        path = self.output / LAST
        return path if path.is_file() else None

    def load(self) -> SavedRun | None:
        """Read what is left of an earlier launch; None if it left nothing that can be used."""
        try:
            content = json.loads((self.path / _RECORD).read_text(encoding="utf-8"))
            for split in ("train", "val"):
                content[split] = [(str(dataset), str(name)) for dataset, name in content[split]]
            return SavedRun(**content)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("%s: cannot be used (%s); a new run starts", self.path, error)
            return None

    def begin(self, run: SavedRun) -> Path | None:
        """Make the folder that of this training.

        Returns:
            The checkpoint to go on from, if this very training was begun before.
        """
        saved = self.load()
        if saved is not None and saved.fingerprint != run.fingerprint:
            logger.info(
                "%s holds another training (project, classes, split, model or hyperparameters "
                "differ); a new run starts",
                self.path,
            )
        if saved is None or saved.fingerprint != run.fingerprint:
            self.remove()
        self.output.mkdir(parents=True, exist_ok=True)
        partial = self.path / f".{_RECORD}.partial"
        partial.write_text(json.dumps(asdict(run)), encoding="utf-8")
        partial.replace(self.path / _RECORD)
        return self.last_checkpoint

    def remove(self) -> None:
        """Delete the folder; safe to call twice."""
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
    """Name a training by all that decides its numbers; order counts, formatting does not."""
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

"""Pictures that were made while a run trained: where they lie, and how they come into the page."""

import base64
import re
from dataclasses import dataclass
from pathlib import Path

PICTURES = "pictures"  # in the folder of the run
TRAIN_NAME = "train_epoch{epoch:04d}_batch{batch}.jpg"
VAL_NAME = "val_epoch{epoch:04d}.jpg"
_TRAIN = re.compile(r"^train_epoch(\d{4,})_batch(\d+)\.jpg$")
_VAL = re.compile(r"^val_epoch(\d{4,})\.jpg$")
_MOST_TRAIN, _MOST_VAL = 2, 5  # in the page
_MOST_BYTES = 1_000_000  # of a file that is taken into the page


@dataclass(frozen=True)
class Snapshot:
    """A picture of the run's folder."""

    source: str  # data URI
    caption: str


def snapshots(folder: Path) -> list[Snapshot]:
    """The first batches, and the validation images in a few epochs from the first to the last."""
    try:
        names = sorted(path.name for path in (folder / PICTURES).iterdir())
    except OSError:
        return []
    train = [match for name in names if (match := _TRAIN.match(name))][:_MOST_TRAIN]
    val = [match for name in names if (match := _VAL.match(name))]
    shown = val
    if len(val) > _MOST_VAL:
        shown = [val[round(i * (len(val) - 1) / (_MOST_VAL - 1))] for i in range(_MOST_VAL)]
    captions = {
        **{m[0]: f"batch {int(m[2]) + 1} of epoch {int(m[1]) + 1}, augmented" for m in train},
        **{m[0]: f"validation images after epoch {int(m[1]) + 1}" for m in shown},
    }
    found = (_read(folder / PICTURES / name, caption) for name, caption in captions.items())
    return [snapshot for snapshot in found if snapshot is not None]


def remove_snapshots(folder: Path, first_epoch: int) -> None:
    """Remove what an earlier run left of epochs that are trained now.

    Args:
        folder: of the pictures.
        first_epoch: of the run.
    """
    for path in list(folder.iterdir()):
        match = _TRAIN.match(path.name) or _VAL.match(path.name)
        if match and int(match[1]) >= first_epoch:
            path.unlink()


def _read(path: Path, caption: str) -> Snapshot | None:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return None
    return Snapshot(f"data:image/jpeg;base64,{data}", caption)

"""Images saved during training: file names, and loading them for the report."""

import base64
import re
from dataclasses import dataclass
from pathlib import Path

SHEET_NAME = "augmentation_presets.jpg"
PICTURES = "pictures"  # directory in the output directory
TRAIN_NAME = "train_epoch{epoch:04d}_batch{batch}.jpg"
VAL_NAME = "val_epoch{epoch:04d}.jpg"
_TRAIN = re.compile(r"^train_epoch(\d{4,})_batch(\d+)\.jpg$")
_VAL = re.compile(r"^val_epoch(\d{4,})\.jpg$")
_MAX_TRAIN, _MAX_VAL = 2, 5  # shown in the report
_MAX_FILE_BYTES = 1_000_000


@dataclass(frozen=True)
class Snapshot:
    """A saved image with its caption."""

    source: str  # data URI
    caption: str


def snapshots(folder: Path) -> list[Snapshot]:
    """Load the first training batches and the validation images of evenly spaced epochs."""
    try:
        names = sorted(path.name for path in (folder / PICTURES).iterdir())
    except OSError:
        return []
    train = [match for name in names if (match := _TRAIN.match(name))][:_MAX_TRAIN]
    val = [match for name in names if (match := _VAL.match(name))]
    shown = val
    if len(val) > _MAX_VAL:
        shown = [val[round(i * (len(val) - 1) / (_MAX_VAL - 1))] for i in range(_MAX_VAL)]
    captions = {
        **{m[0]: f"batch {int(m[2]) + 1} of epoch {int(m[1]) + 1}, augmented" for m in train},
        **{m[0]: f"validation images after epoch {int(m[1]) + 1}" for m in shown},
    }
    found = (_read(folder / PICTURES / name, caption) for name, caption in captions.items())
    return [snapshot for snapshot in found if snapshot is not None]


def preset_sheet(folder: Path) -> Snapshot | None:
    """Load the picture of the augmentation presets, if there is one."""
    return _read(folder / PICTURES / SHEET_NAME, "augmentation presets on images of this training")


def remove_snapshots(folder: Path, first_epoch: int) -> None:
    """Remove images of the epochs from `first_epoch` on, left by an earlier run."""
    for path in list(folder.iterdir()):
        match = _TRAIN.match(path.name) or _VAL.match(path.name)
        if match and int(match[1]) >= first_epoch:
            path.unlink()


def _read(path: Path, caption: str) -> Snapshot | None:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            return None
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return None
    return Snapshot(f"data:image/jpeg;base64,{data}", caption)

"""Checkpoint files: names, atomic writes, and which content each file holds."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..misc.errors import CheckpointError, ConfigError
from ..misc.files import FolderLock, remove_partial_files, replacing
from ..misc.weights import load_checkpoint, locate

FORMAT_VERSION = 1
LAST, BEST = "last.pth", "best.pth"
_RESULTS = (
    LAST,
    BEST,
    "checkpoint[0-9]*.pth",
    "log.jsonl",
    "report.html",
    "label_radar.json",
    "pictures/*",
    "summary/*",
)
_RESUME_KEYS = ("optimizer", "lr_scheduler", "lr_warmup_scheduler", "scaler", "progress")


def write_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Save to a temporary file, flush it to disk, then rename it.

    Raises:
        CheckpointError: if the file cannot be written; an existing file stays unchanged.
    """
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error}); free space or choose another output_dir. "
            "Existing checkpoints are unchanged"
        ) from error


def lock_output(folder: Path) -> FolderLock:
    """Return the lock that reserves an output folder for one training."""
    return FolderLock(
        folder, remedy="wait until it has finished, stop it, or choose another output_dir"
    )


def has_results(folder: Path) -> bool:
    """Return whether an output folder contains files of a training."""
    return (folder / LAST).is_file() or (folder / BEST).is_file()


def check_unused(folder: Path, resumed: str | None) -> None:
    """Check that an output folder has no results of a training other than the resumed one.

    Raises:
        ConfigError: if it has.
    """
    is_own = resumed is not None and Path(resumed).parent.resolve() == folder.resolve()
    if has_results(folder) and not is_own:
        resume = "resume that training (resume, --resume), "
        if not (folder / LAST).is_file():
            resume = f"start from its weights (tuning = {folder / BEST}; it has no {LAST}), "
        raise ConfigError(
            f"{folder}: contains the results of another training; choose another output_dir, "
            f"{resume}or delete its results (overwrite, --overwrite)"
        )


def remove_results(folder: Path) -> None:
    """Delete the results of a training."""
    for path in [path for pattern in _RESULTS for path in folder.glob(pattern)]:
        path.unlink(missing_ok=True)


class CheckpointWriter:
    """Writes `last.pth`, `best.pth` and `checkpointNNNN.pth`.

    `last.pth` always holds the complete state for a resume. The others hold the evaluated weights
    under "model": the EMA weights, if there are any. With `save_ema`, "model" holds the raw
    weights and "ema" the EMA weights. `save_optimizer` adds the state for a resume.

    Args:
        folder: output directory.
        checkpoint_freq: epochs between two numbered files; 0: none.
        keep_last: numbered files to keep; 0: all.
        save_optimizer: see above.
        save_ema: see above.
    """

    def __init__(
        self,
        folder: Path,
        *,
        checkpoint_freq: int,
        keep_last: int,
        save_optimizer: bool,
        save_ema: bool,
    ) -> None:
        self.folder = folder
        self.checkpoint_freq = checkpoint_freq
        self.keep_last = keep_last
        self.save_optimizer = save_optimizer
        self.save_ema = save_ema

    def check_space(self, model: nn.Module, epochs: int) -> None:
        """Compare the free disk space with the size of all files of the run.

        Raises:
            CheckpointError: if the space does not suffice or the folder is not writable.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".write_probe"
            probe.touch()
            probe.unlink()
            remove_partial_files(self.folder)
        except OSError as error:
            raise CheckpointError(
                f"{self.folder}: cannot be written ({error.strerror}); choose another output_dir"
            ) from error
        weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
        trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        full = 2 * weights + 2 * trained  # model, EMA, two optimizer moments
        kept = weights * (2 if self.save_ema else 1) + (2 * trained if self.save_optimizer else 0)
        numbered = epochs // self.checkpoint_freq if self.checkpoint_freq else 0
        if self.keep_last:
            numbered = min(numbered, self.keep_last + 1)
        needed = (
            2 * full + (2 + numbered) * kept
        )  # a new file is written before the old one is replaced
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise CheckpointError(
                f"{self.folder}: {free / 2**30:.1f} GiB are free, but this run can write up to "
                f"{needed / 2**30:.1f} GiB; free space, choose another output_dir, or keep fewer "
                f"files (checkpoint_freq = {self.checkpoint_freq}, keep_last = {self.keep_last}, "
                "0 keeps all)"
            )

    def restore_best(self, resumed: str, *, epoch: int, ap: float) -> bool:
        """Find `best.pth` of a resumed run, or write it.

        It is copied if the run used another folder. If the process was killed between writing
        `last.pth` and `best.pth`, the resumed checkpoint holds the best weights.

        Args:
            resumed: the resumed checkpoint.
            epoch: the best epoch in its state.
            ap: the AP of that epoch.

        Returns:
            Whether this folder has the `best.pth` of this epoch.
        """
        target, source = self.folder / BEST, locate(resumed)
        for path in (target, source.with_name(BEST), source):
            content = load_checkpoint(path) if path.is_file() else {}
            metrics = content.get("metrics", {})
            if (content.get("last_epoch"), metrics.get("AP")) == (epoch, ap):
                if path == source:
                    self.save_best(content)
                elif path != target:
                    write_atomically(content, target)
                return True
        return False

    def save_last(self, state: Mapping[str, Any]) -> None:
        """Write the complete state to `last.pth`."""
        write_atomically(state, self.folder / LAST)

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Write `best.pth`."""
        write_atomically(self._reduced(state), self.folder / BEST)

    def save_numbered(self, state: Mapping[str, Any], epoch: int) -> None:
        """Write `checkpointNNNN.pth` every `checkpoint_freq` epochs; delete the oldest ones."""
        if not self.checkpoint_freq or (epoch + 1) % self.checkpoint_freq:
            return
        write_atomically(self._reduced(state), self.folder / f"checkpoint{epoch:04d}.pth")
        if self.keep_last:
            for old in self.numbered()[: -self.keep_last]:
                old.unlink(missing_ok=True)

    def numbered(self) -> list[Path]:
        """Return the numbered files, oldest first."""
        return sorted(self.folder.glob("checkpoint[0-9][0-9][0-9][0-9].pth"))

    def files(self) -> dict[str, Path]:
        """Return the existing files by name: last, best, checkpointNNNN."""
        candidates = [self.folder / LAST, self.folder / BEST, *self.numbered()]
        return {path.stem: path for path in candidates if path.is_file()}

    def _reduced(self, state: Mapping[str, Any]) -> dict[str, Any]:
        reduced = dict(state)
        ema = reduced.get("ema")
        if ema is not None and not self.save_ema:
            reduced["model"] = ema["module"]
            reduced.pop("ema")
        if not self.save_optimizer:
            for key in _RESUME_KEYS:
                reduced.pop(key, None)
        return reduced

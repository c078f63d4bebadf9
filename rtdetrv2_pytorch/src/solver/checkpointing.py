"""Which checkpoints are written when, and that none of them is ever half a file."""

import contextlib
import copy
import datetime
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.yaml_config import YAMLConfig
from ..data.metrics.evaluator import Evaluation
from ..misc import distributed
from ..misc.errors import CheckpointError
from ..misc.weights import load_checkpoint, locate
from ..optim.ema import unwrap
from .setup import Position
from .step import TrainState

FORMAT_VERSION = 1
LAST, BEST = "last.pth", "best.pth"
_RESUMED_FROM = ("optimizer", "lr_scheduler", "lr_warmup_scheduler", "scaler", "progress")


def write_atomically(content: Mapping[str, Any], path: Path) -> None:
    """Save under a temporary name, flush to the disk, then rename.

    Raises:
        CheckpointError: if it cannot be written; a file of that name is left as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path}: cannot be written ({error}); free space or choose another output_dir. "
            "Checkpoints that were there are untouched"
        ) from error


def written_by(path: Path, run: str) -> bool:
    """Whether a checkpoint is one of this run, from before it was started again."""
    if not path.is_file():
        return False
    return bool((load_checkpoint(path).get("progress") or {}).get("run") == run)


class CheckpointWriter:
    """Writes `last.pth`, `best.pth` and `checkpointNNNN.pth`.

    `last.pth` always holds all that a resume needs. The others hold the weights that were
    evaluated, under "model" (the moving average, where there is one); `save_ema` adds the raw
    weights ("model" is raw then, "ema" the average), `save_optimizer` what a resume needs.

    Args:
        folder: where to write.
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
        """Compare free space with what a whole run may write.

        Raises:
            CheckpointError: if there is too little, or the folder cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".write_probe"
            probe.touch()
            probe.unlink()
            for half in self.folder.glob(".*.pth.partial"):  # of a run that was killed
                half.unlink()
        except OSError as error:
            raise CheckpointError(
                f"{self.folder}: cannot be written ({error.strerror}); choose another output_dir"
            ) from error
        weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
        trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
        full = 2 * weights + 2 * trained  # model, average, two moments
        kept = weights * (2 if self.save_ema else 1) + (2 * trained if self.save_optimizer else 0)
        numbered = epochs // self.checkpoint_freq if self.checkpoint_freq else 0
        if self.keep_last:
            numbered = min(numbered, self.keep_last + 1)
        needed = 2 * full + (2 + numbered) * kept  # a new file stands beside the one it replaces
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise CheckpointError(
                f"{self.folder}: {free / 2**30:.1f} GiB are free, but this run can write up to "
                f"{needed / 2**30:.1f} GiB; free space, choose another output_dir, or keep fewer "
                f"files (checkpoint_freq = {self.checkpoint_freq}, keep_last = {self.keep_last}, "
                "0 keeps all)"
            )

    def keep_best_of(self, resumed: str, ap: float) -> bool:
        """Find the best weights of a run that goes on, and bring them along from another folder.

        Args:
            resumed: checkpoint that the run goes on from.
            ap: best AP that it knows of.

        Returns:
            Whether `best.pth` in this folder holds them.
        """
        target, source = self.folder / BEST, locate(resumed).with_name(BEST)
        for path in (target, source):
            content = load_checkpoint(path) if path.is_file() else {}
            if content.get("metrics", {}).get("AP") == ap:
                if path != target:
                    write_atomically(content, target)
                return True
        return False

    def save_last(self, state: Mapping[str, Any]) -> None:
        """Write everything."""
        write_atomically(state, self.folder / LAST)

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Write the best weights so far."""
        write_atomically(self._slim(state), self.folder / BEST)

    def save_numbered(self, state: Mapping[str, Any], epoch: int) -> None:
        """Write `checkpointNNNN.pth` if it is its turn, and drop the oldest ones."""
        if not self.checkpoint_freq or (epoch + 1) % self.checkpoint_freq:
            return
        write_atomically(self._slim(state), self.folder / f"checkpoint{epoch:04d}.pth")
        if self.keep_last:
            for old in self.numbered()[: -self.keep_last]:
                old.unlink(missing_ok=True)

    def numbered(self) -> list[Path]:
        """Numbered files, oldest first."""
        return sorted(self.folder.glob("checkpoint[0-9][0-9][0-9][0-9].pth"))

    def files(self) -> dict[str, Path]:
        """What is there now, by name: last, best, checkpointNNNN."""
        candidates = [self.folder / LAST, self.folder / BEST, *self.numbered()]
        return {path.stem: path for path in candidates if path.is_file()}

    def _slim(self, state: Mapping[str, Any]) -> dict[str, Any]:
        slim = dict(state)
        ema = slim.get("ema")
        if ema is not None and not self.save_ema:
            slim["model"] = ema["module"]
            slim.pop("ema")
        if not self.save_optimizer:
            for key in _RESUMED_FROM:
                slim.pop(key, None)
        return slim


def checkpoint_content(
    cfg: YAMLConfig, state: TrainState, position: Position, evaluation: Evaluation | None
) -> dict[str, Any]:
    """Everything a checkpoint can hold: tensors and plain values only.

    Args:
        cfg: the run.
        state: what was trained.
        position: where a resumed run would begin.
        evaluation: of these weights, if they were evaluated.
    """
    size = cfg.yaml_cfg.get("eval_spatial_size")
    categories = cfg.train_dataset.categories
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "last_epoch": position.epoch - 1,
        "model": unwrap(state.model).state_dict(),
        "ema": state.ema.state_dict() if state.ema is not None else None,
        "optimizer": state.optimizer.state_dict(),
        "lr_scheduler": cfg.lr_scheduler.state_dict(),
        "lr_warmup_scheduler": state.warmup.state_dict(),
        "scaler": state.scaler.state_dict(),
        # Randomness is a function of (seed, epoch, step): these are all there is to save
        # of random generators and of the order of images. What was given up is not tried again.
        "progress": {
            "seed": state.seed,
            "epoch": position.epoch,
            "step": position.step,
            "loss_sums": position.loss_sums,
            "global_step": state.global_step,
            "batch_size": cfg.train_dataloader.epoch_sampler.total_batch_size,
            "run": distributed.run_id(),
            "best": position.best.state_dict(),
            "micro_batch": state.micro_batches.size,
            "fallback": str(state.precision) if state.has_fallen_back else None,
        },
        "config": copy.deepcopy(cfg.yaml_cfg),
        "class_names": list(categories.names),
        "category_ids": list(categories.ids),
        "eval_spatial_size": list(size) if size else None,
    }
    if evaluation is not None:
        content["metrics"] = evaluation.as_dict()
        content["thresholds"] = {
            "overall": evaluation.best.threshold,
            "per_class": {c.name: c.best.threshold for c in evaluation.classes},
        }
    return content

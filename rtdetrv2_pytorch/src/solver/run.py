"""`TrainingRun`: the state of a training, its checkpoints and its resume."""

import copy
import dataclasses
import datetime
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import yaml
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..core.settings import Settings
from ..core.yaml_config import YAMLConfig
from ..core.yaml_files import changed_settings, get
from ..data.loading.loader import DataLoader
from ..data.metrics.evaluator import Evaluation
from ..interchange.folders import open_checkpoint
from ..misc import distributed
from ..misc.errors import CheckpointError
from ..misc.resources import keep_freed_memory
from ..misc.weights import load_checkpoint, load_strict
from ..optim.ema import ModelEMA, unwrap
from ..optim.resume import restore_optimizer, resume_schedule
from ..optim.warmup import LinearWarmup
from ..robustness.bad_batches import BadBatches
from ..robustness.guard import FiniteGuard
from ..robustness.memory import MicroBatches
from ..robustness.precision import MixedPrecision, Precision, resolve_precision
from ..robustness.recovery import Recovery
from ..timing.budget import TimeBudget
from .best import BestSoFar
from .checkpointing import BEST, FORMAT_VERSION, LAST, CheckpointWriter
from .network import prepare_model
from .progress import Pace
from .stopwatch import Stopwatch

logger = logging.getLogger(__name__)

MODEL_CONFIG = "model_config.yml"


@dataclass
class TrainingRun:
    """Everything that changes during a training, with its position.

    Random numbers and the order of images are functions of seed, epoch and step, so the position
    replaces the state of all random generators.
    """

    cfg: YAMLConfig
    settings: Settings
    model: nn.Module  # wrapped if there are several ranks
    criterion: nn.Module
    ema: ModelEMA | None
    optimizer: Optimizer
    lr_scheduler: LRScheduler
    warmup: LinearWarmup
    amp: MixedPrecision
    recovery: Recovery
    checkpoints: CheckpointWriter
    stopwatch: Stopwatch
    epoch: int = 0  # next epoch
    step: int = 0  # next batch of the epoch
    global_step: int = 0  # finished batches of the run
    loss_sums: dict[str, float] = field(default_factory=dict)  # of the epoch before `step`
    best: BestSoFar = field(default_factory=BestSoFar)
    pace: Pace = field(default_factory=Pace)
    budget: TimeBudget | None = None
    changes: list[str] = field(default_factory=list)  # settings that differ from the resumed run's

    @classmethod
    def create(cls, cfg: YAMLConfig) -> "TrainingRun":
        """Build the run of a configuration, and load the checkpoint of `resume`.

        The weights are loaded before the model is wrapped for several ranks, which broadcasts
        them, and before the EMA, which starts as a copy of them.

        Raises:
            CheckpointError: if a checkpoint cannot be loaded.
            ConfigError: if `compile` is set but no compiler is available.
        """
        settings, device = cfg.settings, cfg.device
        if device.type == "cpu":
            keep_freed_memory()
        resumed = load_checkpoint(settings.resume) if settings.resume else None
        model = prepare_model(cfg, resumed)
        if cfg.ema is not None:
            cfg.ema.module.to(device)  # it may have been built before the device was known
        amp = MixedPrecision(configured_precision(cfg), device)
        if amp.uses_loss_scale and cfg.scaler is not None:
            amp.scaler = cfg.scaler
        guard = FiniteGuard(
            cfg.model,
            max_skipped_steps=settings.max_skipped_steps,
            uses_loss_scale=amp.uses_loss_scale,
        )
        is_auto = settings.micro_batch_size == "auto"
        run = cls(
            cfg=cfg,
            settings=settings,
            model=model,
            criterion=cfg.criterion.to(device),
            ema=cfg.ema,
            optimizer=cfg.optimizer,
            lr_scheduler=cfg.lr_scheduler,
            warmup=cfg.lr_warmup_scheduler or LinearWarmup(cfg.lr_scheduler, warmup_duration=0),
            amp=amp,
            recovery=Recovery(
                optimizer=cfg.optimizer,
                amp=amp,
                guard=guard,
                micro_batches=MicroBatches(
                    None if is_auto else settings.micro_batch_size,  # type: ignore[arg-type]
                    is_fixed=distributed.is_distributed(),
                ),
                bad_batches=BadBatches(cfg.output_dir, cfg.train_dataset),
            ),
            checkpoints=CheckpointWriter(
                cfg.output_dir,
                checkpoint_freq=settings.checkpoint_freq,
                keep_last=settings.keep_last,
                save_optimizer=settings.save_optimizer,
                save_ema=settings.save_ema,
            ),
            stopwatch=Stopwatch(device),
            epoch=settings.last_epoch + 1,
        )
        if resumed is not None:
            run.load_state_dict(resumed)
        return run

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.cfg.device

    @property
    def train_loader(self) -> DataLoader:
        """Training data."""
        return self.cfg.train_dataloader

    @property
    def evaluated_model(self) -> nn.Module:
        """The EMA model if there is one, else the model without wrapper."""
        return self.ema.module if self.ema is not None else unwrap(self.model)

    @property
    def highest_lr(self) -> float:
        """Highest learning rate of all parameter groups."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def for_probe(self) -> "TrainingRun":
        """Return a view of this run for steps whose gradients are discarded, on one rank."""
        return dataclasses.replace(
            self, model=unwrap(self.model), recovery=self.recovery.for_probe()
        )

    # Saving

    def state_dict(self, evaluation: Evaluation | None = None) -> dict[str, Any]:
        """Return the content of a checkpoint: tensors and plain values only.

        Args:
            evaluation: metrics of these weights, if they were evaluated.
        """
        cfg = self.cfg
        size = cfg.yaml_cfg.get("eval_spatial_size")
        categories = cfg.train_dataset.categories
        content: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "last_epoch": self.epoch - 1,
            "model": unwrap(self.model).state_dict(),
            **({} if self.ema is None else {"ema": self.ema.state_dict()}),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self.lr_scheduler.state_dict(),
            "lr_warmup_scheduler": self.warmup.state_dict(),
            "scaler": self.amp.scaler.state_dict(),
            "progress": {
                "seed": self.settings.seed,
                "epoch": self.epoch,
                "step": self.step,
                "loss_sums": self.loss_sums,
                "global_step": self.global_step,
                "batch_size": self.train_loader.epoch_sampler.total_batch_size,
                "run": distributed.run_id(),
                "best": self.best.state_dict(),
                "time_budget": self.budget.state_dict() if self.budget else None,
                # Reduced batch size and precision: a resumed run does not try the others again.
                "micro_batch": self.recovery.micro_batches.size,
                "fallback": str(self.amp.precision) if self.amp.has_fallen_back else None,
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

    def save_interrupted(self) -> None:
        """Write `last.pth` in the middle of an epoch."""
        content = self.state_dict()
        if distributed.is_main():
            self.checkpoints.save_last(content)

    def is_evaluated(self, epoch: int) -> bool:
        """Return whether an epoch ends with an evaluation."""
        is_last = epoch + 1 >= self.settings.epoches
        return is_last or (epoch + 1) % self.settings.eval_freq == 0

    def finish_epoch(self, evaluation: Evaluation | None) -> None:
        """Advance to the next epoch and write the checkpoints of this one."""
        self.warmup.step_epoch()
        previous = copy.copy(self.best)
        is_best = evaluation is not None and self.best.update(self.epoch, evaluation)
        self.epoch, self.step, self.loss_sums = self.epoch + 1, 0, {}
        is_saved = True
        if distributed.is_main():
            is_saved = self._save_epoch(evaluation, is_best=is_best)
        if distributed.on_any_rank(not is_saved):
            self.best = previous  # its file still exists

    def _save_epoch(self, evaluation: Evaluation | None, *, is_best: bool) -> bool:
        """Write the checkpoints of an epoch; only a failure in the last epoch is an error.

        Returns:
            Whether `best.pth` holds the best weights.
        """
        content = self.state_dict(evaluation)
        is_best_saved = not is_best
        try:
            # If the process is killed before last.pth is replaced, a resumed run repeats the
            # epoch; if it is killed after that, `restore_best` writes best.pth.
            self.checkpoints.save_numbered(content, self.epoch - 1)
            self.checkpoints.save_last(content)
            if is_best:
                self.checkpoints.save_best(content)
                is_best_saved = True
        except CheckpointError as error:
            if self.epoch >= self.settings.epoches:
                raise
            logger.error("%s; training continues, and the next epoch is saved again", error)
        return is_best_saved

    # Loading

    def load_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore everything but the weights of the model from a checkpoint of `resume`.

        Raises:
            CheckpointError: if the checkpoint has no optimizer state or another optimizer.
        """
        source = self.settings.resume
        if not checkpoint.get("optimizer"):
            raise CheckpointError(
                f"{source}: has weights but no optimizer state, so its run cannot be resumed; "
                "resume from last.pth, or start a new run from these weights with tuning"
            )
        self._load_ema(checkpoint)
        # Checkpoints of the public trainer have the last epoch only.
        next_epoch = int(checkpoint.get("last_epoch", -1)) + 1
        progress = checkpoint.get("progress") or {"epoch": next_epoch}
        config = checkpoint.get("config") or {}
        is_same = config.get("amp_dtype", "auto") == self.settings.amp_dtype
        if progress.get("fallback") and self.amp.precision.is_mixed and is_same:
            self.recovery.use_precision(Precision(getattr(torch, progress["fallback"])))
        if self.settings.micro_batch_size == "auto" and progress.get("micro_batch"):
            self.recovery.micro_batches.size = int(progress["micro_batch"])
        self.epoch = int(progress["epoch"])
        self._load_optimizer(checkpoint)
        self.step = self._resumed_step(progress)
        self.loss_sums = dict(progress.get("loss_sums") or {})
        if "best" in progress:
            self.best.load_state_dict(progress["best"])
        steps = self.epoch * len(self.train_loader) + self.step
        self.global_step = int(progress.get("global_step", steps))
        self.changes = changed_settings(config, self.cfg.yaml_cfg)
        logger.info("resuming %s: epoch=%d step=%d", source, self.epoch + 1, self.step + 1)

    def _load_ema(self, checkpoint: Mapping[str, Any]) -> None:
        if self.ema is None:
            return
        saved, source = checkpoint.get("ema"), self.settings.resume
        if isinstance(saved, Mapping):
            load_strict(self.ema.module, saved["module"], source=f"{source} (ema)")
            self.ema.updates = int(saved["updates"])
        else:
            logger.warning("%s has no EMA weights; the EMA starts from the raw weights", source)

    def _load_optimizer(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the state of optimizer, schedule, warm-up and scaler; settings are this run's."""
        try:
            restore_optimizer(self.optimizer, checkpoint["optimizer"])
        except ValueError as error:
            raise CheckpointError(
                f"{self.settings.resume}: {error}; restore 'optimizer', or start a new run from "
                "these weights with tuning"
            ) from error
        rates = resume_schedule(self.lr_scheduler, checkpoint.get("lr_scheduler"), epoch=self.epoch)
        if checkpoint.get("lr_warmup_scheduler"):
            self.warmup.load_state_dict(checkpoint["lr_warmup_scheduler"])
        self.warmup.follow(rates)
        scaler, own = checkpoint.get("scaler") or {}, self.amp.scaler.state_dict()
        # A constant scale of 1 would let float16 gradients underflow, and the scale of float16 is
        # wrong for other precisions: load it only into a scaler of the same kind.
        if own and scaler.get("growth_interval") == own["growth_interval"]:
            found = {key: scaler[key] for key in ("scale", "_growth_tracker") if key in scaler}
            self.amp.scaler.load_state_dict({**own, **found})

    def _resumed_step(self, progress: Mapping[str, Any]) -> int:
        """Return the next step; a step after as many images for another batch size."""
        step = int(progress.get("step", 0))
        size = self.train_loader.epoch_sampler.total_batch_size
        saved_size = int(progress.get("batch_size") or size)
        if saved_size == size:
            return step
        if step:
            logger.warning("images in a batch: %d, in the resumed run: %d", size, saved_size)
        step = step * saved_size // size
        return step - step % self.settings.grad_accum_steps

    # Files

    def open_output(self) -> None:
        """Check the output directory, write the configuration and find the best weights so far.

        Raises:
            CheckpointError: if the directory is not writable or the disk space does not suffice.
        """
        if distributed.is_main():
            self.checkpoints.check_space(self.cfg.model, self.settings.epoches)
            text = yaml.safe_dump(self.cfg.yaml_cfg, sort_keys=False, allow_unicode=True)
            (self.cfg.output_dir / MODEL_CONFIG).write_text(text, encoding="utf-8")
        resumed, best = self.settings.resume, self.best
        if resumed is None or best.epoch < 0:
            return
        is_found = distributed.is_main() and self.checkpoints.restore_best(
            resumed, epoch=best.epoch, ap=best.ap
        )
        if not distributed.all_gather_objects(is_found)[0]:
            logger.warning(
                "the best weights of the resumed run (epoch %d, AP %.4f) are neither in %s nor "
                "next to the checkpoint; keeping the best of the remaining epochs",
                best.epoch + 1,
                best.ap,
                self.checkpoints.folder / BEST,
            )
            self.best = BestSoFar()


def configured_precision(cfg: YAMLConfig) -> Precision:
    """Return the configured precision on the device of the run."""
    settings = cfg.settings
    return resolve_precision(
        use_amp=settings.use_amp, amp_dtype=settings.amp_dtype, device=cfg.device
    )


def use_trained_range(cfg: YAMLConfig, source: str | None) -> None:
    """Take `pixel_range` from a checkpoint, unless the configuration sets it.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
    """
    if source and cfg.settings.pixel_range is None:
        trained = get(open_checkpoint(source)[0], ("config", "pixel_range"))
        if trained:
            cfg.yaml_cfg["pixel_range"] = trained


def resume_after_restart(cfg: YAMLConfig) -> None:
    """If `torchrun` restarted this run, resume the last checkpoint of the previous start.

    Raises:
        CheckpointError: if that checkpoint cannot be read.
    """
    path, run_id = cfg.output_dir / LAST, distributed.run_id()
    is_own = False
    if run_id is not None and distributed.is_main() and path.is_file():
        try:
            progress = load_checkpoint(path).get("progress") or {}
            is_own = progress.get("run") == run_id
        except CheckpointError as error:
            if distributed.is_restarted():  # the file may hold hours of this run
                raise
            logger.warning("%s; it belongs to another run", error)
    if distributed.all_gather_objects(is_own)[0]:
        logger.warning("restarted by torchrun: resuming %s", path)
        cfg.yaml_cfg |= {"resume": str(path), "tuning": None}

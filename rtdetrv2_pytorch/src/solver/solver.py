"""`DetSolver`: training and evaluation of a configuration."""

import contextlib
import copy
import logging
import math
import time

import torch
from torch import nn

from ..core.error_places import located
from ..core.fitting import fit_accumulation, fit_steps
from ..core.yaml_config import YAMLConfig
from ..data.metrics.detection_limit import missed_objects_warning
from ..data.metrics.evaluator import Evaluation
from ..misc import distributed
from ..misc.errors import CheckpointError
from ..misc.log_routing import FILE_ONLY
from ..misc.seeding import seed_everything
from ..misc.text import counted
from ..misc.weights import load_checkpoint, load_strict, model_state
from ..robustness.precision import Precision
from ..robustness.probing import find_micro_batch
from ..robustness.rank_watch import watch_ranks
from .checkpointing import BEST, check_unused, lock_output, remove_results
from .events import FanOut, FitResult, TrainingEvents
from .loop import evaluate, train_one_epoch
from .network import check_batch_norm, detections_per_image, load_for_evaluation
from .observers import LOG, JsonLog, LogLines, TensorBoard, metrics_table
from .progress import average_of
from .run import TrainingRun, configured_precision, resume_after_restart, use_trained_range
from .speed_test import deadline, is_in_time, skip_to_fit, start_budget, warn_of_short_epoch
from .step import backward
from .stopping import StopFlag, stop_on_signals
from .telemetry import StepReporter, epoch_report, training_plan

logger = logging.getLogger(__name__)

_AP_TOLERANCE = 1e-3  # difference of two evaluations of the same weights in reduced precision


class DetSolver:
    """Trains and evaluates the model of a configuration.

    Args:
        cfg: the configuration.
        events: follower of the training, on the main rank.
        stop_flag: a flag shared with other code; default: a new one.
        start_s: reading of `time.monotonic` when the time budget begins; default: now.
        reserve_s: seconds of the time budget for what follows the training.
        overwrite: whether to delete the results of another training in the output folder when
            this one starts; until then this one can fail. Default: such a folder is an error.
    """

    def __init__(
        self,
        cfg: YAMLConfig,
        events: TrainingEvents | None = None,
        *,
        stop_flag: StopFlag | None = None,
        start_s: float | None = None,
        reserve_s: float = 0.0,
        overwrite: bool = False,
    ) -> None:
        self.cfg = cfg
        self.stop_flag = stop_flag or StopFlag()
        self._events = events or TrainingEvents()
        self._start_s = time.monotonic() if start_s is None else start_s
        self._reserve_s = reserve_s
        self._overwrite = overwrite

    def stop(self, reason: str = "stop requested") -> None:
        """Stop a running `fit` after its current batch; callable from any thread."""
        self.stop_flag.request(reason)

    def fit(self) -> FitResult:
        """Train until the last epoch, or until a stop is requested.

        Returns:
            The metrics, the checkpoint files and the reason of an early end.

        Raises:
            DatasetError: if the data cannot be trained on.
            CheckpointError: if weights cannot be loaded or files cannot be written.
            ConfigError: if another training uses the output folder, or left results there.
            TrainingDiverged: if too many consecutive losses are non-finite, in float32, too.
            OutOfMemory: if a single image does not fit in memory.
        """
        cfg = self.cfg
        with contextlib.ExitStack() as stack:
            self._join_ranks()
            if distributed.is_main():
                stack.enter_context(lock_output(cfg.output_dir))
            resume_after_restart(cfg)
            if distributed.is_main() and not self._overwrite:
                check_unused(cfg.output_dir, cfg.settings.resume)
            use_trained_range(cfg, cfg.settings.resume)
            budget, changes = start_budget(cfg, self._start_s, self._reserve_s)
            seed_everything(cfg.settings.seed)
            num_batches = len(cfg.train_dataloader)
            changes = [*cfg.notes, *changes, *fit_accumulation(cfg.yaml_cfg, num_batches)]
            settings = cfg.settings
            steps = math.ceil(num_batches / settings.grad_accum_steps)
            # Errors in the validation data are raised before the first step, too.
            for loader in (cfg.train_dataloader, cfg.val_dataloader):
                loader.dataset.check_boxes()  # type: ignore[attr-defined]
            changes += fit_steps(cfg.yaml_cfg, steps * settings.epoches, cfg.layers)

            self._warn_of_missed_objects()
            run = TrainingRun.create(cfg)
            run.budget = budget
            with located(cfg.layers):
                check_batch_norm(cfg)
            run.open_output()
            changes += run.changes + _choose_micro_batch(run)
            if run.epoch >= settings.epoches:
                logger.warning(
                    "this run has finished after %s: evaluating best.pth; to continue, "
                    "set a higher number of epochs (-u epoches=...)",
                    counted(settings.epoches, "epoch"),
                )
            # Until here a signal ends the process at once: there is nothing to save yet.
            stack.enter_context(stop_on_signals(self.stop_flag))
            if distributed.is_main() and self._overwrite and settings.resume is None:
                remove_results(cfg.output_dir)
            events = self._followers()
            events.train_started(training_plan(run, changes=changes))
            stopped = self._train(run, events)
            result = self._result(run, stopped)
            events.train_finished(result)
            return result

    def val(self) -> Evaluation:
        """Evaluate the weights of `resume` or `tuning` on the validation split.

        Raises:
            CheckpointError: if there are no weights or they do not match the model.
            DatasetError: if no image of the split can be read.
        """
        cfg = self.cfg
        self._join_ranks()
        source = cfg.settings.resume or cfg.settings.tuning
        if not source and "model" not in vars(cfg):  # neither given nor trained nor assigned
            raise CheckpointError(
                f"{cfg.path.name}: no weights to evaluate; set resume or tuning to a checkpoint "
                "(on the command line -r or -t)"
            )
        if source:
            use_trained_range(cfg, source)
            load_for_evaluation(cfg, source)
        self._warn_of_missed_objects()
        evaluation = self._evaluate(cfg.model, self._events, configured_precision(cfg))
        assert evaluation is not None, "only a set stop flag interrupts an evaluation"
        for line in metrics_table(evaluation):
            logger.info("%s", line, extra=FILE_ONLY)
        return evaluation

    def _join_ranks(self) -> None:
        self.cfg.device = distributed.init_from_environment(
            self.cfg.device, timeout_s=self.cfg.settings.rank_timeout_s, watch=watch_ranks
        )
        # The main rank's, which examined the data.
        chosen = distributed.all_gather_objects(self.cfg.yaml_cfg.get("pixel_range"))[0]
        if chosen:
            self.cfg.yaml_cfg["pixel_range"] = chosen

    def _warn_of_missed_objects(self) -> None:
        annotations = self.cfg.val_dataset.annotations
        warning = missed_objects_warning(annotations, detections_per_image(self.cfg))
        if warning and distributed.is_main():
            logger.warning("%s", warning)

    def _followers(self) -> TrainingEvents:
        if not distributed.is_main():
            return TrainingEvents()
        followers: list[TrainingEvents] = [LogLines(), JsonLog(self.cfg.output_dir / LOG)]
        try:
            if self.cfg.writer is not None:
                followers.append(TensorBoard(self.cfg.writer))
        except OSError as error:
            logger.warning("TensorBoard is disabled: %s", error)
        return FanOut([*followers, self._events])

    def _train(self, run: TrainingRun, events: TrainingEvents) -> str | None:
        """Train the remaining epochs; returns the reason of an early end."""
        settings = run.settings
        while run.epoch < settings.epoches:
            skip_to_fit(run)
            if not self._run_epoch(run, events):
                run.save_interrupted()
                return self.stop_flag.reason
            if settings.patience and run.best.stale_epochs >= settings.patience:
                return f"no better AP for {counted(run.best.stale_epochs, 'epoch')}"
            if run.epoch < settings.epoches and self.stop_flag.agreed():
                return self.stop_flag.reason
        return None

    def _run_epoch(self, run: TrainingRun, events: TrainingEvents) -> bool:
        """Train, evaluate if it is due and save one epoch; returns False if it was interrupted."""
        cfg = self.cfg
        events.epoch_started(run.epoch, len(run.train_loader))
        clock = time.monotonic if run.budget is None else run.budget.clock
        started, stop = clock(), deadline(run, self.stop_flag)
        progress = train_one_epoch(run, stop=stop, after_step=StepReporter(run, events))
        run.step = progress.step
        run.loss_sums = loss_sums = distributed.mean_over_ranks(progress.sums())
        if progress.step < progress.num_steps:
            if run.budget is None or self.stop_flag.agreed():
                return False
            warn_of_short_epoch(run, progress)
        begin = time.perf_counter()
        model, evaluation, eval_s = run.evaluated_model, None, None
        distributed.share_buffers(model)  # checkpoints hold those of the main rank
        if run.is_evaluated(run.epoch):
            evaluation = self._evaluate(model, events, run.amp.precision)
            if evaluation is None:
                return False
            eval_s = time.perf_counter() - begin
        run.pace.add(progress, eval_s)
        run.finish_epoch(evaluation)
        unreadable = cfg.train_dataset.new_unreadable() + cfg.val_dataset.new_unreadable()
        report = epoch_report(
            run,
            progress,
            evaluation,
            losses=average_of(loss_sums),
            eval_s=eval_s or 0.0,
            skipped_images=unreadable,
        )
        events.epoch_finished(report)
        if run.budget is not None:
            whole_s = max(0.0, clock() - started - (eval_s or 0.0))
            is_whole = progress.timed_steps == progress.num_steps
            run.budget.add(train_s=whole_s if is_whole else None, eval_s=eval_s)
        return True

    def _evaluate(
        self, model: nn.Module, events: TrainingEvents, precision: Precision
    ) -> Evaluation | None:
        cfg = self.cfg
        model.to(device=cfg.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return evaluate(
            model,
            cfg.criterion.to(cfg.device),
            cfg.postprocessor.to(cfg.device),
            cfg.val_dataloader,
            cfg.evaluator,
            device=cfg.device,
            precision=precision,
            stop=self.stop_flag,
            after_step=events.evaluation_step_finished,
        )

    def _result(self, run: TrainingRun, stopped: str | None) -> FitResult:
        confirmed = None
        distributed.barrier()  # the main rank may still be writing best.pth
        is_there = all(distributed.all_gather_objects((run.checkpoints.folder / BEST).is_file()))
        if run.best.epoch >= 0 and is_there and not self.stop_flag.agreed():
            if is_in_time(run):
                confirmed = self._verify_best(run)
            else:
                logger.warning("%s is not evaluated again: the time budget is used", BEST)
        return FitResult(
            best_epoch=run.best.epoch,
            best=run.best.evaluation or confirmed,
            confirmed=confirmed,
            last_epoch=run.epoch - 1,
            stopped=stopped,
            checkpoints=run.checkpoints.files(),
        )

    def _verify_best(self, run: TrainingRun) -> Evaluation | None:
        """Load `best.pth` and compare its AP with the one measured during training."""
        path = run.checkpoints.folder / BEST
        checkpoint = load_checkpoint(path)
        model = copy.deepcopy(run.evaluated_model)
        load_strict(model, model_state(checkpoint), source=str(path))
        evaluation = self._evaluate(model, TrainingEvents(), run.amp.precision)
        if evaluation is not None:
            ap, measured = evaluation.stats["AP"], float(checkpoint["metrics"]["AP"])
            if abs(ap - measured) <= _AP_TOLERANCE:
                logger.info("verified %s: AP %.4f", path, ap)
            else:
                logger.error("%s: AP %.4f after loading, %.4f in training", path, ap, measured)
        return evaluation


def _choose_micro_batch(run: TrainingRun) -> list[str]:
    """Set the micro-batch size on a GPU; returns a note if the batch is divided."""
    micro_batches = run.recovery.micro_batches
    if run.device.type == "cuda" and run.settings.micro_batch_size == "auto":
        micro_batches.size = find_micro_batch_of(run)
    if not micro_batches.size:
        return []
    return [f"micro-batches of {counted(micro_batches.size, 'image')}; the batch size stays"]


def find_micro_batch_of(run: TrainingRun) -> int | None:
    """Find the micro-batch size of a run; see `find_micro_batch`."""
    probe = run.for_probe()
    return find_micro_batch(
        probe.model,
        probe.recovery,
        run.train_loader,
        lambda batch: backward(probe, batch, group_size=1),
        start=run.recovery.micro_batches.size,
    )

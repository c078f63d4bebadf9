"""`DetSolver`: trains and evaluates what a configuration describes."""

import copy
import dataclasses
import logging
import math
import time
from pathlib import Path

import torch
import yaml
from torch import nn

from ..core.fitting import fit_steps
from ..core.yaml_config import YAMLConfig
from ..data.metrics.evaluator import Evaluation
from ..misc import distributed
from ..misc.errors import CheckpointError
from ..misc.log_routing import FILE_ONLY
from ..misc.seeding import seed_everything
from ..misc.weights import load_checkpoint, load_strict, model_state
from ..optim.ema import unwrap
from ..report.training_report import LOG, report_source, write_report
from ..robustness.precision import Precision
from .best import BestSoFar
from .checkpointing import BEST, LAST, CheckpointWriter, checkpoint_content, written_by
from .events import FanOut, FitResult, TrainingEvents
from .loop import average_of, evaluate, train_one_epoch
from .observers import JsonLog, LogLines, TensorBoard, metrics_table
from .probing import find_micro_batch
from .setup import Position, run_precision, set_up, tune_from
from .step import TrainState
from .stopping import StopFlag, stop_on_signals
from .telemetry import StepReporter, epoch_report, training_plan

logger = logging.getLogger(__name__)

MODEL_CONFIG = "model_config.yml"
_SAME_AP = 1e-3  # two passes of one network may differ by this much in reduced precision


class DetSolver:
    """Runs a training or an evaluation.

    Args:
        cfg: what to do.
        events: told about everything that happens.
        stop_flag: one that somebody else holds, too; default: a new one.
    """

    def __init__(
        self,
        cfg: YAMLConfig,
        events: TrainingEvents | None = None,
        *,
        stop_flag: StopFlag | None = None,
    ) -> None:
        self.cfg = cfg
        self.stop_flag = stop_flag or StopFlag()
        self._events = events or TrainingEvents()

    def stop(self, reason: str = "stop requested") -> None:
        """Ask a running `fit` to end at its next batch; from any thread."""
        self.stop_flag.request(reason)

    def fit(self) -> FitResult:
        """Train to the end, or until somebody or a signal asks to stop.

        Returns:
            How it ended, and which files there are.

        Raises:
            DatasetError: if the data cannot be trained on.
            CheckpointError: if weights cannot be loaded, or files cannot be written.
            TrainingDiverged: if losses are not finite again and again, in float32, too.
            OutOfMemory: if a single image does not fit.
        """
        cfg = self.cfg
        with stop_on_signals(self.stop_flag):
            self._join_ranks()
            self._go_on_after_restart()
            settings = cfg.settings
            seed_everything(settings.seed)
            steps = math.ceil(len(cfg.train_dataloader) / settings.grad_accum_steps)
            # Errors of the validation data belong before the first step, too.
            for loader in (cfg.train_dataloader, cfg.val_dataloader):
                loader.dataset.check_boxes()  # type: ignore[attr-defined]
            changes = [*cfg.notes, *fit_steps(cfg.yaml_cfg, steps * settings.epoches)]

            state, position = set_up(cfg)
            writer = CheckpointWriter(
                cfg.output_dir,
                checkpoint_freq=settings.checkpoint_freq,
                keep_last=settings.keep_last,
                save_optimizer=settings.save_optimizer,
                save_ema=settings.save_ema,
            )
            if distributed.is_main():
                writer.check_space(cfg.model, settings.epoches)
                self._write_config()
            self._find_best(position, writer)
            if cfg.device.type == "cuda" and settings.micro_batch_size == "auto":
                find_micro_batch(state, cfg.train_dataloader)
            if state.micro_batches.size:
                changes.append(
                    f"{state.micro_batches.size} images are computed at a time; the batch stays "
                    "as it was"
                )
            if position.epoch >= settings.epoches:
                logger.warning(
                    "all %d epochs of this run are trained: best.pth is measured again, and the "
                    "report written; `-u epoches=...` with a higher number trains on",
                    settings.epoches,
                )
            events = self._followers()
            events.train_started(
                training_plan(cfg, state, first_epoch=position.epoch, changes=changes)
            )
            stopped = self._run_epochs(state, position, writer, events)
            result = self._finish(state, position, writer, stopped)
            events.train_finished(result)
            return dataclasses.replace(result, report=self._report(result))

    def _join_ranks(self) -> None:
        self.cfg.device = distributed.init_from_environment(
            self.cfg.device, timeout_s=self.cfg.settings.rank_timeout_s
        )

    def _go_on_after_restart(self) -> None:
        """When `torchrun` starts a run again, go on from what its last start has saved."""
        path, run = self.cfg.output_dir / LAST, distributed.run_id()
        is_own = False
        if run is not None and distributed.is_main():
            try:
                is_own = written_by(path, run)
            except CheckpointError as error:
                if distributed.is_restarted():  # hours of this run may lie beside it
                    raise
                logger.warning("%s; it is of another run: this one starts anew", error)
        if distributed.all_gather_objects(is_own)[0]:
            logger.warning("started again: going on from %s", path)
            self.cfg.yaml_cfg |= {"resume": str(path), "tuning": None}

    def _find_best(self, position: Position, writer: CheckpointWriter) -> None:
        """Hold a resumed run to its best only where those weights still are."""
        resumed, best = self.cfg.settings.resume, position.best
        if resumed is None or best.epoch < 0:
            return
        is_there = distributed.is_main() and writer.keep_best_of(resumed, best.ap)
        if not distributed.all_gather_objects(is_there)[0]:
            logger.warning(
                "%s: the best weights so far (epoch %d, AP %.4f) are neither there nor in %s; "
                "the best of the epochs to come will be kept",
                Path(resumed).with_name(BEST),
                best.epoch,
                best.ap,
                writer.folder,
            )
            position.best = BestSoFar()

    def val(self) -> Evaluation:
        """Evaluate the weights of `resume` or `tuning` on the validation split.

        Raises:
            CheckpointError: if there are no weights to evaluate, or they do not fit.
            DatasetError: if no image of the split can be read.
        """
        cfg = self.cfg
        self._join_ranks()
        source = cfg.settings.resume or cfg.settings.tuning
        if not source and "model" not in vars(cfg):  # neither given nor trained nor assigned
            raise CheckpointError(
                f"{cfg.path.name}: there are no weights to evaluate; name a checkpoint with resume "
                "or tuning (on the command line -r or -t)"
            )
        if cfg.settings.resume:
            load_strict(cfg.model, model_state(load_checkpoint(str(source))), source=str(source))
        elif source:
            tune_from(cfg, source)
        evaluation = self._evaluate(cfg.model, self._events, run_precision(cfg))
        assert evaluation is not None, "only a set stop flag leaves an evaluation unfinished"
        for line in metrics_table(evaluation):
            logger.info("%s", line, extra=FILE_ONLY)
        return evaluation

    def _followers(self) -> TrainingEvents:
        if not distributed.is_main():
            return TrainingEvents()
        followers: list[TrainingEvents] = [LogLines(), JsonLog(self.cfg.output_dir / LOG)]
        writer = None
        try:
            writer = self.cfg.writer
        except OSError as error:
            logger.warning("no TensorBoard: %s", error)
        if self.cfg.settings.pictures:
            from ..report.training_images import TrainingImages  # it imports this package

            followers.append(TrainingImages(self.cfg, writer))
        if writer is not None:  # the last to use it: it closes the files
            followers.append(TensorBoard(writer))
        return FanOut([*followers, self._events])

    def _write_config(self) -> None:
        """`model_config.yml`: resolved and self-contained, without includes."""
        text = yaml.safe_dump(self.cfg.yaml_cfg, sort_keys=False, allow_unicode=True)
        (self.cfg.output_dir / MODEL_CONFIG).write_text(text, encoding="utf-8")

    def _run_epochs(
        self,
        state: TrainState,
        position: Position,
        writer: CheckpointWriter,
        events: TrainingEvents,
    ) -> str | None:
        """Train and evaluate epoch by epoch; returns why it ended early, if it did."""
        settings = self.cfg.settings
        while position.epoch < settings.epoches:
            if not self._run_epoch(state, position, writer, events):
                content = checkpoint_content(self.cfg, state, position, None)
                if distributed.is_main():
                    writer.save_last(content)
                return self.stop_flag.reason
            if settings.patience and position.best.stale_epochs >= settings.patience:
                return f"no better AP for {position.best.stale_epochs} epochs"
            if position.epoch < settings.epoches and self.stop_flag.agreed():
                return self.stop_flag.reason
        return None

    def _run_epoch(
        self,
        state: TrainState,
        position: Position,
        writer: CheckpointWriter,
        events: TrainingEvents,
    ) -> bool:
        """Train, evaluate and save one epoch; returns False if it was stopped before its end."""
        cfg, settings, epoch = self.cfg, self.cfg.settings, position.epoch
        events.epoch_started(epoch, len(cfg.train_dataloader))
        progress = train_one_epoch(
            state,
            cfg.train_dataloader,
            epoch,
            start_step=position.step,
            loss_sums=position.loss_sums,
            stop=self.stop_flag,
            after_step=StepReporter(
                state, print_freq=settings.print_freq, epochs=settings.epoches, events=events
            ),
        )
        position.step = progress.step
        position.loss_sums = loss_sums = distributed.mean_over_ranks(progress.sums())
        if progress.step < progress.num_steps:
            return False
        begin = time.perf_counter()
        model = _evaluated_model(state)
        distributed.share_buffers(model)  # what is saved is the main rank's
        evaluation = self._evaluate(model, events, state.precision)
        if evaluation is None:
            return False
        eval_s = time.perf_counter() - begin

        state.warmup.step_epoch()
        previous = copy.copy(position.best)
        is_best = position.best.update(epoch, evaluation)
        position.epoch, position.step, position.loss_sums = epoch + 1, 0, {}
        is_best_there = True
        if distributed.is_main():
            is_best_there = self._save(writer, state, position, evaluation, is_best=is_best)
        if distributed.on_any_rank(not is_best_there):
            position.best = previous  # whose file is still there
        unreadable = cfg.train_dataset.new_unreadable() + cfg.val_dataset.new_unreadable()
        events.epoch_finished(
            epoch_report(
                state,
                progress,
                evaluation,
                position.best,
                losses=average_of(loss_sums),
                eval_s=eval_s,
                loader=cfg.train_dataloader,
                skipped_images=unreadable,
            )
        )
        return True

    def _save(
        self,
        writer: CheckpointWriter,
        state: TrainState,
        position: Position,
        evaluation: Evaluation,
        *,
        is_best: bool,
    ) -> bool:
        """Write the checkpoints of an epoch; if that fails, the run goes on without.

        Only the last epoch has to be written: until then the disk may have room again.

        Returns:
            Whether `best.pth` is what the position says.
        """
        content = checkpoint_content(self.cfg, state, position, evaluation)
        is_best_there = not is_best
        try:
            # Best first: what last.pth calls the best so far has to be there already. Last at
            # the end: without it, a run that is killed in between repeats the epoch.
            if is_best:
                writer.save_best(content)
                is_best_there = True
            writer.save_numbered(content, position.epoch - 1)
            writer.save_last(content)
        except CheckpointError as error:
            if position.epoch >= self.cfg.settings.epoches:
                raise
            logger.error("%s; training goes on, and the next epoch is written again", error)
        return is_best_there

    def _report(self, result: FitResult) -> Path | None:
        """Write the page about the run, on the main rank; whatever happens, the run is complete."""
        cfg = self.cfg
        if not (cfg.settings.report and distributed.is_main()):
            return None
        logger.info("writing the report")
        try:
            return write_report(report_source(cfg, cfg.output_dir, result.confirmed or result.best))
        except Exception:  # a report is no reason to lose a training
            logger.exception("no report: it could not be made; the training is complete without it")
            return None

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

    def _finish(
        self, state: TrainState, position: Position, writer: CheckpointWriter, stopped: str | None
    ) -> FitResult:
        confirmed = None
        path = writer.folder / BEST
        distributed.barrier()  # the main rank may still be writing what all are going to read
        is_there = all(distributed.all_gather_objects(path.is_file()))
        if position.best.epoch >= 0 and is_there and not self.stop_flag.agreed():
            confirmed = self._confirm(state, path)
        return FitResult(
            best_epoch=position.best.epoch,
            best=position.best.evaluation or confirmed,
            confirmed=confirmed,
            last_epoch=position.epoch - 1,
            stopped=stopped,
            checkpoints=writer.files(),
        )

    def _confirm(self, state: TrainState, path: Path) -> Evaluation | None:
        """Load the best checkpoint again and see whether it is as good as it was measured."""
        checkpoint = load_checkpoint(path)
        model = copy.deepcopy(_evaluated_model(state))
        load_strict(model, model_state(checkpoint), source=str(path))
        evaluation = self._evaluate(model, TrainingEvents(), state.precision)
        if evaluation is not None:
            measured = float(checkpoint["metrics"]["AP"])
            difference = abs(evaluation.stats["AP"] - measured)
            log = logger.info if difference <= _SAME_AP else logger.error
            log("%s loaded again: AP=%.4f, was %.4f", path, evaluation.stats["AP"], measured)
        return evaluation


def _evaluated_model(state: TrainState) -> nn.Module:
    """The moving average where there is one, else the model itself."""
    return state.ema.module if state.ema is not None else unwrap(state.model)

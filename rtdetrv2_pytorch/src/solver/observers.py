"""Followers of a training that write the log, `log.jsonl` and TensorBoard files."""

import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ..data.metrics.evaluator import Evaluation
from ..misc.log_routing import FILE_ONLY
from ..misc.text import without_non_finite
from .events import EpochReport, FitResult, StepReport, TrainingEvents, TrainingPlan

logger = logging.getLogger(__name__)

LOG = "log.jsonl"


class LogLines(TrainingEvents):
    """Writes log lines; epochs count from 1."""

    def train_started(self, plan: TrainingPlan) -> None:
        """Log the plan, the changed settings and the schedule."""
        logger.info(
            "train images=%d val_images=%d classes=%d epochs=%d steps_per_epoch=%d batch_size=%d "
            "size_hw=%s device=%s precision=%s output_dir=%s",
            plan.num_train_images,
            plan.num_val_images,
            len(plan.class_names),
            plan.epochs,
            plan.steps_per_epoch,
            plan.batch_size,
            plan.image_size_hw,
            plan.device,
            plan.precision,
            plan.output_dir,
        )
        for line in plan.changes:
            logger.info("changed: %s", line)
        for line in plan.schedule:
            logger.info("schedule: %s", line)

    def step_finished(self, report: StepReport) -> None:
        """Log every `print_freq` steps."""
        if report.is_logged:
            logger.info(
                "epoch=%d step=%d/%d loss=%.4f lr=%.2e grad_norm=%.3f images_s=%.1f data_s=%.3f "
                "step_s=%.3f eta_s=%.0f",
                report.epoch + 1,
                report.step + 1,
                report.num_steps,
                report.loss,
                report.lr,
                report.grad_norm,
                report.images_per_s,
                report.data_s,
                report.step_s,
                report.eta_s,
            )

    def epoch_finished(self, report: EpochReport) -> None:
        """Log the metrics of an evaluated epoch, and the time."""
        logger.info(
            "epoch=%d train_loss=%.4f%s train_s=%.1f eval_s=%.1f eta_s=%.0f skipped_steps=%d %s",
            report.epoch + 1,
            report.train_loss,
            "" if report.evaluation is None else _metrics(report, report.evaluation),
            report.train_s,
            report.eval_s,
            report.eta_s,
            report.skipped_steps,
            _times(report),
        )
        for name in report.skipped_images:
            logger.warning("epoch=%d image not used: %s", report.epoch + 1, name)

    def train_finished(self, result: FitResult) -> None:
        """Log the best epoch and the reason of an early end."""
        if result.stopped:
            logger.info("stopped: %s; complete epochs: %d", result.stopped, result.last_epoch + 1)
        if result.best is not None:
            for line in metrics_table(result.best):
                logger.info("%s", line, extra=FILE_ONLY)
            logger.info(
                "best_epoch=%d AP=%.4f AP50=%.4f threshold=%.3f",
                result.best_epoch + 1,
                result.best.stats["AP"],
                result.best.stats["AP50"],
                result.best.best.threshold,
            )


def _metrics(report: EpochReport, evaluation: Evaluation) -> str:
    stats = evaluation.stats
    names = [name for name in ("AP", "AP50", "AP75", "AP_coco") if name in stats]
    return (
        f" val_loss={evaluation.loss:.4f} "
        + " ".join(f"{name}={stats[name]:.4f}" for name in names)
        + f" best_ap={report.best_ap:.4f} best_epoch={report.best_epoch + 1}"
    )


def _times(report: EpochReport) -> str:
    """Return the time of the epoch by section and the bottleneck."""
    shares = " ".join(f"{name}={share:.0%}" for name, share in report.time_shares.items())
    return f"{shares} verdict={json.dumps(report.bottleneck)}"


def metrics_table(evaluation: Evaluation) -> list[str]:
    """Return the metrics per class as aligned lines."""
    width = max([5, *(len(c.name) for c in evaluation.classes)])
    lines = [f"{'class':<{width}}  boxes     AP   AP50  threshold     F1"]
    for c in evaluation.classes:
        lines.append(
            f"{c.name:<{width}}  {c.num_boxes:>5}  {c.ap:>5.3f}  {c.ap50:>5.3f}  "
            f"{c.best.threshold:>9.3f}  {c.best.f1:.3f}"
        )
    return lines


class JsonLog(TrainingEvents):
    """Writes `log.jsonl`: one JSON object per line; epochs and steps count from 0.

    Args:
        path: the file; a resumed run appends to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_complete = True

    def train_started(self, plan: TrainingPlan) -> None:
        """Write the plan."""
        self._write("plan", {**vars(plan), "output_dir": plan.output_dir.name})

    def step_finished(self, report: StepReport) -> None:
        """Write every `print_freq` steps."""
        if report.is_logged:
            self._write("step", vars(report))

    def epoch_finished(self, report: EpochReport) -> None:
        """Write the metrics."""
        self._write("epoch", report.as_log())

    def train_finished(self, result: FitResult) -> None:
        """Write the result."""
        content: dict[str, Any] = {
            "best_epoch": result.best_epoch,
            "last_epoch": result.last_epoch,
            "stopped": result.stopped,
            "checkpoints": {name: path.name for name, path in result.checkpoints.items()},
        }
        for name, evaluation in (("best", result.best), ("confirmed", result.confirmed)):
            content[name] = evaluation.as_dict() if evaluation else None
        self._write("end", content)

    def _write(self, kind: str, content: Mapping[str, Any]) -> None:
        line = json.dumps({"event": kind, **without_non_finite(content)}, default=str) + "\n"
        try:
            with self.path.open("ab+") as file:
                if _ends_within_line(file):  # after a kill or a full disk
                    line = "\n" + line
                file.write(line.encode())
        except OSError as error:
            if self._is_complete:
                logger.warning(
                    "%s: cannot be written (%s); lines will be missing", self.path, error
                )
            self._is_complete = False


def _ends_within_line(file: BinaryIO) -> bool:
    """Return whether a file does not end with a newline."""
    if not file.seek(0, os.SEEK_END):
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def step_values(report: StepReport) -> dict[str, float]:
    """Return the values of a step for TensorBoard and other trackers."""
    return {
        "train/loss": report.loss,
        **{f"train_terms/{name}": value for name, value in report.losses.items()},
        "train/lr": report.lr,
        "train/grad_norm": report.grad_norm,
        "speed/images_per_s": report.images_per_s,
        "speed/data_s": report.data_s,
        "speed/step_s": report.step_s,
    }


def epoch_values(report: EpochReport) -> dict[str, float]:
    """Return the values of an epoch for TensorBoard and other trackers."""
    shares = {f"time/{name}": share for name, share in report.time_shares.items()}
    evaluation = report.evaluation
    if evaluation is None:
        return shares
    return {
        **{f"val/{name}": value for name, value in evaluation.stats.items()},
        "val/loss": evaluation.loss,
        "val/best_f1": evaluation.best.f1,
        "val/best_threshold": evaluation.best.threshold,
        **{f"val_AP/{c.name}": c.ap for c in evaluation.classes if math.isfinite(c.ap)},
        **shares,
    }


class TensorBoard(TrainingEvents):
    """Writes scalars for TensorBoard until writing fails; steps and epochs count from 1.

    Args:
        writer: the writer; closed at the end of the training.
    """

    def __init__(self, writer: Any) -> None:
        self.writer = writer
        self._is_alive = True

    def step_finished(self, report: StepReport) -> None:
        """Write losses and speed."""
        if report.is_fresh:
            self._write(step_values(report), report.global_step)

    def epoch_finished(self, report: EpochReport) -> None:
        """Write metrics."""
        texts = {"time/verdict": report.bottleneck}
        self._write(epoch_values(report), report.epoch + 1, texts=texts, flush=True)

    def train_finished(self, result: FitResult) -> None:
        """Close the files."""
        if self._is_alive:
            self._guarded(self.writer.close)

    def _write(
        self,
        values: Mapping[str, float],
        step: int,
        *,
        texts: Mapping[str, str] | None = None,
        flush: bool = False,
    ) -> None:
        def write() -> None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
            for name, text in (texts or {}).items():
                self.writer.add_text(name, text, step)
            if flush:
                self.writer.flush()

        if self._is_alive:
            self._guarded(write)

    def _guarded(self, write: Callable[[], None]) -> None:
        """Write; an error disables TensorBoard, and training continues."""
        try:
            write()
        except (OSError, RuntimeError, ValueError) as error:
            self._is_alive = False
            logger.warning("TensorBoard is disabled, training continues: %s", error)

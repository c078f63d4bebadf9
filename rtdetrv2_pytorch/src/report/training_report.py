"""`report.html`: metrics, errors and settings of a run, from its log and its best weights."""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..core.yaml_config import YAMLConfig
from ..data.images.pixel_range import checked_range
from ..data.metrics.evaluator import ClassMetrics
from ..data.metrics.operating_point import OperatingPoint
from ..doctor.data_report import REPORT_HTML, REPORT_JSON
from ..misc import distributed
from ..misc.files import write_text
from ..misc.pages import render
from ..misc.text import counted
from ..solver.events import FitResult
from ..solver.observers import LOG
from . import setup_tables
from .advice import Facts, advice, confusions
from .annotated_images import AnnotatedImage, annotated_image, select_examples
from .charts import calibration_chart, run_charts, threshold_charts
from .label_errors import LabelErrors, label_errors
from .outcomes import Calibration, Outcome, Outcomes, confusion_matrix
from .plots import RenderedPlot, render_plot, shortened
from .report_source import ReportSource, report_source
from .run_log import Event, RunLog, read_run_log
from .snapshots import Snapshot, preset_sheet, snapshots

logger = logging.getLogger(__name__)

REPORT = "report.html"
_TEMPLATE = Path(__file__).with_name("page.html")
_MAX_IMAGES = 4  # per group
_DEFAULT_THRESHOLD = 0.5  # while F1 is 0
_MAX_MATRIX_CLASSES = 20
# Object sizes as COCO defines them: limits in words and in square pixels.
_SIZES = {
    "small": ("below 32x32 pixels", 0, 32**2),
    "medium": ("32x32 to 96x96 pixels", 32**2, 96**2),
    "large": ("96x96 pixels and more", 96**2, 1e10),
}

_TIME_NAMES = {
    "data": "data loading",
    "transfer": "transfer to device",
    "forward": "forward",
    "matching": "matching and losses",
    "backward": "backward",
    "optimizer": "optimizer and EMA",
    "evaluation": "evaluation",
    "other": "logging",
}


@dataclass(frozen=True)
class SizeRow:
    """Metrics of a range of object sizes."""

    name: str
    limits: str
    num_boxes: int
    ap: float
    recall: float


@dataclass(frozen=True)
class Matrix:
    """The displayed part of the confusion matrix."""

    names: Sequence[str]  # class names, then "background"
    counts: np.ndarray  # [K + 1, K + 1]
    shares: np.ndarray  # fraction of the row, 0..1
    left_out: int  # classes that are not displayed


@dataclass(frozen=True)
class TimeShare:
    """Time spent in a part of training."""

    name: str
    seconds: float
    share: float


def write_report(source: ReportSource) -> Path:
    """Write `report.html` to the output directory.

    Raises:
        OSError: if the file is not writable.
    """
    path = source.folder / REPORT
    write_text(path, render(_TEMPLATE, report=TrainingReport(source)))
    return path


def write_report_of(cfg: YAMLConfig, result: FitResult) -> Path | None:
    """Write the report of a finished training, on the main rank.

    A failure is logged, because the checkpoints are complete without a report.

    Returns:
        The file, or None if reports are off or the report could not be written.
    """
    if not (cfg.settings.report and distributed.is_main()):
        return None
    logger.info("writing the report")
    try:
        return write_report(report_source(cfg, cfg.output_dir, result.confirmed or result.best))
    except Exception:
        logger.exception("Could not write the report. Training is complete")
        return None


class TrainingReport:
    """Content of the page, section by section."""

    def __init__(self, source: ReportSource) -> None:
        self.source = source
        self.evaluation = source.evaluation
        self.names = list(source.annotations.categories.names)
        self.log: RunLog = read_run_log(source.folder / LOG)
        self.files = list(setup_tables.files(source.folder))
        self.versions = setup_tables.versions()
        self.settings = setup_tables.settings(source.config, self.log.plan)
        self.yaml = setup_tables.resolved_yaml(source.config)
        self.data_page = REPORT_HTML

    @property
    def title(self) -> str:
        """`run_name` of the configuration, or the name of the output directory."""
        if self.source.config.get("run_name"):
            return str(self.source.config["run_name"])
        folder = self.source.folder.resolve()
        return folder.parent.name if folder.name == "output" and folder.parent.name else folder.name

    @cached_property
    def outcomes(self) -> Outcomes | None:
        """Detections of the best weights against annotations, if available."""
        if self.evaluation is None or self.evaluation.detections is None:
            return None
        return Outcomes(self.source.annotations, self.evaluation.detections)

    @property
    def best(self) -> OperatingPoint | None:
        """Operating point with the highest F1, if F1 is above 0."""
        if self.evaluation is None or self.evaluation.best.f1 <= 0:
            return None
        return self.evaluation.best

    @property
    def threshold(self) -> float:
        """Score threshold of this page."""
        return self.best.threshold if self.best else _DEFAULT_THRESHOLD

    @cached_property
    def at_threshold(self) -> list[Outcome]:
        """Outcomes of every evaluated image at the threshold."""
        return list(self.outcomes.at(self.threshold)) if self.outcomes else []

    @cached_property
    def background(self) -> list[Outcome]:
        """Outcomes of images without objects, most false positives first."""
        found = [o for o in self.at_threshold if not len(o.record.labels)]
        return sorted(found, key=lambda o: (-o.num_false, -float(o.scores.max(initial=0))))

    @property
    def state(self) -> tuple[str, str]:
        """How the run ended, and its severity: "good", "warning" or "note"."""
        if not self.log.plan:
            return "log.jsonl is missing: the report contains no training metrics", "warning"
        epochs = f"{len(self.log.epochs)} of {counted(self.log.plan.get('epochs', 0), 'epoch')}"
        if self.log.end is None:
            return f"Not finished: the log contains {epochs}", "warning"
        if self.log.end.get("stopped"):
            return f"Stopped after {epochs}: {self.log.end['stopped']}", "note"
        return f"Finished: {epochs}", "good"

    @property
    def skipped(self) -> tuple[int, list[str]]:
        """Number of skipped steps, and names of unreadable images."""
        steps = sum(int(e.get("skipped_steps") or 0) for e in self.log.epochs)
        images = dict.fromkeys(n for e in self.log.epochs for n in e.get("skipped_images") or ())
        return steps, list(images)

    @cached_property
    def matrix(self) -> np.ndarray | None:
        """The full confusion matrix; see `confusion_matrix`."""
        return confusion_matrix(self.at_threshold, len(self.names)) if self.at_threshold else None

    @cached_property
    def calibration(self) -> Calibration | None:
        """See `Outcomes.calibration`."""
        return self.outcomes.calibration() if self.outcomes else None

    def advice(self) -> list[str]:
        """Return recommendations; see `advice`."""
        return advice(
            Facts(
                log=self.log,
                evaluation=self.evaluation,
                matrix=self.matrix,
                train_boxes=self.source.train_boxes,
                num_images=len(self.at_threshold),
                most_objects=self.source.annotations.most_objects(),
                most_detections=self._most_detections(),
                num_background=len(self.background),
                num_background_wrong=sum(o.num_false > 0 for o in self.background),
                calibration_error=self.calibration.error if self.calibration else math.nan,
            )
        )

    def _most_detections(self) -> int:
        found = self.evaluation.detections if self.evaluation is not None else None
        return 0 if found is None else int(found.counts.max(initial=0))

    def run_plots(self) -> list[RenderedPlot]:
        """Render curves by epoch."""
        return [render_plot(chart) for chart in run_charts(self.log)]

    def threshold_plots(self) -> list[RenderedPlot]:
        """Render curves by score threshold."""
        if self.outcomes is None or self.evaluation is None:
            return []
        charts = threshold_charts(self.outcomes, self.names, self.evaluation.best)
        return [render_plot(chart) for chart in charts]

    def calibration_plot(self) -> RenderedPlot | None:
        """Render the calibration curve, if there are detections."""
        if self.calibration is None or not self.calibration.counts.any():
            return None
        return render_plot(calibration_chart(self.calibration))

    def classes(self) -> list[tuple[ClassMetrics, int | None]]:
        """Return (metrics, training boxes), lowest AP first, classes without boxes last."""
        if self.evaluation is None:
            return []
        unknown: list[int | None] = [None] * len(self.evaluation.classes)
        boxes = self.source.train_boxes or unknown
        rows = list(zip(self.evaluation.classes, boxes, strict=True))
        return sorted(rows, key=lambda row: (math.isnan(row[0].ap), row[0].ap))

    def sizes(self) -> list[SizeRow]:
        """Return metrics of small, medium and large objects, as COCO defines them."""
        if self.evaluation is None or self.outcomes is None:
            return []
        stats, areas = self.evaluation.stats, self.outcomes.box_areas()
        return [
            SizeRow(
                name,
                limits,
                int(((areas >= low) & (areas < high)).sum()),
                stats[f"AP_{name}"],
                stats[f"AR_{name}"],
            )
            for name, (limits, low, high) in _SIZES.items()
            if f"AP_{name}" in stats  # the evaluator may have other ranges
        ]

    def shown_matrix(self) -> Matrix | None:
        """Return the confusion matrix of the classes with the most errors."""
        if self.matrix is None or not self.matrix.any():
            return None
        mistakes = self.matrix.sum(axis=0) + self.matrix.sum(axis=1) - 2 * np.diag(self.matrix)
        order = np.argsort(-mistakes[:-1], kind="stable")[:_MAX_MATRIX_CLASSES]
        shown = np.append(np.sort(order), len(self.names))
        counts = self.matrix[np.ix_(shown, shown)]
        sums = self.matrix.sum(axis=1)[shown]
        names = [*(self.names[i] for i in shown[:-1]), "background"]
        shares = counts / np.maximum(sums, 1)[:, None]
        return Matrix(names, counts, shares, len(self.names) - len(order))

    def confused_classes(self, most: int = 8) -> list[tuple[str, str, int, int]]:
        """Return (class, predicted class, boxes, all boxes of the class), most boxes first."""
        pairs = confusions(self.matrix)[:most] if self.matrix is not None else []
        return [(self.names[t], self.names[f], count, total) for t, f, count, total in pairs]

    def example_images(self) -> dict[str, list[AnnotatedImage]]:
        """Return the worst, median and best validation images."""
        with_boxes = [o for o in self.at_threshold if o.num_boxes]
        chosen = select_examples(with_boxes, _MAX_IMAGES)
        images = {name: list(self._images(found)) for name, found in chosen.items()}
        return {name: found for name, found in images.items() if found}

    def background_images(self) -> list[AnnotatedImage]:
        """Return images without objects that have false positives."""
        wrong = [o for o in self.background if o.num_false]
        return list(self._images(wrong[:_MAX_IMAGES]))

    def _images(self, outcomes: Sequence[Outcome]) -> Iterator[AnnotatedImage]:
        source = self.source
        pixel_range = checked_range(source.config.get("pixel_range"))
        for outcome in outcomes:
            image = annotated_image(outcome, source.img_folder, self.names, pixel_range)
            if image is not None:
                yield image

    def snapshots(self) -> list[Snapshot]:
        """Return images saved during training."""
        return snapshots(self.source.folder)

    def preset_sheet(self) -> Snapshot | None:
        """Return the picture of the augmentation presets, if it was saved."""
        return preset_sheet(self.source.folder)

    @property
    def seconds(self) -> float:
        """Duration of all epochs with their evaluations."""
        return sum(map(_seconds, self.log.epochs))

    def time_shares(self) -> list[TimeShare]:
        """Return time by part of training, the longest first."""
        seconds: dict[str, float] = {}
        for event in self.log.epochs:
            for name, share in (event.get("time_shares") or {}).items():
                seconds[name] = seconds.get(name, 0.0) + share * _seconds(event)
        total = sum(seconds.values())
        parts = [TimeShare(_TIME_NAMES.get(n, n), s, s / total) for n, s in seconds.items() if s]
        return sorted(parts, key=lambda part: -part.seconds)

    def speed(self) -> list[tuple[str, str]]:
        """Return rows about throughput."""
        rates = [value for _, value in self.log.numbers("images_per_s")]
        steps = [value for _, value in self.log.numbers("step_s")]
        evaluations = [value for _, value in self.log.numbers("eval_s") if value > 0]
        rows = []
        verdict = self.log.epochs[-1].get("verdict") if self.log.epochs else None
        if verdict:
            rows.append(("verdict", str(verdict)))
        if rates:
            rows.append(("training", f"{float(np.median(rates)):.1f} images/s (median epoch)"))
            rows.append(("step", f"{float(np.median(steps)):.3f} s"))
        if evaluations and self.log.plan.get("num_val_images"):
            per_s = self.log.plan["num_val_images"] / float(np.median(evaluations))
            rows.append(
                ("evaluation", f"{per_s:.1f} images/s, including loading, losses and COCO metrics")
            )
        return rows

    def data_findings(self) -> dict[str, Any] | None:
        """Return the data doctor's report, if the file exists and is readable."""
        try:
            content = json.loads((self.source.folder / REPORT_JSON).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("Could not read %s: %s", REPORT_JSON, error)
            return None
        return content if isinstance(content, dict) and "findings" in content else None

    def label_errors(self) -> LabelErrors | None:
        """Return the suspicions of the label radar, if it was run; see `label_errors`."""
        folders = {"val": self.source.img_folder}
        if self.source.train_img_folder is not None:
            folders["train"] = self.source.train_img_folder
        pixel_range = checked_range(self.source.config.get("pixel_range"))
        return label_errors(self.source.folder, folders, pixel_range)

    @staticmethod
    def number(value: float | None, digits: int = 3) -> str:
        """Format a metric; a dash if there is none."""
        is_known = value is not None and math.isfinite(value) and value >= 0
        return f"{value:.{digits}f}" if is_known else "-"

    @staticmethod
    def clock(seconds: float) -> str:
        """Format a duration."""
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        if hours:
            return f"{hours} h {minutes:02d} min"
        return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"

    short = staticmethod(shortened)


def _seconds(epoch: Event) -> float:
    return float(epoch.get("train_s") or 0) + float(epoch.get("eval_s") or 0)

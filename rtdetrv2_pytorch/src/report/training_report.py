"""`report.html`: everything that a run tells, computed from its log and its best weights."""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.yaml_config import YAMLConfig
from ..data.annotations import Annotations
from ..data.metrics.evaluator import ClassMetrics, Evaluation
from ..data.metrics.operating_point import OperatingPoint
from ..doctor.data_report import REPORT_HTML, REPORT_JSON
from ..misc import distributed
from ..misc.pages import render
from . import setup_tables
from .advice import Facts, advice, confusions
from .annotated_images import AnnotatedImage, annotated_image, select_examples
from .charts import calibration_chart, run_charts, threshold_charts
from .outcomes import Calibration, Outcome, Outcomes, confusion_matrix
from .plots import Drawing, draw, shortened
from .run_log import Event, RunLog, read_run_log
from .snapshots import Snapshot, snapshots

if TYPE_CHECKING:
    from ..solver.events import FitResult

logger = logging.getLogger(__name__)

REPORT = "report.html"
LOG = "log.jsonl"
_TEMPLATE = Path(__file__).with_name("page.html")
_PICTURES = 4  # of a kind
_BACKGROUND_PICTURES = 4
_FALLBACK_THRESHOLD = 0.5  # where no detection is right, so that none can be recommended
_MATRIX_CLASSES = 20
_SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}  # COCO's

_SECTIONS = {  # of the solver's stopwatch, for people
    "data": "waiting for images",
    "transfer": "to the device",
    "forward": "network, forward",
    "matching": "matching and losses",
    "backward": "network, backward",
    "optimizer": "optimizer and average",
    "evaluation": "evaluating",
    "other": "log and progress",
}


@dataclass(frozen=True, kw_only=True)
class ReportSource:
    """What a report is made of."""

    folder: Path  # of the run; gets the page
    config: Mapping[str, Any]  # resolved
    evaluation: Evaluation | None  # of the best weights; None: there are none
    annotations: Annotations  # of the validation split
    img_folder: Path  # of the validation split
    train_boxes: Sequence[int] = ()  # of each class


@dataclass(frozen=True)
class ClassRow:
    """A class in numbers."""

    metrics: ClassMetrics
    train_boxes: int | None


@dataclass(frozen=True)
class SizeRow:
    """A range of sizes in numbers."""

    name: str
    limits: str
    num_boxes: int
    ap: float
    recall: float


@dataclass(frozen=True)
class Matrix:
    """The part of the confusion matrix that is shown."""

    names: Sequence[str]  # the classes, and "nothing" at the end
    counts: np.ndarray  # [K + 1, K + 1]
    shares: np.ndarray  # of the row's sum, 0..1
    left_out: int  # classes


@dataclass(frozen=True)
class TimeShare:
    """Where a part of the time went."""

    name: str
    seconds: float
    share: float


def report_source(cfg: YAMLConfig, folder: Path, evaluation: Evaluation | None) -> ReportSource:
    """Collect the input of a report.

    Args:
        cfg: configuration of the run.
        folder: output directory of the run.
        evaluation: metrics of the best weights, or None.
    """
    train, val = cfg.train_dataset.annotations, cfg.val_dataset
    boxes = np.bincount(train.labels[train.iscrowd == 0], minlength=len(train.categories))
    return ReportSource(
        folder=folder,
        config=cfg.yaml_cfg,
        evaluation=evaluation,
        annotations=val.annotations,
        img_folder=val.img_folder,
        train_boxes=boxes.tolist(),
    )


def write_report(source: ReportSource) -> Path:
    """Write `report.html` into the folder of the run.

    Raises:
        OSError: if it cannot be written.
    """
    path = source.folder / REPORT
    partial = path.with_name(f".{REPORT}.partial")
    try:
        partial.write_text(render(_TEMPLATE, report=TrainingReport(source)), encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # half a page, if the disk is full
    return path


def write_report_of(cfg: YAMLConfig, result: "FitResult") -> Path | None:
    """Write the report of a finished training, on the main rank.

    A failure is logged, because the checkpoints are complete without a report.

    Args:
        cfg: configuration of the run.
        result: what `DetSolver.fit` returned.

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
    """What the page shows, section by section.

    Args:
        source: what is known.
    """

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
        """Name of the run: what people call it, else that of its folder."""
        if self.source.config.get("run_name"):
            return str(self.source.config["run_name"])
        folder = self.source.folder.resolve()
        return folder.parent.name if folder.name == "output" and folder.parent.name else folder.name

    @cached_property
    def outcomes(self) -> Outcomes | None:
        """What the best weights find; None where that is not known."""
        if self.evaluation is None or self.evaluation.found is None:
            return None
        return Outcomes(self.source.annotations, self.evaluation.found)

    @property
    def best(self) -> OperatingPoint | None:
        """Where F1 is highest, if anything is found at all."""
        if self.evaluation is None or self.evaluation.best.f1 <= 0:
            return None
        return self.evaluation.best

    @property
    def threshold(self) -> float:
        """The score from which detections are counted on this page."""
        return self.best.threshold if self.best else _FALLBACK_THRESHOLD

    @cached_property
    def at_threshold(self) -> list[Outcome]:
        """Every image that was looked at."""
        return list(self.outcomes.at(self.threshold)) if self.outcomes else []

    @cached_property
    def background(self) -> list[Outcome]:
        """Images on which there is nothing to find, those with the most mistakes first."""
        found = [o for o in self.at_threshold if not len(o.record.labels)]
        return sorted(found, key=lambda o: (-o.num_false, -float(o.scores.max(initial=0))))

    @property
    def state(self) -> tuple[str, str]:
        """How the run ended, and whether that is "good", a "warning" or a "note"."""
        planned, done = self.log.plan.get("epochs"), len(self.log.epochs)
        if not self.log.plan:
            return "There is no log.jsonl: what happened in training is not known", "warning"
        if self.log.end is None:
            return f"Not ended: {done} of {planned} epochs are in the log", "warning"
        if self.log.end.get("stopped"):
            return f"Stopped after {done} of {planned} epochs: {self.log.end['stopped']}", "note"
        return f"Finished: {done} of {planned} epochs", "good"

    @property
    def skipped(self) -> tuple[int, list[str]]:
        """Steps that were skipped, and images that could not be used."""
        steps = sum(int(e.get("skipped_steps") or 0) for e in self.log.epochs)
        images = dict.fromkeys(n for e in self.log.epochs for n in e.get("skipped_images") or ())
        return steps, list(images)

    @cached_property
    def matrix(self) -> np.ndarray | None:
        """The whole confusion matrix; see `confusion_matrix`."""
        return confusion_matrix(self.at_threshold, len(self.names)) if self.at_threshold else None

    @cached_property
    def calibration(self) -> Calibration | None:
        """See `Outcomes.calibration`."""
        return self.outcomes.calibration() if self.outcomes else None

    def advice(self) -> list[str]:
        """What to do next."""
        return advice(
            Facts(
                log=self.log,
                evaluation=self.evaluation,
                matrix=self.matrix,
                train_boxes=self.source.train_boxes,
                num_images=len(self.at_threshold),
                num_background=len(self.background),
                num_background_wrong=sum(o.num_false > 0 for o in self.background),
                calibration_error=self.calibration.error if self.calibration else math.nan,
            )
        )

    def run_plots(self) -> list[Drawing]:
        """Curves over the epochs."""
        return [draw(chart) for chart in run_charts(self.log)]

    def threshold_plots(self) -> list[Drawing]:
        """Curves over the score thresholds."""
        if self.outcomes is None or self.evaluation is None:
            return []
        charts = threshold_charts(self.outcomes, self.names, self.evaluation.best)
        return [draw(chart) for chart in charts]

    def calibration_plot(self) -> Drawing | None:
        """Scores against how often they are right; None where nothing was found."""
        if self.calibration is None or not self.calibration.counts.any():
            return None
        return draw(calibration_chart(self.calibration))

    def classes(self) -> list[ClassRow]:
        """All classes, the weakest first; those without boxes last."""
        if self.evaluation is None:
            return []
        unknown: list[int | None] = [None] * len(self.evaluation.classes)
        boxes = self.source.train_boxes or unknown
        rows = [ClassRow(c, n) for c, n in zip(self.evaluation.classes, boxes, strict=True)]
        return sorted(rows, key=lambda r: (math.isnan(r.metrics.ap), r.metrics.ap))

    def sizes(self) -> list[SizeRow]:
        """Small, medium and large boxes, as COCO has them."""
        if self.evaluation is None or self.outcomes is None:
            return []
        stats, areas = self.evaluation.stats, self.outcomes.box_areas()
        return [
            SizeRow(
                name,
                _limits(low, high),
                int(((areas >= low) & (areas < high)).sum()),
                stats[f"AP_{name}"],
                stats[f"AR_{name}"],
            )
            for name, (low, high) in _SIZES.items()
            if f"AP_{name}" in stats  # there may be other ranges
        ]

    def shown_matrix(self) -> Matrix | None:
        """The confusion matrix; of many classes those with the most mistakes."""
        if self.matrix is None or not self.matrix.any():
            return None
        mistakes = self.matrix.sum(axis=0) + self.matrix.sum(axis=1) - 2 * np.diag(self.matrix)
        order = np.argsort(-mistakes[:-1], kind="stable")[:_MATRIX_CLASSES]
        shown = np.append(np.sort(order), len(self.names))
        counts = self.matrix[np.ix_(shown, shown)]
        sums = self.matrix.sum(axis=1)[shown]
        names = [*(self.names[i] for i in shown[:-1]), "nothing"]
        shares = counts / np.maximum(sums, 1)[:, None]
        return Matrix(names, counts, shares, len(self.names) - len(order))

    def mix_ups(self, most: int = 8) -> list[tuple[str, str, int, int]]:
        """(true class, class found, boxes, of) of the classes that are taken for each other."""
        pairs = confusions(self.matrix)[:most] if self.matrix is not None else []
        return [(self.names[t], self.names[f], count, total) for t, f, count, total in pairs]

    def pictures(self) -> dict[str, list[AnnotatedImage]]:
        """The worst, middle and best validation images."""
        with_boxes = [o for o in self.at_threshold if o.num_boxes]
        chosen = select_examples(with_boxes, _PICTURES)
        drawn = {name: list(self._pictures(found)) for name, found in chosen.items()}
        return {name: found for name, found in drawn.items() if found}

    def background_pictures(self) -> list[AnnotatedImage]:
        """Images without objects on which something is found."""
        wrong = [o for o in self.background if o.num_false]
        return list(self._pictures(wrong[:_BACKGROUND_PICTURES]))

    def _pictures(self, outcomes: Sequence[Outcome]) -> Iterator[AnnotatedImage]:
        for outcome in outcomes:
            picture = annotated_image(outcome, self.source.img_folder, self.names)
            if picture is not None:
                yield picture

    def snapshots(self) -> list[Snapshot]:
        """Pictures that were made while it trained."""
        return snapshots(self.source.folder)

    @property
    def seconds(self) -> float:
        """Of all epochs, with their evaluations."""
        return sum(map(_seconds, self.log.epochs))

    def time_shares(self) -> list[TimeShare]:
        """Where the time of the epochs went that tell it, the largest part first."""
        seconds: dict[str, float] = {}
        for event in self.log.epochs:
            for name, share in (event.get("time_shares") or {}).items():
                seconds[name] = seconds.get(name, 0.0) + share * _seconds(event)
        total = sum(seconds.values())
        parts = [TimeShare(_SECTIONS.get(n, n), s, s / total) for n, s in seconds.items() if s]
        return sorted(parts, key=lambda part: -part.seconds)

    def speed(self) -> list[tuple[str, str]]:
        """How fast it was."""
        rates = [value for _, value in self.log.numbers("images_per_s")]
        steps = [value for _, value in self.log.numbers("step_s")]
        evaluations = [value for _, value in self.log.numbers("eval_s")]
        rows = []
        verdict = self.log.epochs[-1].get("verdict") if self.log.epochs else None
        if verdict:
            rows.append(("verdict", str(verdict)))
        if rates:
            rows.append(("training", f"{float(np.median(rates)):.1f} images/s (median epoch)"))
            rows.append(("a step", f"{float(np.median(steps)):.3f} s"))
        if evaluations and self.log.plan.get("num_val_images"):
            per_s = self.log.plan["num_val_images"] / float(np.median(evaluations))
            rows.append(
                ("evaluating", f"{per_s:.1f} images/s, with loading, losses and COCO metrics")
            )
        return rows

    def data_findings(self) -> dict[str, Any] | None:
        """The data doctor's report, if it is there and can be read."""
        try:
            content = json.loads((self.source.folder / REPORT_JSON).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("%s: cannot be read (%s)", REPORT_JSON, error)
            return None
        return content if isinstance(content, dict) and "findings" in content else None

    @staticmethod
    def number(value: float | None, digits: int = 3) -> str:
        """A metric, or a dash where there is none."""
        is_known = value is not None and math.isfinite(value) and value >= 0
        return f"{value:.{digits}f}" if is_known else "-"

    @staticmethod
    def clock(seconds: float) -> str:
        """A duration for people."""
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        if hours:
            return f"{hours} h {minutes:02d} min"
        return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"

    short = staticmethod(shortened)


def _seconds(epoch: Event) -> float:
    return float(epoch.get("train_s") or 0) + float(epoch.get("eval_s") or 0)


def _limits(low: float, high: float) -> str:
    low_side, high_side = round(math.sqrt(low)), round(math.sqrt(high))
    if not low:
        return f"below {high_side}x{high_side} pixels"
    if high >= 1e9:
        return f"{low_side}x{low_side} pixels and more"
    return f"{low_side}x{low_side} to {high_side}x{high_side} pixels"

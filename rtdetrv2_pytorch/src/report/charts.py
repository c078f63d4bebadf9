"""Charts of the report."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..data.metrics.operating_point import OperatingCurve, OperatingPoint
from ..misc.text import counted
from .outcomes import Calibration, Outcomes
from .plots import SERIES_COLORS, Plot, Series
from .run_log import RunLog

_MAX_COLORED_CLASSES = SERIES_COLORS - 1  # more classes share one gray
_UNIT = (-0.02, 1.02)


def run_charts(log: RunLog) -> list[Plot]:
    """Return charts of losses, AP and learning rate by epoch, as far as logged."""
    charts = [_loss(log), _precision(log), _terms(log), _learning_rate(log)]
    return [chart for chart in charts if any(len(series.xs) for series in chart.series)]


def _by_epoch(log: RunLog, name: str, *path: str, color: int, is_dashed: bool = False) -> Series:
    points = log.numbers(*path)
    return Series(
        name=name,
        xs=[epoch + 1 for epoch, _ in points],
        ys=[value for _, value in points],
        color=color,
        is_dashed=is_dashed,
        titles=[f"epoch {epoch + 1}: {name} {value:.4g}" for epoch, value in points],
    )


def _over_epochs(
    title: str, what: str, y_label: str, series: Sequence[Series], **more: Any
) -> Plot:
    return Plot(
        title=title,
        description=f"{what} by epoch",
        x_label="epoch",
        y_label=y_label,
        series=[each for each in series if len(each.xs)],
        **more,
    )


def _loss(log: RunLog) -> Plot:
    series = [
        _by_epoch(log, "training", "train_loss", color=0),
        _by_epoch(log, "validation", "val_loss", color=1, is_dashed=True),
    ]
    what = "Training and validation loss"
    return _over_epochs("Loss", what, "loss", series, whole_x=True)


def _precision(log: RunLog) -> Plot:
    series = [
        _by_epoch(log, "AP", "AP", color=0),
        _by_epoch(log, "AP50", "AP50", color=1),
        _by_epoch(log, "AP75", "AP75", color=2),
        _by_epoch(log, "AP, COCO's limit", "AP_coco", color=3, is_dashed=True),
    ]
    best = log.best
    top = max((float(max(one.ys)) for one in series if len(one.ys)), default=1.0)
    return _over_epochs(
        "Average precision",
        "Average precision on the validation split",
        "average precision",
        series,
        marks=[(best["epoch"] + 1, best["AP"], f"best AP {best['AP']:.3f}")] if best else (),
        y_range=(0, min(1.02, max(0.1, 1.15 * top))),
        whole_x=True,
    )


def _terms(log: RunLog) -> Plot:
    """Loss terms of the last decoder layer; the other layers behave similarly."""
    terms = log.epochs[-1].get("train_losses") if log.epochs else None
    names = [name for name in terms or () if name.count("_") == 1]
    series = [
        _by_epoch(log, name.removeprefix("loss_"), "train_losses", name, color=i)
        for i, name in enumerate(names[:SERIES_COLORS])
    ]
    title = "Loss terms of the last decoder layer"
    what = "Training loss terms of the last decoder layer"
    return _over_epochs(title, what, "loss term", series, whole_x=True)


def _learning_rate(log: RunLog) -> Plot:
    per_epoch = max(int(log.plan.get("steps_per_epoch") or 1), 1)
    points = [
        (s["epoch"] + (s["step"] + 1) / per_epoch, s["lr"])
        for s in log.steps
        if isinstance(s.get("lr"), int | float)
    ]
    highest = Series(name="highest", xs=[x for x, _ in points], ys=[y for _, y in points])
    return _over_epochs("Learning rate", "Learning rate", "learning rate", [highest], legend=False)


def _class_series(
    curves: Sequence[tuple[str, OperatingCurve]],
    overall: OperatingCurve,
    x: str,
    y: str,
) -> list[Series]:
    """One curve over all classes, and one per class; colored if there are few classes."""
    colored = 1 < len(curves) <= _MAX_COLORED_CLASSES
    series = [
        Series(
            name=name,
            xs=getattr(curve, x),
            ys=getattr(curve, y),
            color=i + 1 if colored else None,
            is_dashed=colored,
        )
        for i, (name, curve) in enumerate(curves)
        if len(curves) > 1
    ]
    own = Series(name="all classes", xs=getattr(overall, x), ys=getattr(overall, y), color=0)
    return [each for each in (*series, own) if len(each.xs)]


def threshold_charts(outcomes: Outcomes, names: Sequence[str], best: OperatingPoint) -> list[Plot]:
    """Return charts of precision, recall and F1 at every score threshold."""
    overall = outcomes.curve()
    if not len(overall.f1):
        return []
    has_best = best.f1 > 0
    curves = [(name, outcomes.curve(label)) for label, name in enumerate(names)]
    sides = [
        Series(name="precision", xs=overall.thresholds, ys=overall.precision, color=2),
        Series(name="recall", xs=overall.thresholds, ys=overall.recall, color=1),
        Series(name="F1", xs=overall.thresholds, ys=overall.f1, color=0),
    ]
    f1_text = f"F1 {best.f1:.2f} at {best.threshold:.2f}"
    unit_plot = partial(Plot, x_range=_UNIT, y_range=_UNIT)
    return [
        unit_plot(
            title="Precision and recall",
            description="Precision by recall at IoU 0.5, for all classes and per class",
            x_label="recall",
            y_label="precision",
            series=_class_series(curves, overall, "recall", "precision"),
            marks=[(best.recall, best.precision, f"at {best.threshold:.2f}")] if has_best else (),
        ),
        unit_plot(
            title="Precision, recall and F1 by threshold",
            description="Precision, recall and F1 at IoU 0.5 by score threshold, all classes",
            x_label="score threshold",
            y_label="",
            series=sides,
            marks=[(best.threshold, best.f1, f1_text)] if has_best else (),
        ),
        unit_plot(
            title="F1 per class",
            description="F1 at IoU 0.5 by score threshold, for all classes and per class",
            x_label="score threshold",
            y_label="F1",
            series=_class_series(curves, overall, "thresholds", "f1"),
            marks=[(best.threshold, best.f1, f"{best.threshold:.2f}")] if has_best else (),
        ),
    ]


def calibration_chart(calibration: Calibration) -> Plot:
    """Return a chart of precision by score."""
    known = np.flatnonzero(calibration.counts)
    texts = [
        f"{counted(calibration.counts[i], 'detection')} with scores {calibration.edges[i]:.1f} to "
        f"{calibration.edges[i + 1]:.1f}: {calibration.precision[i]:.0%} correct"
        for i in known
    ]
    share = calibration.counts / max(calibration.counts[1:].max(initial=0), 1)
    width = float(calibration.edges[1])
    return Plot(
        title="Calibration",
        description="Fraction of correct detections by score; the dotted line is perfect "
        "calibration. Bars: number of detections per score",
        x_label="score",
        y_label="fraction correct",
        series=[
            Series(
                name="precision",
                xs=calibration.scores[known],
                ys=calibration.precision[known],
                titles=texts,
            )
        ],
        bars=(calibration.edges[:-1], width, np.minimum(share, 1) * 0.3),
        x_range=_UNIT,
        y_range=_UNIT,
        diagonal=True,
        legend=False,
    )

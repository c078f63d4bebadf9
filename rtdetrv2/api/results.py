"""The results of a training, as Python objects and in a notebook."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from rtdetrv2_pytorch.src.misc.text import printable

_LOG = "log.jsonl"
# Colors of the report's plots on white.
_STYLE = (
    "--text:#1c2430;--dim:#5b6675;--line:#d9dee6;--card:#fff;"
    "--s0:#1769d2;--s1:#d4560b;--s2:#22863a;--s3:#8a3ab9;"
    "--s4:#a07700;--s5:#0b7f8f;--s6:#c2185b;--s7:#5d4037;"
    "background:#fff;color:#1c2430;display:flex;flex-wrap:wrap;gap:1rem"
)
_FIGURE_STYLE = "margin:0;width:420px"


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainingResult:
    """The results of `RTDETR.train`; a notebook shows its curves.

    Attributes:
        folder: output folder of the run.
        data: folder of the dataset.
        best: path of best.pth, the weights of the best epoch; None if no epoch finished.
        last: path of last.pth, from which the training can be resumed; None if it was not written.
        report: path of report.html; None if it was not written.
        metrics: of the best epoch on the validation split: AP, AP50, AP75, AP_small, ... as in
            COCO, 0 to 1, or -1 without boxes; best_threshold and best_f1; per_class, the same by
            class name.
        best_epoch: number of the best epoch, from 1; 0 if there is none.
        stopped: reason of an early end; None for a complete training.
    """

    folder: Path
    data: Path
    best: Path | None
    last: Path | None
    report: Path | None
    metrics: Mapping[str, Any]
    best_epoch: int
    stopped: str | None

    def __repr__(self) -> str:
        if not self.metrics:
            return f"TrainingResult({self.folder}: no finished epoch)"
        ap, ap50 = self.metrics["AP"], self.metrics["AP50"]
        return (
            f"TrainingResult({self.best}: AP {ap:.3f}, AP50 {ap50:.3f} in epoch {self.best_epoch})"
        )

    def _repr_html_(self) -> str:
        """Summary and curves of loss and AP."""
        from rtdetrv2_pytorch.src.report.charts import run_charts
        from rtdetrv2_pytorch.src.report.plots import render_plot
        from rtdetrv2_pytorch.src.report.run_log import read_run_log

        plots = [render_plot(plot) for plot in run_charts(read_run_log(self.folder / _LOG))]
        figures = "".join(
            f"<figure style='{_FIGURE_STYLE}'><figcaption><b>{escape(plot.title)}</b>"
            f"</figcaption>{plot.svg}</figure>"
            for plot in plots
        )
        return f"<p>{escape(printable(repr(self)))}</p><div style='{_STYLE}'>{figures}</div>"

"""Plots as SVG elements, rendered by matplotlib and colored by the page's style sheet.

matplotlib renders placeholder colors, which are then replaced by CSS variables: one SVG serves
the light and the dark theme. Text stays text, for screen readers and any zoom.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from ..misc.errors import extra
from ..misc.text import printable

_SIZE_PX = (420, 272)  # small, so that text is readable on a phone
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_MAX_POINTS = 300  # per curve
_MAX_MARKERS = 60
_LEGEND_LETTERS = 66  # per row, including the line samples
SERIES_COLORS = 8  # --s0 to --s7
# Placeholder color -> CSS variable.
_PLACEHOLDERS = {
    "#010203": "var(--text)",
    "#010204": "var(--dim)",
    "#010205": "var(--line)",
    "#010206": "var(--card)",
    **{f"#0103{i:02x}": f"var(--s{i})" for i in range(SERIES_COLORS)},
}
_TEXT, _DIM, _LINE, _CARD = list(_PLACEHOLDERS)[:4]
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 11.0,
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": _TEXT,
    "text.parse_math": False,  # class names may contain a dollar sign
    "axes.labelcolor": _DIM,
    "axes.edgecolor": _LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "figure.facecolor": "none",
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _DIM,
    "ytick.labelcolor": _DIM,
    "legend.frameon": False,
    "legend.fontsize": 10.0,
    "lines.linewidth": 1.8,
    "path.simplify": False,
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve of a plot."""

    name: str
    xs: Sequence[float] | np.ndarray
    ys: Sequence[float] | np.ndarray
    color: int | None = 0  # index of the series color; None: gray background
    is_dashed: bool = False
    titles: Sequence[str] = ()  # tooltip per point


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Content of one pair of axes."""

    title: str
    description: str  # text for screen readers
    x_label: str
    y_label: str
    series: Sequence[Series] = ()  # in drawing order
    marks: Sequence[tuple[float, float, str]] = ()  # annotated points: (x, y, text)
    bars: tuple[np.ndarray, float, np.ndarray] | None = None  # left edges, width, heights
    x_range: tuple[float, float] | None = None  # None: fit the data
    y_range: tuple[float, float] | None = None
    diagonal: bool = False  # whether to draw y = x
    whole_x: bool = False  # whether x ticks are integers
    legend: bool = True


@dataclass(frozen=True)
class RenderedPlot:
    """A plot as an SVG element."""

    title: str
    svg: str


def render_plot(plot: Plot) -> RenderedPlot:
    """Render a plot as SVG."""
    with extra("train"):
        import matplotlib  # slow to import
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": plot.description}):
        figure = Figure(figsize=(_SIZE_PX[0] / 72, _SIZE_PX[1] / 72), layout="constrained")
        axes = figure.subplots()
        titles: dict[str, Sequence[str]] = {}
        if plot.bars is not None:
            lefts, width, heights = plot.bars
            axes.bar(
                lefts,
                heights,
                width,
                align="edge",
                color=_series_color(0),
                alpha=0.25,
                linewidth=0,
            )
        if plot.diagonal:
            axes.plot([0, 1], [0, 1], color=_DIM, linestyle=(0, (2, 3)), linewidth=1)
        for number, series in enumerate(plot.series):
            _add(axes, series, f"series-{number}", titles)
        for x, y, text in plot.marks:
            axes.plot([x], [y], "o", color=_TEXT, markersize=6, markerfacecolor=_CARD, zorder=5)
            _annotate(axes, x, y, text, plot)
        axes.set(xlabel=plot.x_label, ylabel=plot.y_label)
        if plot.x_range:
            axes.set_xlim(*plot.x_range)
        if plot.y_range:
            axes.set_ylim(*plot.y_range)
        if plot.whole_x:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        named = [series for series in plot.series if series.color is not None]
        if plot.legend and named:
            widest = max(len(_label(series.name)) for series in named)
            columns = max(1, min(len(named), _LEGEND_LETTERS // (widest + 4)))
            figure.legend(loc="outside upper left", ncols=columns, handlelength=1.4, borderpad=0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return RenderedPlot(plot.title, _for_page(buffer.getvalue(), plot.description, titles))


def _series_color(place: int) -> str:
    return f"#0103{place % SERIES_COLORS:02x}"


def _add(axes: Any, series: Series, name: str, titles: dict[str, Sequence[str]]) -> None:
    xs, ys, texts = _subsample(series)
    is_marked = len(xs) == 1 or (bool(texts) and len(xs) <= _MAX_MARKERS)
    in_background = series.color is None
    axes.plot(
        xs,
        ys,
        color=_DIM if series.color is None else _series_color(series.color),
        alpha=0.35 if in_background else 1.0,
        linewidth=1.0 if in_background else 1.8,
        linestyle=(0, (4, 2)) if series.is_dashed else "-",
        marker="o" if is_marked else None,
        markersize=3.5,
        label=f"_{name}" if in_background else _label(series.name),
        gid=name,
    )
    titles[name] = texts if is_marked and texts else [series.name]


def _label(name: str) -> str:
    """Return legend text; matplotlib would hide a name that starts with an underscore."""
    text = shortened(name)
    return f"\u200b{text}" if text.startswith("_") else text


def shortened(name: str, most: int = 18) -> str:
    """Return a printable name of at most `most` characters."""
    text = printable(name)
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def _subsample(series: Series) -> tuple[np.ndarray, np.ndarray, Sequence[str]]:
    """Return the series with at most `_MAX_POINTS` points, including the first and last."""
    xs, ys = np.asarray(series.xs, dtype=float), np.asarray(series.ys, dtype=float)
    if len(xs) <= _MAX_POINTS:
        return xs, ys, series.titles
    chosen = np.unique(np.linspace(0, len(xs) - 1, _MAX_POINTS).round().astype(int))
    return xs[chosen], ys[chosen], ()


def _annotate(axes: Any, x: float, y: float, text: str, plot: Plot) -> None:
    """Write text next to a point, toward the center of the plot."""
    low, high = plot.x_range or axes.get_xlim()
    bottom, top = plot.y_range or axes.get_ylim()
    is_right, is_upper = x > (low + high) / 2, y > (bottom + top) / 2
    axes.annotate(
        printable(text),
        (x, y),
        xytext=(-7 if is_right else 7, -9 if is_upper else 9),
        textcoords="offset points",
        ha="right" if is_right else "left",
        va="top" if is_upper else "bottom",
        fontsize=10.5,
        fontweight="bold",
    )


def _for_page(text: str, description: str, titles: dict[str, Sequence[str]]) -> str:
    """Convert matplotlib's SVG file to an element of the page."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):  # the style would apply to the whole page
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for group in root.iter(f"{{{_SVG}}}g"):
        if group.get("id") in titles:
            _add_titles(group, titles[str(group.get("id"))])
    used = set(re.findall(r'(?:url\(|href=")#([\w-]+)', text))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"class": "plot", "role": "img", "aria-label": printable(description)}
    page = ElementTree.tostring(root, encoding="unicode")
    for placeholder, variable in _PLACEHOLDERS.items():
        page = page.replace(placeholder, variable)
    return page


def _add_titles(group: ElementTree.Element, texts: Sequence[str]) -> None:
    """Add tooltips to the points, or one to the whole curve."""
    points = list(group.iter(f"{{{_SVG}}}use"))
    if len(points) != len(texts):
        points, texts = [group], texts[:1]
    for element, text in zip(points, texts, strict=True):
        title = ElementTree.Element(f"{{{_SVG}}}title")
        title.text = printable(text)
        element.insert(0, title)

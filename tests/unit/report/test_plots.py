"""Plots as SVG: positions, colors and accessible text."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from rtdetrv2_pytorch.src.report.plots import Plot, Series, render_plot

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "<script>$x^2$ _\x1b[2J"


def plot(**values):
    given = {"title": "t", "description": "a description", "x_label": "x", "y_label": "y"}
    return render_plot(Plot(**{**given, **values}))


def element(drawing):
    return ElementTree.fromstring(drawing.svg)


def points_of(drawing, title):
    """Return positions of the markers with this title."""
    root = element(drawing)
    return [
        (float(use.get("x")), float(use.get("y")))
        for use in root.iter(f"{SVG}use")
        if any(child.text == title for child in use.iter(f"{SVG}title"))
    ]


def test_points_are_placed_to_scale():
    series = Series(name="a", xs=[0, 1, 2], ys=[0.0, 1.0, 0.5], titles=["p", "q", "r"])
    drawing = plot(series=[series], x_range=(0, 2), y_range=(0, 1))
    ((x0, y0),), ((x1, y1),), ((x2, y2),) = (points_of(drawing, t) for t in "pqr")
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.01)
    assert y0 - y2 == pytest.approx((y0 - y1) / 2, abs=0.01)
    assert y1 < y0
    assert x2 - x0 > 250  # of 420


def test_colors_are_css_variables_and_names_are_text():
    drawing = plot(series=[Series(name="AP", xs=[1, 2], ys=[1, 2], color=3)])
    assert "var(--s3)" in drawing.svg
    assert not re.search(r"#010[23]", drawing.svg)
    root = element(drawing)
    assert "AP" in [text.text for text in root.iter(f"{SVG}text")]
    assert (root.get("role"), root.get("aria-label")) == ("img", "a description")
    assert root.get("viewBox") == "0 0 420 272"
    assert not list(root.iter(f"{SVG}style"))


def test_names_are_escaped():
    drawing = plot(
        description=EVIL,
        series=[Series(name=EVIL, xs=[1], ys=[1], titles=[EVIL])],
        marks=[(1, 1, EVIL)],
    )
    root = element(drawing)  # the SVG is well-formed
    assert not [e for e in root.iter() if "script" in e.tag]
    assert "\x1b" not in drawing.svg
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert len([text for text in texts if "<script>$x^2$" in text]) == 2  # legend and mark


def test_different_plots_share_no_ids():
    one = plot(description="one", series=[Series(name="a", xs=[1, 2], ys=[1, 2])])
    two = plot(description="two", series=[Series(name="a", xs=[1, 2], ys=[1, 2])])
    ids = [set(re.findall(r' id="([^"]+)"', each.svg)) for each in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_long_curves_are_thinned():
    xs = np.arange(5000)
    drawing = plot(series=[Series(name="a", xs=xs, ys=xs**0.5)])
    assert len(drawing.svg) < 40_000
    assert plot(series=[Series(name="a", xs=[5], ys=[3])]).svg

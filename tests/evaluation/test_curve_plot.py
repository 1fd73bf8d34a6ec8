"""Line plots are valid SVG with the points in the right places."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasesam.evaluation.curve_plot import Curve, _ticks, draw_curves

SVG = "{http://www.w3.org/2000/svg}"


def lines(svg: str) -> list[list[tuple[float, float]]]:
    paths = [
        p.get("d") for p in ElementTree.fromstring(svg).iter(f"{SVG}path")
        if p.get("stroke-width") == "2"
    ]  # fmt: skip
    return [
        [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", d)] for d in paths
    ]


def test_points_lie_on_the_scale():
    curve = Curve(np.array([1.0, 2.0, 3.0]), np.array([0.0, 0.5, 1.0]))
    drawn = lines(draw_curves({"base": curve}, "clicks", "IoU", (0, 1)))[0]
    x, y = np.array(drawn).T
    np.testing.assert_allclose(np.diff(x), (x[-1] - x[0]) / 2, atol=0.11)
    # Up is less in SVG.
    np.testing.assert_allclose(np.diff(y), (y[-1] - y[0]) / 2, atol=0.11)
    assert y[0] > y[-1]


def test_gaps_break_the_line():
    curve = Curve(np.arange(4.0), np.array([0.1, np.nan, 0.3, 0.4]))
    svg = draw_curves({"a": curve}, "x", "y", None)
    path = next(p for p in ElementTree.fromstring(svg).iter(f"{SVG}path")
                if p.get("stroke-width") == "2").get("d")  # fmt: skip
    assert path.count("M") == 2
    assert path.count("L") == 1


def test_names_are_escaped():
    svg = draw_curves({"<b>&": Curve(np.zeros(1), np.zeros(1))}, "a<b", "c&d", None)
    texts = [t.text for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert {"<b>&", "a<b", "c&d"} <= set(texts)


@pytest.mark.parametrize("y", [[], [np.nan], [0.5, 0.5]])
def test_nothing_to_scale_by(y):
    curve = Curve(np.arange(len(y), dtype=float), np.array(y))
    ElementTree.fromstring(draw_curves({"a": curve}, "x", "y", None))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_and_within(low, span):
    high = low + span
    if high - low < span / 2:
        return
    ticks = _ticks(low, high)
    assert len(ticks) <= 7
    assert all(low - span * 1e-3 <= t <= high + span * 1e-3 for t in ticks)

"""Numbers of clicks and curves from worked examples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from phasesam.core.errors import InvalidSettingError
from phasesam.evaluation.click_curves import ClickCurves


def curves(iou, *, thresholds=(0.8, 0.9), complete=None) -> ClickCurves:
    iou = np.array(iou, dtype=float)
    n, clicks = iou.shape
    return ClickCurves(
        iou,
        2 * iou / (1 + iou),
        np.arange(1, n + 1),
        np.full(n, ""),
        thresholds,
        clicks if complete is None else complete,
    )


FIRST = curves([[0.5, 0.85, 0.95, 0.95], [0.9, 0.7, 0.9, 0.9]])
SECOND = curves([[0.1, 0.2, 0.3, 0.4]])


def test_number_of_clicks_is_the_first_that_reaches():
    np.testing.assert_array_equal(FIRST.number_of_clicks(0.8), [2, 1])
    np.testing.assert_array_equal(FIRST.number_of_clicks(0.9), [3, 1])
    # Not reached: the largest number.
    np.testing.assert_array_equal(FIRST.number_of_clicks(0.99), [4, 4])
    np.testing.assert_array_equal(FIRST.number_of_clicks(0.9, limit=2), [2, 1])


def test_means_and_failures_over_objects():
    both = ClickCurves.joined([FIRST, SECOND], ["a", "b"])
    assert len(both) == 3
    assert both.images.tolist() == ["a", "a", "b"]
    assert both.noc(0.8).mean == pytest.approx((2 + 1 + 4) / 3)
    assert both.noc(0.8).n_units == 2
    assert both.failure_rate(0.8).mean == pytest.approx(1 / 3)
    assert both.failure_rate(0.9, limit=2).mean == pytest.approx(2 / 3)
    assert both.after(1).mean == pytest.approx((0.5 + 0.9 + 0.1) / 3)
    expected = np.mean([2 * v / (1 + v) for v in (0.5, 0.9, 0.1)])
    assert both.after(1, "dice").mean == pytest.approx(expected)
    np.testing.assert_allclose(both.mean_curve(), [0.5, 1.75 / 3, 2.15 / 3, 0.75])


def test_area_is_that_of_trapezoids_per_click():
    expected = np.mean([np.trapezoid(row) / 3 for row in FIRST.iou])
    assert FIRST.area_under_curve().mean == pytest.approx(expected)
    assert curves([[0.7]]).area_under_curve().mean == pytest.approx(0.7)
    # Only clicks that all objects got.
    short = curves(FIRST.iou, complete=2)
    assert short.area_under_curve().mean == pytest.approx((0.675 + 0.8) / 2)


def test_one_image_has_no_interval():
    assert not FIRST.noc(0.8).is_known
    assert FIRST.noc(0.8).n_values == 2


def test_an_image_without_objects():
    none = curves(np.zeros((0, 4)))
    assert math.isnan(none.noc(0.8).mean)
    assert np.isnan(none.mean_curve()).all()
    both = ClickCurves.joined([FIRST, none], ["a", "b"])
    assert both.noc(0.8).n_units == 1


def test_thresholds_above_those_of_an_early_stop_are_refused():
    early = curves(FIRST.iou, thresholds=(0.8,), complete=2)
    assert early.noc(0.8).mean == 1.5
    assert early.noc(0.9, limit=2).mean == 1.5
    with pytest.raises(InvalidSettingError, match=r"0\.9 cannot be told"):
        early.noc(0.9)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidSettingError, match="one rule"):
        ClickCurves.joined([FIRST, curves([[0.5]])], ["a", "b"])
    with pytest.raises(InvalidSettingError, match="one rule"):
        ClickCurves.joined([], [])
    with pytest.raises(InvalidSettingError, match="1 to 4 clicks, got 5"):
        FIRST.after(5)
    with pytest.raises(InvalidSettingError, match="1 to 4 clicks, got 0"):
        FIRST.noc(0.8, limit=0)
    with pytest.raises(InvalidSettingError, match="curves"):
        ClickCurves(FIRST.iou, FIRST.dice, np.arange(3), np.full(3, ""), (), 4)

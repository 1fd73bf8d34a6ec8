import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.core.errors import InvalidSettingError
from phasesam.core.measurements import measure
from phasesam.core.size_distribution import size_distribution, weighted_quantiles
from phasesam.core.types import PixelSize

diameters = st.lists(st.floats(0.1, 1000), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(diameters)
def test_by_number_these_are_the_usual_quantiles(values):
    found = size_distribution(values)
    expected = np.quantile(values, (0.1, 0.5, 0.9), method="hazen")
    assert (found.d10, found.d50, found.d90) == pytest.approx(tuple(expected))
    assert found.mean == pytest.approx(np.mean(values))
    assert found.standard_deviation == pytest.approx(np.std(values), abs=1e-6)
    assert found.shares.sum() == pytest.approx(1)
    assert found.n_objects == len(values)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(1, 100), st.integers(1, 5)), min_size=1, max_size=10))
def test_a_weight_is_a_number_of_copies(weighted):
    weighted.sort()
    values, counts = (np.array(column, dtype=float) for column in zip(*weighted, strict=True))
    shares = (0.1, 0.5, 0.9)
    found = weighted_quantiles(values, counts, shares)
    copies = np.repeat(values, counts.astype(int))
    # Copies of one value make a step; the weighted curve passes through its middle.
    steps = weighted_quantiles(copies, np.ones(len(copies)), shares)
    spread = np.append(np.diff(values), 0).max()
    assert np.abs(np.subtract(found, steps)).max() <= spread + 1e-9


def test_large_objects_count_more_by_area_and_volume():
    values = [1.0] * 90 + [10.0] * 10
    number, area, volume = (size_distribution(values, w) for w in ("number", "area", "volume"))
    assert number.d50 == 1
    assert area.mean == pytest.approx((90 + 10 * 1000) / (90 + 10 * 100))
    assert number.mean < area.mean < volume.mean
    assert volume.d50 == 10
    assert volume.shares[-1] == pytest.approx(10_000 / 10_090)


def test_objects_at_the_edge_may_be_left_out():
    labels = np.zeros((40, 40), dtype=int)
    labels[0:20, 0:20] = 1
    labels[25:30, 25:30] = 2
    table = measure(labels, PixelSize(2, 2, "um"))
    whole = size_distribution(table)
    inner = size_distribution(table, leave_out_edge=True)
    assert (whole.n_objects, whole.n_left_out) == (2, 0)
    assert (inner.n_objects, inner.n_left_out) == (1, 1)
    assert inner.d50 == pytest.approx(2 * np.sqrt(4 * 25 / np.pi))
    assert inner.unit == "um"
    assert size_distribution(measure(labels)).unit == "pixel"


def test_nothing_to_count():
    empty = size_distribution([])
    assert np.isnan(empty.d50)
    assert np.isnan(empty.mean)
    assert empty.n_objects == 0
    assert empty.shares.sum() == 0


def test_histogram():
    found = size_distribution([1, 2, 3, 4], bins=[0, 2.5, 5])
    assert found.shares.tolist() == [0.5, 0.5]
    assert len(size_distribution([1, 2, 3], bins=7).edges) == 8
    assert found.span == pytest.approx((found.d90 - found.d10) / 2.5)


@pytest.mark.parametrize(
    ("sizes", "settings", "message"),
    [
        ([1.0], {"weights": "mass"}, "weights"),
        ([0.0], {}, "positive"),
        ([float("nan")], {}, "positive"),
        ([1.0], {"leave_out_edge": True}, "table"),
        ([1.0], {"bins": 0}, "at least one bin"),
        ([1.0], {"bins": [2, 1]}, "ascend"),
    ],
)
def test_wrong_settings_are_refused(sizes, settings, message):
    with pytest.raises(InvalidSettingError, match=message):
        size_distribution(sizes, **settings)

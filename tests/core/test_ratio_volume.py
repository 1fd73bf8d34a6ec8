import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

from phasesam.core import ratio_volume
from phasesam.core.errors import CancelledError, InvalidImageError, InvalidSettingError
from phasesam.core.ratio import solve
from phasesam.core.ratio_volume import solve_volume


class Slices:
    """Logits made on demand, as those read from a disk."""

    def __init__(self, count, shape=(3, 64, 64), decimals=None):
        self.count, self.shape, self.decimals = count, shape, decimals

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = np.random.default_rng(index)
        z = gaussian_filter(rng.normal(size=self.shape), (0, 3, 3)) * 20
        z[0] += index / self.count
        return (z if self.decimals is None else np.round(z, self.decimals)).astype(np.float32)


def solved(slices, *args, **kwargs):
    labels = {}
    solution = solve_volume(slices, *args, write=labels.__setitem__, **kwargs)
    return solution, np.stack([labels[i] for i in range(len(slices))])


@pytest.mark.parametrize("most_open", [1 << 19, 2000])
@pytest.mark.parametrize("decimals", [None, 1, -1])
def test_a_stack_has_the_amounts_to_the_pixel(monkeypatch, most_open, decimals):
    monkeypatch.setattr(ratio_volume, "_MOST_OPEN", most_open)
    monkeypatch.setattr(ratio_volume, "_SAMPLE", 8192)
    slices = Slices(16, decimals=decimals)
    wanted = np.array([0.21, 0.38, 0.41])
    solution, labels = solved(slices, wanted)
    n = labels.size
    assert np.abs(np.bincount(labels.ravel(), minlength=3) - wanted * n).max() < 1 + 1e-6
    whole = solve(np.stack(list(slices), axis=1), wanted)
    assert solution.cost == pytest.approx(whole.cost, abs=1e-3 if most_open < 9999 else 1e-6)
    if decimals is None:
        assert_array_equal(labels, whole.labels)
        assert solution.changed == whole.changed
        assert solution.contradicted == whole.contradicted


def test_ranges_unknowns_and_trust_over_a_stack():
    slices = Slices(8)
    whole = np.stack(list(slices), axis=1)
    for request in ([(0.0, 0.1), None, None], [0.5, None, (0.0, 0.2)], [0, 0.3, 0.7]):
        assert_array_equal(solved(slices, request)[1], solve(whole, request).labels)
    solution, _ = solved(slices, [0.1, 0.1, 0.8], 0.1)
    assert_allclose(solution.achieved, solve(whole, [0.1, 0.1, 0.8], 0.1).achieved, atol=1e-4)


def test_memory_does_not_grow_with_the_stack(monkeypatch):
    monkeypatch.setattr(ratio_volume, "_MOST_OPEN", 20_000)
    monkeypatch.setattr(ratio_volume, "_SAMPLE", 20_000)
    peaks = []
    for count in (64, 256):
        tracemalloc.start()
        solve_volume(Slices(count, (3, 128, 128)), [0.2, 0.3, 0.5], write=lambda i, labels: None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_progress_and_stop():
    told = []
    solved(Slices(5), [0.2, 0.3, 0.5], progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (15, 15)
    assert [done for done, _ in told] == list(range(1, 16))
    with pytest.raises(CancelledError):
        solved(Slices(5), [0.2, 0.3, 0.5], should_stop=lambda: True)


def test_slices_may_differ_in_size():
    rng = np.random.default_rng(0)
    slices = [rng.normal(size=(3, n, 30)).astype(np.float32) for n in (20, 25, 35)]
    labels = {}
    solution = solve_volume(slices, [0.2, 0.3, 0.5], write=labels.__setitem__)
    assert [labels[i].shape[0] for i in range(3)] == [20, 25, 35]
    counts = sum(np.bincount(each.ravel(), minlength=3) for each in labels.values())
    assert counts.tolist() == [480, 720, 1200]
    assert solution.achieved.tolist() == [0.2, 0.3, 0.5]


def test_bad_stacks_are_refused():
    with pytest.raises(InvalidImageError, match="at least one slice"):
        solved([], [0.5, 0.5])
    with pytest.raises(InvalidImageError, match="of 2 classes, got 3 in slice 1"):
        solved([np.zeros((2, 4, 4)), np.zeros((3, 4, 4))], [0.5, 0.5])
    with pytest.raises(InvalidSettingError, match="expected shares of 3 classes, got 2"):
        solved(Slices(2), [0.5, 0.5])

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label as connected_components

from phasesam.simulation.steel_structure import (
    BAINITE,
    FERRITE,
    MARTENSITE,
    cut_to_count,
    grow_phases,
    tessellate,
)


@pytest.fixture(scope="module")
def grains():
    return tessellate(np.random.default_rng(0), (200, 260), 30.0)


def test_grains_have_the_asked_size(grains):
    n_grains = len(np.unique(grains.grain))
    # Border grains are cut, so there are more of them than areas of full size.
    assert 200 * 260 / 30**2 < n_grains < 1.7 * 200 * 260 / 30**2


def test_distance_to_the_boundary_is_a_distance(grains):
    assert grains.to_second.min() >= 0
    assert (grains.to_third >= -1e-3).all()
    assert (grains.grain != grains.second).all()
    # One pixel beside a boundary, the distance from it is below one and a half pixels.
    change = grains.grain[:, :-1] != grains.grain[:, 1:]
    assert np.percentile(grains.to_second[:, :-1][change], 95) < 1.5


def test_without_spread_and_waves_grains_are_plain_voronoi_cells():
    grains = tessellate(np.random.default_rng(3), (120, 120), 24.0, spread=0.0, waviness=0.0)
    for grain in np.unique(grains.grain):
        rows, columns = np.nonzero(grains.grain == grain)
        if rows.min() == 0 or columns.min() == 0 or rows.max() == 119 or columns.max() == 119:
            continue
        mask = np.zeros((120, 120), bool)
        mask[rows, columns] = True
        # Convex: the midpoint of any two of its pixels belongs to it.
        pick = np.random.default_rng(0).integers(0, len(rows), (2, 300))
        middle = ((rows[pick[0]] + rows[pick[1]]) // 2, (columns[pick[0]] + columns[pick[1]]) // 2)
        assert mask[middle].mean() > 0.97


@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(np.float32, (12, 15), elements=st.floats(-5, 5, width=32)),
    hnp.arrays(np.bool_, (12, 15)),
    st.integers(0, 180),
    st.integers(0, 20),
)
def test_a_cut_holds_exactly_the_asked_number_of_pixels(score, allowed, count, smallest):
    mask = cut_to_count(score, allowed, count, smallest)
    assert np.count_nonzero(mask) == min(count, np.count_nonzero(allowed))
    assert not (mask & ~allowed).any()


def test_a_cut_of_nearly_everything_ends():
    """Filled holes may make the mask the whole image, which has no rim to be cut."""
    score = np.zeros((12, 15), np.float32)
    mask = cut_to_count(score, np.ones((12, 15), bool), 174, 7)
    assert np.count_nonzero(mask) == 174


def test_a_cut_takes_the_highest_scores():
    score = np.fromfunction(lambda y, x: -np.hypot(y - 20, x - 25), (40, 50)).astype(np.float32)
    mask = cut_to_count(score, np.ones((40, 50), bool), 314, 4)
    assert score[mask].min() >= score[~mask].max()


@pytest.mark.parametrize(
    ("bainite", "martensite"), [(0.3, 0.2), (0.0, 0.1), (0.6, 0.4), (0.0, 0.0)]
)
def test_phase_fractions_are_exact(grains, bainite, martensite):
    steel = grow_phases(np.random.default_rng(1), grains, 30.0, bainite, martensite)
    size = steel.phase.size
    assert np.count_nonzero(steel.phase == BAINITE) == round(bainite * size)
    assert np.count_nonzero(steel.phase == MARTENSITE) == round(martensite * size)
    assert set(np.unique(steel.phase)) <= {FERRITE, BAINITE, MARTENSITE}


def test_each_number_is_one_grain_of_one_phase(grains):
    steel = grow_phases(np.random.default_rng(1), grains, 30.0, 0.3, 0.2)
    numbers = np.unique(steel.labels)
    assert numbers[numbers > 0].tolist() == list(range(1, int(numbers.max()) + 1))
    assert (steel.labels == 0).mean() < 0.01
    pairs = np.unique(np.stack([steel.labels, steel.phase])[:, steel.labels > 0], axis=1)
    assert pairs.shape[1] == numbers.max()
    areas = np.bincount(steel.labels.ravel())[1:]
    assert areas.min() >= 9
    islands = connected_components(steel.phase == MARTENSITE, connectivity=1)
    for number in np.unique(steel.labels[steel.phase == MARTENSITE]):
        largest = np.bincount(islands[steel.labels == number]).max()
        assert largest >= 0.8 * np.count_nonzero(steel.labels == number)

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from phasesam.core.errors import InvalidMaskError
from phasesam.core.similar_region import (
    class_similarity,
    inner_points,
    similar_region,
    similarity,
    unit_tokens,
)


def test_a_region_is_where_its_tokens_are():
    similarity = np.zeros((6, 8), np.float32)
    similarity[1:4, 2:6] = 1
    mask = similar_region(similarity, 16.0, (96, 128), least=0.5)
    # Half way between the centres of tokens inside and outside: at their border.
    expected = np.zeros((96, 128), bool)
    expected[16:64, 32:96] = True
    assert (mask != expected).mean() < 0.01
    assert_array_equal(mask[:, 40], expected[:, 40])


def test_only_the_part_around_a_pixel():
    similarity = np.zeros((6, 12), np.float32)
    similarity[2:4, 1:4] = similarity[2:4, 8:11] = 1
    mask = similar_region(similarity, 8.0, (48, 96), least=0.5, around=(24, 20))
    assert mask[24, 20]
    assert not mask[:, 50:].any()
    with pytest.raises(InvalidMaskError, match=r"\(24, 48\) itself is less similar than 0.50"):
        similar_region(similarity, 8.0, (48, 96), least=0.5, around=(24, 48))


def test_likeness_to_a_class_is_that_to_its_mean():
    tokens = np.random.default_rng(0).normal(size=(5, 6, 9))
    members = np.zeros((5, 6), bool)
    members[1:3, 2:5] = True
    units = unit_tokens(tokens)
    found = class_similarity(units, members)
    mean = units[members].mean(axis=0).astype(np.float64)
    expected = units @ (mean / np.linalg.norm(mean))
    assert_allclose(found, expected, atol=1e-6)
    members[:] = False
    members[3, 4] = True
    assert_allclose(class_similarity(units, members), similarity(units, (3, 4)), atol=1e-6)
    with pytest.raises(InvalidMaskError, match="most of no token"):
        class_similarity(units, np.zeros((5, 6), bool))


def test_images_that_no_token_fits_exactly():
    similarity = np.ones((7, 5), np.float32)
    assert similar_region(similarity, 14.3, (93, 70), least=0.9).all()


def test_points_are_deep_inside_and_apart():
    mask = np.zeros((100, 200), bool)
    mask[40:60, 10:190] = True
    points = inner_points(mask)
    assert len(points) == 3
    for y, x in points.astype(int):
        assert mask[y - 8 : y + 8, x - 8 : x + 8].all()
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert distances[np.triu_indices(3, 1)].min() >= 19


def test_a_disc_has_one_point():
    y, x = np.mgrid[:80, :80]
    assert_array_equal(inner_points(np.hypot(y - 40, x - 30) < 20), [[40, 30]])


@given(seed=st.integers(0, 500))
@settings(max_examples=30, deadline=None)
def test_points_lie_in_the_mask(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((rng.integers(1, 30), rng.integers(1, 30))) < 0.4
    points = inner_points(mask).astype(int)
    assert mask[points[:, 0], points[:, 1]].all()
    assert bool(len(points)) == bool(mask.any())

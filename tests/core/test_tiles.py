"""Tiles cover every pixel, overlap enough and stay within the image."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.core.errors import InvalidImageError, InvalidSettingError
from phasesam.core.tiles import tiles


@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    size=st.integers(1, 30),
    share=st.floats(0, 0.99),
)
@settings(deadline=None)
def test_tiles_cover_and_overlap(shape, size, share):
    overlap = int(share * size)
    covered = np.zeros(shape, int)
    boxes = tiles(shape, size, overlap)
    for y0, x0, y1, x1 in boxes:
        assert (y1 - y0, x1 - x0) == (min(size, shape[0]), min(size, shape[1]))
        assert min(y0, x0) >= 0
        assert y1 <= shape[0]
        assert x1 <= shape[1]
        covered[y0:y1, x0:x1] += 1
    assert covered.min() >= 1
    for axis in (0, 1):
        starts = sorted({box[axis] for box in boxes})
        assert all(b - a <= size - overlap for a, b in pairwise(starts))
        assert len(boxes) == len(set(boxes))


def test_a_small_image_is_one_tile():
    assert tiles((300, 500), 1024) == [(0, 0, 300, 500)]


def test_a_large_image_takes_no_more_tiles_than_needed():
    assert tiles((1024, 1920), 1024, 128) == [(0, 0, 1024, 1024), (0, 896, 1024, 1920)]
    assert len(tiles((20_000, 20_000), 1024, 128)) == 23 * 23


def test_impossible_settings():
    with pytest.raises(InvalidSettingError, match="10 and 10"):
        tiles((50, 50), 10, 10)
    with pytest.raises(InvalidSettingError):
        tiles((50, 50), 10, -1)
    with pytest.raises(InvalidImageError, match=r"\(0, 5\)"):
        tiles((0, 5))

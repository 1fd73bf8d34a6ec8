"""Windows follow the sizes of images and objects."""

from __future__ import annotations

import numpy as np
import pytest

from phasesam.training.recipes import get_recipe
from phasesam.training.window_choice import large_extent, object_window


@pytest.mark.parametrize(
    ("longest", "extent", "window"),
    [(1536, 150, 512), (1536, 0, None), (1536, 20, 256), (600, 170, None), (256, 10, None)],
)
def test_large_objects_have_room(longest, extent, window):
    assert object_window(longest, extent) == window
    fitted = get_recipe("default").fitted("instance", False, longest, extent)
    assert fitted.views.window == window
    assert get_recipe("one-image").fitted("instance", False, longest, extent).views.window == 512


def test_extent_is_that_of_the_large_ones():
    labels = np.full((300, 300), -1, np.int32)
    for number in range(20):
        labels[10 * number : 10 * number + 5, :5] = 10 * number + 3
    labels[:5, 100:180] = 999
    assert large_extent([labels]) == pytest.approx(np.percentile([5] * 20 + [80], 95))
    assert large_extent([np.zeros((5, 5), np.int32), labels]) == large_extent([labels])
    assert large_extent([np.zeros((5, 5), np.int32)]) == 0
    assert large_extent([np.full((4, 7), 2, np.int32)]) == 7

"""Objects of validation images are clicked on through the windows that the adapter will use."""

from __future__ import annotations

import numpy as np
import pytest

from phasesam.core.mask_set import MaskCrop
from phasesam.engines.embedding_cache import EmbeddingKey
from phasesam.training.annotation_examples import on_frame
from phasesam.training.annotation_history import Example
from phasesam.training.dataset import from_arrays
from phasesam.training.prompt_objective import _scenes


@pytest.fixture
def image():
    """Squares of 30 pixels, 60 apart, whose grey says where they are."""
    rows, columns = np.indices((300, 480))
    grey = ((rows // 60 * 8 + columns // 60) * 6).astype(np.uint8)
    labels = np.where((rows % 60 < 30) & (columns % 60 < 30), rows // 60 * 8 + columns // 60 + 1, 0)
    return from_arrays([("a", grey, labels.astype(np.int32), None)], "instance").images[0]


@pytest.mark.parametrize(("objects", "views"), [(6, 3), (40, 2), (1, 5)])
def test_each_object_is_seen_whole_and_once(image, objects, views):
    scenes = list(_scenes(image, 120, (objects, views), np.random.default_rng(1)))
    assert 1 <= len(scenes) <= views
    seen = []
    for view, targets in scenes:
        assert view.labels.shape == (1024, 1024)
        for mask in targets.truth:
            rows, columns = np.nonzero(mask)
            number = view.labels[int(rows.mean() * 4 + 2), int(columns.mean() * 4 + 2)]
            assert view.rgb[int(rows.mean() * 4), int(columns.mean() * 4), 0] == (number - 1) * 6
            assert np.count_nonzero(mask) == pytest.approx((30 / 120 * 256) ** 2, rel=0.03)
            seen.append(int(number))
        # Other objects are there, too, and are no background.
        assert len(np.unique(view.labels[view.labels > 0])) >= len(targets.truth)
        assert not (targets.background & (targets.truth.any(0))).any()
    assert len(seen) == len(set(seen)) <= objects


def test_without_windows_the_whole_image_is_seen(image):
    scenes = list(_scenes(image, None, (4, 3), np.random.default_rng(0)))
    assert len(scenes) == 1
    assert scenes[0][0].labels.shape == (640, 1024)
    assert len(scenes[0][1].truth) == 4


def test_an_example_knows_where_its_window_lies():
    key = EmbeddingKey("image", "rgb8", "tiny", "weights")
    mask = MaskCrop.from_array(np.ones((10, 20), bool), 210, 330)
    frame = on_frame(Example(key, (100, 100), (1024, 1024), mask, corner=(200, 300)))
    rows, columns = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))
    assert (rows[0], rows[-1]) == (round(10 * 10.24), round(20 * 10.24) - 1)
    assert (columns[0], columns[-1]) == (round(30 * 10.24), round(50 * 10.24) - 1)

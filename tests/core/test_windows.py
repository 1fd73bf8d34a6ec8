"""Windows hold what they are to hold, lie in the image, and go where an object is seen well."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.core.boxes import cut_by
from phasesam.core.errors import InvalidSettingError
from phasesam.core.windows import WindowLogits, Windows, nearest_window

SHAPES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))


@st.composite
def boxes_in(draw, shape):
    y = sorted(draw(st.lists(st.integers(0, shape[0]), min_size=2, max_size=2)))
    x = sorted(draw(st.lists(st.integers(0, shape[1]), min_size=2, max_size=2)))
    y0, x0 = min(y[0], shape[0] - 1), min(x[0], shape[1] - 1)
    return y0, x0, max(y[1], y0 + 1), max(x[1], x0 + 1)


def lies_in(box, view):
    return box[0] >= view[0] and box[1] >= view[1] and box[2] <= view[2] and box[3] <= view[3]


@settings(deadline=None, max_examples=60)
@given(data=st.data(), shape=SHAPES, side=st.integers(1, 1500))
def test_an_object_fits_into_its_window(data, shape, side):
    box = data.draw(boxes_in(shape))
    windows = Windows(shape, side)
    view = windows.fitting(box)
    assert lies_in(box, view) or view == windows.whole
    assert lies_in(view, windows.whole)
    extent = max(box[2] - box[0], box[3] - box[1])
    for low, high, length in ((view[0], view[2], shape[0]), (view[1], view[3], shape[1])):
        assert high - low >= min(length, 2 * extent) or view == windows.whole


@settings(deadline=None, max_examples=60)
@given(data=st.data(), shape=SHAPES, side=st.integers(1, 1500))
def test_windows_of_one_size_share_a_grid(data, shape, side):
    windows = Windows(shape, side)
    first, second = (windows.around(data.draw(boxes_in(shape)), side) for _ in range(2))
    assert first[2] - first[0] == second[2] - second[0] == min(side, shape[0]) or side >= max(shape)
    step = max(1, side // 2)
    for low, high, length in ((first[0], first[2], shape[0]), (first[1], first[3], shape[1])):
        assert low % step == 0 or high == length


@settings(deadline=None, max_examples=60)
@given(data=st.data(), shape=SHAPES, side=st.integers(8, 1500))
def test_the_search_ends_where_nothing_is_cut(data, shape, side):
    """What is found is the part of the object in view, as of a model that is always right."""
    windows = Windows(shape, side)
    box = data.draw(boxes_in(shape))
    point = (box[0], box[1], box[0] + 1, box[1] + 1)
    view, seen = windows.fitting(point, is_object=False), []
    while view is not None:
        seen.append(view)
        assert len(seen) < 20
        found = (*np.maximum(box[:2], view[:2]), *np.minimum(box[2:], view[2:]))
        last, view = view, windows.following(view, tuple(int(v) for v in found), point)
        if view in seen:
            break
    assert not cut_by(last, box, shape)


@pytest.mark.parametrize(
    ("shape", "side"),
    [((100, 300), 64), ((64, 64), 64), ((7, 900), 100), ((100, 9), 3), ((700, 650), 65)],
)
def test_windows_cover_every_pixel_and_half_sized_objects(shape, side):
    windows = Windows(shape, side).cover()
    seen = np.zeros(shape, bool)
    for y0, x0, y1, x1 in windows:
        seen[y0:y1, x0:x1] = True
    assert seen.all()
    rng = np.random.default_rng(0)
    half = side // 2
    for _ in range(200):
        y, x = (int(rng.integers(max(1, length - half + 1))) for length in shape)
        box = (y, x, min(y + half, shape[0]), min(x + half, shape[1]))
        assert any(lies_in(box, view) for view in windows), box


def test_points_go_to_the_window_in_whose_middle_they_lie():
    boxes = Windows((64, 128), 64).cover()
    assert boxes == [(0, 0, 64, 64), (0, 32, 64, 96), (0, 64, 64, 128)]
    points = np.array([[3.0, 20.0], [60.0, 47.0], [32.0, 49.0], [1.0, 127.0]])
    assert nearest_window(points, boxes).tolist() == [0, 0, 1, 2]


def test_tiny_objects_are_looked_at_closely_and_cut_ones_from_afar():
    windows = Windows((2000, 2000), 512)
    view = windows.fitting((600, 600, 601, 601), is_object=False)
    assert view[2] - view[0] == 512
    assert windows.fitting((600, 600, 610, 610)) == windows.around((600, 600, 610, 610), 256)
    closer = windows.following(view, (590, 590, 612, 615), (600, 600, 601, 601))
    assert closer[2] - closer[0] == 256
    assert windows.following(closer, (590, 590, 612, 615), (600, 600, 601, 601)) is None
    cut = (view[0], 590, 900, 900)
    assert windows.following(view, cut, None) != view
    wide = windows.following(view, (view[0], view[1], view[2], view[3]), None)
    assert wide[2] - wide[0] == 1024
    assert windows.following(windows.whole, (0, 0, 5, 5), None) == (0, 0, 256, 256)
    assert windows.following(windows.whole, (0, 0, 1500, 1500), None) is None
    assert windows.following(view, (0, 0, 0, 0), None) is None


def test_where_the_usual_window_is_the_whole_image_nothing_else_is_looked_at():
    """Clicks on a model without windows are those of the published predictor."""
    windows = Windows((300, 500), 500)
    tiny = (100, 100, 104, 105)
    assert windows.fitting(tiny) == windows.whole
    assert windows.following(windows.whole, tiny, None) is None
    assert windows.following(windows.whole, tiny, tiny) is None


def test_a_window_has_a_size():
    with pytest.raises(InvalidSettingError, match="at least 1 pixel, got 0"):
        Windows((10, 10), 0)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), shape=SHAPES, side=st.integers(12, 900))
def test_the_nearest_window_is_nearest(data, shape, side):
    boxes = Windows(shape, side).cover()
    count = data.draw(st.integers(1, 5))
    points = np.random.default_rng(0).random((count, 2)) * shape
    centres = np.array([((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in boxes])
    distances = np.linalg.norm(points[:, None] - centres, axis=-1)
    owner = nearest_window(points, boxes)
    np.testing.assert_allclose(distances[np.arange(count), owner], distances.min(axis=1))


def test_logits_keep_their_values_at_the_border_of_the_image():
    plane = np.full((256, 256), 4.0, np.float32)
    moved = WindowLogits(plane, (0, 0, 2048, 2048)).moved((0, 0, 256, 256))
    assert (moved == 4.0).all()
    beside = WindowLogits(plane, (0, 0, 256, 256)).moved((0, 128, 256, 384))
    assert (beside[:, :127] == 4.0).all()
    assert (beside[:, 129:] == -8.0).all()

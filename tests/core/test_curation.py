import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from phasesam.core import curation
from phasesam.core.errors import InvalidMaskError, InvalidPromptError, InvalidSettingError
from phasesam.core.mask_set import MaskCrop

YY, XX = np.mgrid[:80, :140]
EIGHT = np.ones((3, 3))


def disc(y: float, x: float, radius: float) -> np.ndarray:
    return np.hypot(YY - y, XX - x) < radius


def crop(mask: np.ndarray) -> MaskCrop:
    return MaskCrop.from_array(mask, 3, 4)


def paint(parts: list[MaskCrop], shape: tuple[int, int] = (100, 200)) -> np.ndarray:
    """Number of parts that hold each pixel."""
    image = np.zeros(shape, dtype=int)
    for part in parts:
        image[part.slices] += part.array()
    return image


blobs = st.tuples(st.integers(0, 2**32 - 1), st.floats(0.6, 4)).map(
    lambda seeded: (
        ndimage.gaussian_filter(np.random.default_rng(seeded[0]).normal(size=(30, 40)), seeded[1])
        > 0
    )
)
points = st.lists(st.tuples(st.floats(-20, 60), st.floats(-20, 60)), min_size=2, max_size=5)
any_mask = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@settings(max_examples=60, deadline=None)
@given(blobs, points)
def test_a_cut_loses_no_pixel_and_doubles_none(mask, line):
    mask = crop(mask)
    parts = curation.split_by_line(mask, line)
    assert np.array_equal(paint(parts), paint([mask]))
    areas = [part.area for part in parts]
    assert areas == sorted(areas, reverse=True)
    if len(parts) > 1:
        assert min(areas) > 0


@pytest.mark.parametrize(
    "line", [[(0, 40), (100, 40)], [(10, 0), (60, 140)], [(0, 45.4), (50, 38.2), (100, 41.7)]]
)
def test_a_line_across_a_disc_makes_two_parts(line):
    parts = curation.split_by_line(MaskCrop.from_array(disc(40, 40, 25)), line)
    assert len(parts) == 2
    for part in parts:
        assert ndimage.label(part.array(), structure=EIGHT)[1] == 1


def test_halves_are_equal():
    parts = curation.split_by_line(MaskCrop.from_array(disc(40, 40, 25)), [(0, 40), (80, 40)])
    assert abs(parts[0].area - parts[1].area) < 60


def test_a_line_that_ends_inside_does_not_split():
    mask = MaskCrop.from_array(disc(40, 40, 25))
    assert curation.split_by_line(mask, [(0, 40), (45, 40)]) == [mask]
    assert curation.split_by_line(mask, [(0, 100), (80, 100)]) == [mask]


def test_diagonal_neighbours_do_not_slip_through():
    parts = curation.split_by_line(
        MaskCrop.from_array(np.ones((20, 20), bool)), [(-1, -1), (21, 21)]
    )
    assert len(parts) == 2


def test_crumbs_of_a_ragged_edge_make_no_objects():
    mask = np.zeros((30, 40), dtype=bool)
    mask[5:25, 5:35] = True
    mask[5:25:2, 35] = True  # teeth along the right side
    parts = curation.split_by_line(MaskCrop.from_array(mask), [(0, 34), (30, 34)])
    assert len(parts) == 1
    parts = curation.split_by_line(
        MaskCrop.from_array(mask), [(0, 34), (30, 34), (15, 40), (15, 0)]
    )
    assert len(parts) == 2


def test_tiny_objects_can_be_cut():
    parts = curation.split_by_line(MaskCrop.from_array(np.ones((1, 3), bool)), [(-1, 1), (1, 1)])
    assert sorted(part.area for part in parts) == [1, 2]


@pytest.mark.parametrize(
    "line",
    [
        [(0, 0)],
        [0, 0],
        [(0, float("nan")), (1, 1)],
        [(0, 1e9), (0, 0)],
        [("a", "b")],
        [[1], [2, 3]],
    ],
)
def test_senseless_lines_are_refused(line):
    with pytest.raises(InvalidPromptError, match="cutting line"):
        curation.split_by_line(MaskCrop.from_array(disc(40, 40, 25)), line)


@settings(max_examples=40, deadline=None)
@given(blobs, st.none() | st.integers(1, 9))
def test_watershed_loses_no_pixel_and_doubles_none(mask, parts):
    mask = crop(mask)
    if parts is not None:
        parts = min(parts, max(mask.area, 1))
    pieces = curation.split_by_watershed(mask, parts)
    assert np.array_equal(paint(pieces), paint([mask]))
    if parts is not None and mask.area:
        assert len(pieces) == parts
        assert min(piece.area for piece in pieces) > 0


def test_touching_discs_come_apart_at_the_neck():
    both = disc(40, 40, 28) | disc(40, 88, 25)
    pieces = curation.split_by_watershed(MaskCrop.from_array(both))
    assert len(pieces) == 2
    wanted = [disc(40, 40, 28), disc(40, 88, 25)]
    for piece, true in zip(pieces, wanted, strict=True):
        found = paint([piece], (80, 140)) > 0
        assert (found & true).sum() / (found | true).sum() > 0.97


def test_five_discs_in_a_row():
    row = np.zeros((60, 240), dtype=bool)
    yy, xx = np.mgrid[:60, :240]
    for centre in range(30, 230, 40):
        row |= np.hypot(yy - 30, xx - centre) < 22
    assert len(curation.split_by_watershed(MaskCrop.from_array(row))) == 5
    assert len(curation.split_by_watershed(MaskCrop.from_array(row), 3)) == 3


@pytest.mark.parametrize(
    "mask",
    [disc(40, 40, 30), np.hypot((YY - 40) * 2.5, XX - 70) < 60, np.ones((20, 60), bool)],
    ids=["disc", "ellipse", "bar"],
)
def test_convex_objects_stay_whole(mask):
    assert len(curation.split_by_watershed(MaskCrop.from_array(mask))) == 1


def test_a_disc_is_cut_into_even_parts_on_request():
    areas = [p.area for p in curation.split_by_watershed(MaskCrop.from_array(disc(40, 40, 30)), 4)]
    assert len(areas) == 4
    assert max(areas) < 1.6 * min(areas)


def test_as_many_parts_as_pixels():
    pieces = curation.split_by_watershed(MaskCrop.from_array(np.ones((2, 3), bool)), 6)
    assert [piece.area for piece in pieces] == [1] * 6


@pytest.mark.parametrize("parts", [0, -1, 7])
def test_impossible_numbers_of_parts_are_refused(parts):
    with pytest.raises(InvalidSettingError, match="split into 1 to 6"):
        curation.split_by_watershed(MaskCrop.from_array(np.ones((2, 3), bool)), parts)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(any_mask, st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=4)
)
def test_merge_is_the_union(placed):
    crops = [MaskCrop.from_array(mask, y, x) for mask, y, x in placed]
    merged = curation.merge(crops)
    assert np.array_equal(paint([merged]), (paint(crops) > 0).astype(int))


def test_nothing_to_merge():
    with pytest.raises(InvalidMaskError, match="at least one"):
        curation.merge([])


@settings(max_examples=40, deadline=None)
@given(any_mask)
def test_filling_twice_changes_nothing_more(mask):
    filled = curation.fill_holes(MaskCrop.from_array(mask))
    assert np.array_equal(
        paint([filled])[: mask.shape[0], : mask.shape[1]], ndimage.binary_fill_holes(mask)
    )
    assert curation.fill_holes(filled).area == filled.area


def test_large_holes_may_stay_open():
    mask = np.ones((20, 20), dtype=bool)
    mask[2:4, 2:4] = False
    mask[8:14, 8:14] = False
    assert curation.fill_holes(MaskCrop.from_array(mask), max_area=10).area == 400 - 36
    assert curation.fill_holes(MaskCrop.from_array(mask)).area == 400


@settings(max_examples=60, deadline=None)
@given(any_mask | blobs, st.floats(0, 8))
def test_smoothing_never_empties_nor_breaks_an_object(mask, radius):
    before = crop(mask)
    after = curation.smooth(before, radius, (60, 60))
    assert (after.area > 0) == (before.area > 0)
    assert paint([after], (60, 60)).sum() == after.area
    pieces = [ndimage.label(m.array(), structure=EIGHT)[1] for m in (before, after)]
    assert pieces[1] <= pieces[0]


def test_smoothing_keeps_the_area_and_shortens_the_outline():
    rng = np.random.default_rng(0)
    rough = disc(40, 40, 25) ^ (
        ndimage.binary_dilation(disc(40, 40, 25)) & (rng.random(YY.shape) < 0.15)
    )
    before = MaskCrop.from_array(rough)
    after = curation.smooth(before, 3)
    assert after.area == pytest.approx(before.area, rel=0.02)
    outline = [
        np.count_nonzero(m.array() ^ ndimage.binary_erosion(m.array())) for m in (before, after)
    ]
    assert outline[1] < 0.9 * outline[0]


def test_sides_of_the_image_are_no_outline():
    half = disc(0, 40, 25)
    after = curation.smooth(MaskCrop.from_array(half), 3, half.shape)
    assert np.array_equal(paint([after], half.shape)[0] > 0, half[0])


def test_thin_objects_stay_where_they_are():
    line = curation.smooth(MaskCrop.from_array(np.eye(30, dtype=bool)), 5)
    assert line.box == (0, 0, 30, 30)


@pytest.mark.parametrize("radius", [-1, float("nan"), 1e6])
def test_impossible_radius_is_refused(radius):
    with pytest.raises(InvalidSettingError, match="radius"):
        curation.smooth(MaskCrop.from_array(np.ones((3, 3), bool)), radius)

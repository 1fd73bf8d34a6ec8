import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from phasesam.core.errors import InvalidMaskError
from phasesam.core.mask_set import MaskCrop, MaskSet

small_masks = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def two_squares() -> MaskSet:
    masks = np.zeros((2, 20, 30), dtype=bool)
    masks[0, 2:12, 3:13] = True
    masks[1, 8:12, 10:20] = True
    return MaskSet.from_masks(masks, scores=[0.5, 0.9])


@settings(max_examples=60, deadline=None)
@given(small_masks, st.integers(0, 5), st.integers(0, 5))
def test_crop_keeps_every_pixel_in_the_smallest_box(mask, y0, x0):
    crop = MaskCrop.from_array(mask, y0, x0)
    image = np.zeros((20, 20), dtype=bool)
    image[crop.slices] = crop.array()
    expected = np.zeros((20, 20), dtype=bool)
    expected[y0 : y0 + mask.shape[0], x0 : x0 + mask.shape[1]] = mask
    assert np.array_equal(image, expected)
    assert crop.area == mask.sum()
    if crop.area:
        box = crop.array()
        assert box[0].any()
        assert box[-1].any()
        assert box[:, 0].any()
        assert box[:, -1].any()
        assert crop.box == (crop.y0, crop.x0, crop.y0 + crop.height, crop.x0 + crop.width)


@settings(max_examples=40, deadline=None)
@given(arrays(np.int32, (9, 11), elements=st.sampled_from([0, 1, 2, 7, -3, 2**31 - 1])))
def test_masks_of_labels_come_in_ascending_order(labels):
    masks = MaskSet.from_labels(labels)
    values = [v for v in np.unique(labels) if v]
    assert len(masks) == len(values)
    for mask, value in zip(masks.masks, values, strict=True):
        assert np.array_equal(mask, labels == value)


def test_labels_that_are_empty_or_huge():
    assert len(MaskSet.from_labels(np.zeros((0, 4), dtype=np.int64))) == 0
    assert len(MaskSet.from_labels(np.zeros((3, 4), dtype=np.uint8))) == 0
    assert MaskSet.from_labels(np.array([[0, 2**40], [5, 5]])).areas.tolist() == [2, 1]


@pytest.mark.parametrize("labels", [np.zeros((2, 2)), np.zeros((2, 2, 2), int)])
def test_labels_must_be_a_plane_of_integers(labels):
    with pytest.raises(InvalidMaskError, match="of integers"):
        MaskSet.from_labels(labels)


def test_what_lies_on_top_depends_on_the_order():
    masks = two_squares()
    assert (masks.to_labels("area")[8:12, 10:13] == 2).all()
    assert (masks.to_labels("score")[8:12, 10:13] == 2).all()
    assert (masks.to_labels("given")[8:12, 10:13] == 2).all()
    swapped = MaskSet.from_crops(masks.shape, masks.crops[::-1], [0.2, 0.9])
    assert (swapped.to_labels("area")[8:12, 10:13] == 1).all()
    assert (swapped.to_labels("score")[8:12, 10:13] == 2).all()
    assert (swapped.to_labels("given")[8:12, 10:13] == 2).all()
    assert masks.to_labels().dtype == np.int32
    with pytest.raises(InvalidMaskError, match="order"):
        masks.to_labels("size")


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.bool_, st.tuples(st.integers(1, 5), st.just(6), st.just(7))),
    st.sampled_from([1, 3, 6.5]),
    st.sampled_from(["area", "score", "given"]),
)
def test_masks_that_hardly_show_are_left_out(stack, min_area, order):
    masks = MaskSet.from_masks(stack, scores=np.linspace(0, 1, len(stack)))
    labels = masks.to_labels(order, min_area=min_area)
    # Repainted without the topmost mask that is too small, until there is none.
    sequence = np.argsort(-masks.areas, kind="stable") if order == "area" else range(len(masks))
    kept = list(sequence)
    while True:
        expected = np.zeros(masks.shape, np.int32)
        for index in kept:
            expected[stack[index]] = index + 1
        small = [i for i in kept if np.count_nonzero(expected == i + 1) < min_area]
        if not small:
            break
        kept.remove(small[-1])
    assert np.array_equal(labels, expected)
    assert np.array_equal(masks.to_labels(order, min_area=0), masks.to_labels(order))


def test_pixels_of_a_mask_that_hardly_shows_go_to_the_one_beneath():
    stack = np.zeros((3, 10, 20), bool)
    stack[0, :, :15] = True
    stack[1, 2:6, 10:18] = True
    stack[2, 2:6, 11:18] = True
    masks = MaskSet.from_masks(stack)
    assert np.bincount(masks.to_labels().ravel())[1:].tolist() == [150 - 20, 4, 28]
    labels = masks.to_labels(min_area=10)
    assert np.bincount(labels.ravel())[1:].tolist() == [150 - 16, 0, 28]
    assert (labels[2:6, 10] == 1).all()


def test_boxes_areas_and_coverage():
    masks = two_squares()
    assert masks.boxes.tolist() == [[2, 3, 12, 13], [8, 10, 12, 20]]
    assert masks.areas.tolist() == [100, 40]
    assert masks.coverage == pytest.approx((100 + 40 - 12) / 600)
    assert np.array_equal(masks.mask(1), masks.masks[1])


@pytest.mark.parametrize(
    ("indices", "areas"),
    [([1, 0], [40, 100]), (np.array([False, True]), [40]), ([], []), (np.array([1]), [40])],
)
def test_subset(indices, areas):
    chosen = two_squares().subset(indices)
    assert chosen.areas.tolist() == areas
    assert len(chosen.scores) == len(chosen.points) == len(areas)


def test_subset_keeps_scores_logits_and_what_was_dropped():
    masks = MaskSet.from_masks(
        np.ones((3, 4, 5)),
        scores=[0.1, 0.2, 0.3],
        logits=np.arange(3, dtype=np.float32).reshape(3, 1, 1),
        dropped={"area": 4},
    )
    chosen = masks.subset([2, 0])
    assert chosen.scores.tolist() == pytest.approx([0.3, 0.1])
    assert chosen.logits.ravel().tolist() == [2, 0]
    assert chosen.dropped == {"area": 4}


def test_empty_sets():
    assert MaskSet((4, 5)).masks.shape == (0, 4, 5)
    assert MaskSet.from_masks(np.zeros((0, 4, 5))).to_labels().shape == (4, 5)
    assert MaskSet((0, 0)).coverage == 0
    assert MaskSet((4, 5)).boxes.shape == (0, 4)


def test_sizes_must_fit():
    with pytest.raises(InvalidMaskError, match="same shape"):
        MaskSet.from_masks([np.ones((2, 2)), np.ones((2, 3))])
    with pytest.raises(InvalidMaskError, match="1 scores"):
        MaskSet.from_masks(np.ones((1, 2, 2)), scores=[1, 2])


def test_sets_are_frozen():
    with pytest.raises(AttributeError):
        two_squares().shape = (1, 1)  # type: ignore[misc]

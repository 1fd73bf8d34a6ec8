import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.core import overlaps
from phasesam.core.errors import InvalidSettingError
from phasesam.core.mask_set import MaskSet
from phasesam.core.overlaps import overlap_matrix, overlap_ratio


def random_masks(seed: int, n: int, shape: tuple[int, int]) -> MaskSet:
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    masks = [
        np.hypot(yy - rng.random() * shape[0], xx - rng.random() * shape[1]) < rng.random() * 40
        for _ in range(n)
    ]
    return MaskSet.from_masks(masks) if masks else MaskSet(shape)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 9),
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.integers(1, 4),
)
def test_counts_every_shared_pixel_of_the_sampled_grid(seed, n, shape, step):
    masks = random_masks(seed, n, shape)
    sampled = masks.masks[:, ::step, ::step].astype(float)
    flat = sampled.reshape(n, sampled.shape[1] * sampled.shape[2])
    assert np.array_equal(overlap_matrix(masks, step=step).toarray(), flat @ flat.T * step**2)


def test_sparse_sums_equal_dense_ones(monkeypatch):
    masks = random_masks(3, 40, (150, 170))
    dense = overlap_matrix(masks).toarray()
    monkeypatch.setattr(overlaps, "_DENSE_LIMIT", 0)
    monkeypatch.setattr(overlaps, "_ENTRIES_AT_ONCE", 50)
    assert np.array_equal(overlap_matrix(masks.crops).toarray(), dense)


def test_bits_are_counted_without_numpy_two(monkeypatch):
    words = np.random.default_rng(0).integers(0, 2**64, 500, dtype=np.uint64)
    expected = [int(word).bit_count() for word in words]
    assert overlaps._bit_count(words).tolist() == expected
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert overlaps._bit_count(words).tolist() == expected


def test_ratios():
    masks = np.zeros((2, 10, 10), dtype=bool)
    masks[0, :4, :4] = True
    masks[1, 2:4, 2:8] = True
    shared = overlap_matrix(MaskSet.from_masks(masks))
    assert overlap_ratio(shared, [16, 12], "iou")[0, 1] == pytest.approx(4 / 24)
    assert overlap_ratio(shared, [16, 12], "iomin")[0, 1] == pytest.approx(4 / 12)
    assert overlap_ratio(shared, [16, 12])[0, 0] == 1


def test_sampled_counts_give_no_ratio_above_one():
    masks = random_masks(5, 30, (60, 60))
    for criterion in ("iou", "iomin"):
        ratio = overlap_ratio(overlap_matrix(masks, step=4), masks.areas, criterion)
        assert ratio.nnz == 0 or ratio.max() <= 1


def test_step_must_be_positive():
    with pytest.raises(InvalidSettingError, match="step"):
        overlap_matrix([], step=0)

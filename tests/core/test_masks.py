import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.core.masks import largest_component, remove_small_regions, stability_score


def test_stability_counts_pixels_above_both_thresholds():
    logits = np.array([[[-3.0, -0.5, 0.5, 3.0]], [[5.0, 5.0, 5.0, 5.0]]])
    assert stability_score(logits).tolist() == pytest.approx([1 / 3, 1.0])
    assert stability_score(logits, threshold=0.0, offset=0.25).tolist() == pytest.approx([1, 1])


def test_stability_of_an_empty_mask_is_zero():
    assert stability_score(np.full((2, 4, 4), -10.0)).tolist() == [0, 0]


def test_stability_is_that_of_segment_anything():
    torch = pytest.importorskip("torch")
    amg = pytest.importorskip("segment_anything.utils.amg")
    logits = np.random.default_rng(0).normal(0, 3, (6, 20, 30)).astype(np.float32)
    expected = amg.calculate_stability_score(torch.from_numpy(logits), 0.0, 1.0)
    assert stability_score(logits) == pytest.approx(expected.numpy())


def test_stability_refuses_nonsense():
    with pytest.raises(InvalidMaskError, match="logits"):
        stability_score(np.zeros(3))
    with pytest.raises(InvalidSettingError, match="offset"):
        stability_score(np.zeros((3, 3)), offset=-1)


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.bool_, st.tuples(st.integers(1, 15), st.integers(1, 15))),
    st.integers(0, 30),
    st.sampled_from(["holes", "islands"]),
)
def test_no_small_region_remains_and_no_large_one_goes(mask, area, kind):
    found, changed = remove_small_regions(mask, area, kind)
    gone = found != mask
    assert changed == gone.any()
    structure = np.ones((3, 3))
    before, n = ndimage.label(mask if kind == "islands" else ~mask, structure=structure)
    for region in range(1, n + 1):
        size = np.count_nonzero(before == region)
        stays = not gone[before == region].any()
        alone = kind == "islands" and not (np.bincount(before.ravel())[1:] >= area).any()
        if size >= area:
            assert stays
        elif not alone:
            assert gone[before == region].all()
    if mask.any():
        assert found.any()


def test_small_holes_are_filled_and_small_islands_dropped():
    mask = np.zeros((20, 20), dtype=bool)
    mask[2:12, 2:12] = True
    mask[5:7, 5:7] = False
    mask[15, 15] = True
    filled, changed = remove_small_regions(mask, 5, "holes")
    assert changed
    assert filled[2:12, 2:12].all()
    kept, changed = remove_small_regions(mask, 5, "islands")
    assert changed
    assert not kept[15, 15]
    assert not kept[5, 5]
    same, changed = remove_small_regions(mask, 1, "islands")
    assert not changed
    assert np.array_equal(same, mask)


def test_the_largest_island_always_stays():
    mask = np.zeros((9, 9), dtype=bool)
    mask[1:3, 1:3] = True
    mask[6, 6] = True
    kept, _ = remove_small_regions(mask, 100, "islands")
    assert kept.sum() == 4


def test_regions_refuse_nonsense():
    with pytest.raises(InvalidSettingError, match="kind"):
        remove_small_regions(np.ones((2, 2), bool), 1, "gaps")  # type: ignore[arg-type]
    with pytest.raises(InvalidMaskError, match="shape"):
        remove_small_regions(np.ones(2, bool), 1, "holes")


def test_largest_component_is_eight_connected():
    mask = np.eye(5, dtype=bool)
    mask[0, 4] = True
    expected = np.eye(5, dtype=bool)
    assert np.array_equal(largest_component(mask), expected)
    assert not largest_component(np.zeros((3, 3), bool)).any()

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from phasesam.core.errors import InvalidMaskError
from phasesam.core.mask_set import MaskCrop
from phasesam.core.rle import decode_rle, encode_rle

coco = pytest.importorskip("pycocotools.mask")

noise = arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))
blobs = st.tuples(st.integers(0, 2**32 - 1), st.integers(20, 400), st.floats(1, 30)).map(
    lambda v: (
        ndimage.gaussian_filter(np.random.default_rng(v[0]).normal(size=(v[1], 300)), v[2]) > 0
    )
)


@settings(max_examples=60, deadline=None)
@given(noise | blobs)
def test_same_text_as_pycocotools_and_back(mask):
    crop = MaskCrop.from_array(mask)
    rle = encode_rle(crop, mask.shape)
    assert rle["counts"].encode() == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    image = np.zeros(mask.shape, dtype=bool)
    back = decode_rle(rle)
    image[back.slices] = back.array()
    assert np.array_equal(image, mask)
    assert back.area == crop.area


# pycocotools 2.0 does not know the copy argument that numpy 2 passes.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@settings(max_examples=30, deadline=None)
@given(noise)
def test_lists_of_run_lengths(mask):
    plain = encode_rle(MaskCrop.from_array(mask), mask.shape, compress=False)
    height, width = mask.shape
    assert np.array_equal(coco.decode(coco.frPyObjects(plain, height, width)), mask)
    assert decode_rle(plain).area == mask.sum()


def test_crops_are_placed():
    rle = encode_rle(MaskCrop.from_array(np.ones((2, 3), bool), 4, 5), (10, 10))
    assert coco.toBbox(rle).tolist() == [5, 4, 3, 2]
    assert decode_rle(rle).box == (4, 5, 6, 8)


def test_bytes_are_read_too():
    counts = coco.encode(np.asfortranarray(np.eye(7, dtype=np.uint8)))
    assert decode_rle(counts).area == 7


def test_masks_outside_the_image_are_refused():
    with pytest.raises(InvalidMaskError, match="within 4"):
        encode_rle(MaskCrop.from_array(np.ones((3, 3), bool), 2, 0), (4, 4))


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [3, 3]},
        {"size": [3], "counts": [9]},
        {"size": [3, 3], "counts": [4, 4]},
        {"size": [3, 3], "counts": [-1, 10]},
        {"size": [3, 3], "counts": [[9]]},
        {"size": [3, 3], "counts": "\x01"},
        {"size": [3, 3], "counts": "é"},
        {"size": [3, 3], "counts": "o"},
        {"size": [3, 3], "counts": "o" * 20 + "0"},
        {"size": [3, 3], "counts": None},
        {"size": [3, 3], "counts": ""},
        {"size": ["a", 3], "counts": [9]},
    ],
)
def test_damaged_runs_are_refused(rle):
    with pytest.raises(InvalidMaskError):
        decode_rle(rle)

"""Any micrograph becomes 8-bit RGB, and what is no micrograph is refused with advice."""

from __future__ import annotations

import re
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from phasesam.core.errors import InvalidImageError, InvalidSettingError
from phasesam.core.images import (
    Normalisation,
    check_image,
    content_hash,
    intensity_limits,
    is_constant,
    to_rgb8,
)

DTYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">u2", ">f4"]


def ramp(dtype: str = "u2", shape: tuple[int, ...] = (40, 50)) -> np.ndarray:
    return np.linspace(0, 100, int(np.prod(shape))).reshape(shape).astype(dtype)


# --- 8-bit input reaches the model untouched -------------------------------------------


def test_8_bit_rgb_is_passed_on_as_it_is():
    image = np.random.default_rng(0).integers(30, 90, (20, 30, 3), dtype=np.uint8)
    rgb = to_rgb8(image)
    np.testing.assert_array_equal(rgb, image)
    assert not np.shares_memory(rgb, image)
    assert rgb.flags.c_contiguous


def test_8_bit_grey_is_repeated_and_alpha_left_out():
    grey = np.random.default_rng(0).integers(30, 90, (20, 30), dtype=np.uint8)
    np.testing.assert_array_equal(to_rgb8(grey), np.dstack([grey] * 3))
    rgba = np.dstack([grey, grey, grey, np.zeros_like(grey)])
    np.testing.assert_array_equal(to_rgb8(rgba), np.dstack([grey] * 3))


def test_bool_becomes_black_and_white():
    image = np.eye(5, dtype=bool)
    np.testing.assert_array_equal(to_rgb8(image)[..., 0], image * np.uint8(255))


# --- normalisation ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_percentiles_agree_with_numpy(dtype: str):
    rng = np.random.default_rng(1)
    image = rng.normal(60, 15, (200, 150)).clip(0, 120).astype(dtype)
    low, high = np.percentile(image.astype(np.float64), (0.5, 99.5), method="nearest")
    expected = np.clip((image.astype(np.float64) - low) / (high - low), 0, 1) * 255
    rgb = to_rgb8(image, Normalisation("percentile"))
    np.testing.assert_allclose(rgb[..., 0], expected, atol=0.501)
    np.testing.assert_array_equal(rgb[..., 0], rgb[..., 2])


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "f4"])
def test_negative_intensities_keep_their_order(dtype: str):
    image = np.arange(-100, 100).astype(dtype).reshape(10, 20)
    grey = to_rgb8(image, Normalisation("percentile", 0, 100))[..., 0].ravel()
    assert grey[0] == 0
    assert grey[-1] == 255
    assert (np.diff(grey.astype(int)) >= 0).all()


def test_range_maps_the_given_intensities():
    image = np.array([[0.0, 10.0, 15.0, 20.0, 99.0]])
    rgb = to_rgb8(image, Normalisation("range", 10, 20))
    assert rgb[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    as_8_bit = to_rgb8(image.astype(np.uint8), Normalisation("range", 10, 20))
    np.testing.assert_array_equal(rgb, as_8_bit)


def test_colours_share_one_mapping():
    image = np.zeros((4, 4, 3), dtype=np.uint16)
    image[..., 0], image[..., 1], image[..., 2] = 1000, 500, np.arange(4) * 10
    rgb = to_rgb8(image, Normalisation("percentile", 0, 100))
    assert rgb[0, 0].tolist() == [255, 128, 0]


def test_nan_and_infinity_do_not_disturb_the_rest():
    clean = ramp("f4")
    image = clean.copy()
    image[3, 4], image[5, 6], image[7, 8] = np.nan, np.inf, -np.inf
    rgb = to_rgb8(image, Normalisation("percentile", 0, 100))
    assert rgb[3, 4, 0] == 0
    assert rgb[5, 6, 0] == 255
    assert rgb[7, 8, 0] == 0
    finite = np.isfinite(image)
    reference = to_rgb8(clean, Normalisation("percentile", 0, 100))
    np.testing.assert_array_equal(rgb[finite], reference[finite])


@pytest.mark.parametrize("dtype", ["u2", "i2", "i4", "f4", "f8"])
def test_a_constant_image_is_legal_and_mid_grey(dtype: str):
    image = np.full((6, 7), 42, dtype=dtype)
    assert is_constant(image)
    assert (to_rgb8(image) == 128).all()


def test_a_constant_8_bit_image_stays_as_it_is():
    assert (to_rgb8(np.full((3, 3), 7, np.uint8)) == 7).all()


def test_constant_is_judged_per_channel_and_without_nan():
    red = np.zeros((5, 5, 3), np.uint8)
    red[..., 0] = 200
    assert is_constant(red)
    red[0, 0, 1] = 1
    assert not is_constant(red)
    spotty = np.full((5, 5), 3.0)
    spotty[1, 1] = np.nan
    assert is_constant(spotty)


def test_a_single_bright_pixel_does_not_vanish_in_the_percentiles():
    image = np.zeros((2000, 2000), dtype=np.uint16)
    image[1001, 1001] = 500
    rgb = to_rgb8(image)
    assert rgb[1001, 1001, 0] == 255
    assert rgb[0, 0, 0] == 0


def test_an_image_that_is_nan_almost_everywhere():
    image = np.full((1500, 1500), np.nan, dtype=np.float32)
    image[751, 751], image[753, 753] = 1.0, 2.0
    rgb = to_rgb8(image)
    assert rgb[751, 751, 0] == 0
    assert rgb[753, 753, 0] == 255


@pytest.mark.parametrize("extreme", [np.finfo(np.float64).max, np.finfo(np.float64).tiny])
def test_extreme_floats_neither_overflow_nor_vanish(extreme: float):
    image = np.array([[-extreme, 0.0, extreme]])
    assert to_rgb8(image)[0, :, 0].tolist() == [0, 128, 255]


@given(
    image=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int16, np.int64, np.float32, np.float64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    ),
    mode=st.sampled_from(["auto", "percentile"]),
)
@settings(deadline=None, max_examples=60)
def test_every_grey_image_is_converted_or_refused_for_want_of_numbers(image, mode):
    if image.dtype.kind == "f" and not np.isfinite(image).any():
        with pytest.raises(InvalidImageError, match="finite"):
            to_rgb8(image, Normalisation(mode))
        return
    rgb = to_rgb8(image, Normalisation(mode))
    assert rgb.shape == (*image.shape, 3)
    assert rgb.dtype == np.uint8
    order = np.argsort(image, axis=None)
    finite = np.isfinite(image.ravel()[order])
    assert (np.diff(rgb[..., 0].ravel()[order][finite].astype(int)) >= 0).all()


# --- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((0, 5)), "empty shape (0, 5)"),
        (np.zeros(7), "got (7,); reshape"),
        (np.float64(3), "got (); reshape"),
        (np.zeros((4, 5), complex), "complex128"),
        (np.zeros((4, 5), object), "dtype object"),
        (np.zeros((4, 5), "U3"), "dtype <U3"),
        (np.zeros((4, 5, 1)), "image[..., 0]"),
        (np.zeros((9, 5, 6)), "choose one of the 9 planes, such as image[4]"),
        (np.zeros((3, 50, 60)), "numpy.moveaxis(image, 0, -1)"),
        (np.zeros((8, 50, 60, 3)), "got (8, 50, 60, 3); choose one plane of the stack"),
        (np.zeros((8, 50, 60, 3)), "image[4]"),
        (np.zeros((2, 8, 50, 60)), "image[1, 4]"),
        (np.full((4, 5), np.nan), "(4, 5) is NaN or infinite"),
        (np.full((4, 5), np.inf), "(4, 5) is NaN or infinite"),
        (np.full((4, 5, 3), np.nan, np.float32), "(4, 5, 3) is NaN or infinite"),
    ],
)
def test_no_image(image: np.ndarray, message: str):
    with pytest.raises(InvalidImageError, match=re.escape(message)):
        to_rgb8(image)


def test_all_nan_is_refused_with_a_fixed_range_too():
    with pytest.raises(InvalidImageError, match="finite"):
        to_rgb8(np.full((3, 3), np.nan), Normalisation("range", 0, 1))


def test_check_image_does_not_copy():
    image = ramp()
    assert check_image(image) is image


@pytest.mark.parametrize(
    "arguments",
    [
        ("percentile", -1, 99),
        ("percentile", 1, 101),
        ("range", 5, 5),
        ("range", 9, 5),
        ("range", 0, np.nan),
        ("range", -np.inf, 1),
        ("sigma", 0, 1),
    ],
)
def test_impossible_normalisations(arguments):
    with pytest.raises(InvalidSettingError):
        Normalisation(*arguments)


def test_keys_differ_with_every_setting():
    keys = {
        Normalisation().key,
        Normalisation("percentile").key,
        Normalisation("percentile", 1).key,
        Normalisation("percentile", 1, 99).key,
        Normalisation("range", 1, 99).key,
        Normalisation("range", 1, 99.0000001).key,
    }
    assert len(keys) == 6
    assert Normalisation("range", 1, 99).key == Normalisation("range", 1.0, 99.0).key


# --- limits -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (20_000, 1), (20_000, 60, 3)])
def test_one_pixel_and_20_000_pixel_sides(shape: tuple[int, ...]):
    image = ramp("u2", shape)
    rgb = to_rgb8(image)
    assert rgb.shape == (*shape[:2], 3)


def test_sampled_limits_of_a_large_image_are_near_the_exact_ones():
    image = np.random.default_rng(2).normal(1000, 100, (3000, 3000)).astype(np.float32)
    limits = intensity_limits(image)
    np.testing.assert_allclose(limits, np.percentile(image, (0.5, 99.5)), atol=3)


def test_temporaries_stay_small():
    image = np.random.default_rng(0).random((4000, 5000), dtype=np.float32)
    tracemalloc.start()
    try:
        to_rgb8(image)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The result is 60 MB; a float64 copy of the whole would be 160 MB.
    assert peak < 60e6 + 70e6


def test_16_bit_micrograph_is_converted_at_once():
    image = np.random.default_rng(0).integers(0, 65535, (1024, 1536), dtype=np.uint16)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        to_rgb8(image)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05


# --- content hash ---------------------------------------------------------------------------


def test_hash_depends_on_values_shape_and_dtype_only():
    image = ramp("u2", (30, 40))
    reference = content_hash(image)
    assert content_hash(image.copy(order="F")) == reference
    assert content_hash(np.repeat(image, 2, axis=1)[:, ::2]) == reference
    assert content_hash(image.reshape(40, 30)) != reference
    assert content_hash(image.astype(np.int16)) != reference
    changed = image.copy()
    changed[-1, -1] += 1
    assert content_hash(changed) != reference


def test_hash_of_a_scattered_large_array_equals_that_of_its_copy():
    image = np.random.default_rng(0).integers(0, 9, (4000, 3000), dtype=np.uint8)
    assert content_hash(image[::2, ::2]) == content_hash(image[::2, ::2].copy())


def test_hash_of_objects_is_refused():
    with pytest.raises(InvalidImageError, match="object"):
        content_hash(np.array([[None]]))

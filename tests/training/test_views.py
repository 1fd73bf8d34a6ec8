"""Views: image and labels stay on each other, chance comes from the generator alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils.transforms import ResizeLongestSide

from phasesam.core.errors import InvalidSettingError, TrainingDataError
from phasesam.training.augmentation import AugmentationConfig
from phasesam.training.label_values import UNLABELLED
from phasesam.training.views import (
    ViewConfig,
    make_view,
    nearest,
    plain_view,
    windows,
)

SIDE = 1024


def geometry(**changes) -> AugmentationConfig:
    """Only what moves pixels."""
    settings = {"gamma": (1.0, 1.0), "contrast": 0.0, "brightness": 0.0, "noise": 0.0, "blur": 0.0}
    return AugmentationConfig(**{**settings, **changes})


def coordinates(height: int, width: int, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Make an image whose red is y and green is x, and labels that tell every pixel apart."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([y // step, x // step, np.zeros_like(y)], axis=-1).astype(np.uint8)
    return rgb, (y * width + x).astype(np.int32)


def misplacement(view, width: int, step: int = 1) -> np.ndarray:
    """Where the image says it is from, less where the labels say so; (n, 2) pixels."""
    known = view.labels >= 0
    said = view.rgb[..., :2][known].astype(float) * step + (step - 1) / 2
    return said - np.stack(np.divmod(view.labels[known], width), axis=-1)


@given(
    shape=st.tuples(st.integers(90, 256), st.integers(90, 256)),
    window=st.none() | st.integers(48, 300),
    scale=st.sampled_from([(1.0, 1.0), (0.5, 0.6), (0.75, 1.33), (1.5, 2.0)]),
    any_angle=st.booleans(),
    elastic=st.sampled_from([0.0, 0.0, 0.02]),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=20)
def test_image_and_labels_stay_on_each_other(shape, window, scale, any_angle, elastic, seed):
    rgb, labels = coordinates(*shape)
    changes = geometry(scale=scale, any_angle=any_angle, elastic=elastic)
    view = make_view(rgb, labels, ViewConfig(window, changes), np.random.default_rng(seed))
    assert max(view.rgb.shape[:2]) == SIDE
    assert view.rgb.shape[:2] == view.labels.shape
    assert view.rgb.flags.c_contiguous
    assert view.labels.flags.c_contiguous
    assert (view.rgb.dtype, view.labels.dtype) == (np.uint8, np.int32)
    error = misplacement(view, shape[1])
    # Half a pixel between a place and its nearest pixel, half a grey level of rounding, twice
    # nearest where the view is warped.
    warped = any_angle or elastic > 0
    assert np.abs(error).max() <= (1.8 if warped else 1.1)
    # A shift of all, such as half a pixel of the image, would stay in the mean. Pillow cuts
    # warped intensities off to whole numbers.
    assert np.abs(error.mean(axis=0) + 0.25 * warped).max() < 0.25


def test_a_shift_by_half_a_pixel_would_be_noticed():
    rgb, labels = coordinates(200, 180)
    view = make_view(rgb, labels, ViewConfig(64, geometry()), np.random.default_rng(3))
    assert np.abs(misplacement(view, 180).mean(axis=0)).max() < 0.1
    moved = np.roll(view.labels, 8, axis=1)  # half a pixel at a magnification of about 16
    error = misplacement(type(view)(view.rgb[:, 8:], moved[:, 8:]), 180)
    assert np.abs(error.mean(axis=0)).max() > 0.3


def test_large_images_stay_on_their_labels_too():
    rgb, labels = coordinates(1500, 2040, step=8)
    for seed in range(3):
        config = ViewConfig(None, geometry(any_angle=seed == 2))
        view = make_view(rgb, labels, config, np.random.default_rng(seed))
        error = misplacement(view, 2040, step=8)
        # Antialiasing rounds the coarse steps off near mirrored borders.
        assert np.quantile(np.abs(error), 0.999) < 8
        assert np.abs(error.mean(axis=0)).max() < 1


def test_any_angle_turns_without_scaling():
    rgb, labels = coordinates(200, 200)
    config = ViewConfig(None, geometry(any_angle=True, scale=(1.0, 1.0), right_angles=False))
    view = make_view(rgb, labels, config, np.random.default_rng(5))
    known = np.argwhere(view.labels >= 0)
    first, last = known[len(known) // 3], known[2 * len(known) // 3]
    places = [np.array(divmod(view.labels[tuple(p)], 200)) for p in (first, last)]
    seen = np.linalg.norm(last - first) * 200 / SIDE
    assert np.linalg.norm(places[1] - places[0]) == pytest.approx(seen, abs=2.0)
    shares = [
        (make_view(rgb, labels, config, np.random.default_rng(s)).labels >= 0).mean()
        for s in range(6)
    ]
    # A turned square covers between 83 % and all of itself.
    assert min(shares) > 0.82
    assert min(shares) < 0.95


@given(seed=st.integers(0, 1000), window=st.none() | st.just(40))
@settings(deadline=None, max_examples=12)
def test_labels_are_never_mixed_and_unlabelled_never_becomes_background(seed, window):
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([3, 70_000, UNLABELLED], np.int32), size=(90, 120))
    rgb = rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)
    changes = AugmentationConfig(any_angle=bool(seed % 2), elastic=0.02 * (seed % 3 == 0))
    view = make_view(rgb, labels, ViewConfig(window, changes), rng)
    assert set(np.unique(view.labels).tolist()) <= {3, 70_000, UNLABELLED}
    assert (view.labels == UNLABELLED).any()


def test_equal_generators_give_equal_views():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (150, 130, 3), dtype=np.uint8)
    labels = rng.integers(0, 4, (150, 130), dtype=np.int32)
    changes = AugmentationConfig(any_angle=True, elastic=0.01, poisson=True)
    config = ViewConfig(64, changes)
    one, other = (make_view(rgb, labels, config, np.random.default_rng(7)) for _ in range(2))
    third = make_view(rgb, labels, config, np.random.default_rng(8))
    np.testing.assert_array_equal(one.rgb, other.rgb)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert not np.array_equal(one.rgb, third.rgb)


def test_the_source_is_left_alone():
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (1024, 1024, 3), dtype=np.uint8)
    labels = rng.integers(0, 4, (1024, 1024), dtype=np.int32)
    before = rgb.copy(), labels.copy()
    view = plain_view(rgb, labels)
    make_view(rgb, labels, ViewConfig(), rng)
    for array, old in zip((rgb, labels), before, strict=True):
        np.testing.assert_array_equal(array, old)
    np.testing.assert_array_equal(view.rgb, rgb)


def test_every_turn_and_mirror_image_occurs():
    rgb, labels = coordinates(64, 64)
    config = ViewConfig(None, geometry(scale=(1.0, 1.0)))
    seen = {
        tuple(
            make_view(rgb, labels, config, np.random.default_rng(s)).labels[[0, 0, -1], [0, -1, 0]]
        )
        for s in range(60)
    }
    assert len(seen) == 8


def test_without_augmentation_only_the_window_moves():
    rgb, labels = coordinates(128, 200)
    whole = make_view(rgb, labels, ViewConfig(), np.random.default_rng(0), augment=False)
    np.testing.assert_array_equal(whole.rgb, plain_view(rgb, labels).rgb)
    np.testing.assert_array_equal(whole.labels, plain_view(rgb, labels).labels)
    view = make_view(rgb, labels, ViewConfig(64), np.random.default_rng(0), augment=False)
    y0, x0 = divmod(int(view.labels[0, 0]), 200)
    expected = plain_view(rgb[y0 : y0 + 64, x0 : x0 + 64], labels[y0 : y0 + 64, x0 : x0 + 64])
    np.testing.assert_array_equal(view.rgb, expected.rgb)
    np.testing.assert_array_equal(view.labels, expected.labels)


@pytest.mark.parametrize("side", [64, 256])
def test_views_of_another_size_for_other_networks(side):
    rgb, labels = coordinates(200, 256)
    plain = ViewConfig(side, AugmentationConfig.none(), balance=0)
    view = make_view(rgb, labels, plain, np.random.default_rng(0), side=side)
    # A window of as many pixels as the view is a piece of the image as it is.
    assert max(view.rgb.shape[:2]) == side
    np.testing.assert_array_equal(misplacement(view, 256), 0)
    zoomed = ViewConfig(side, geometry(scale=(0.5, 0.5)), balance=0)
    assert (
        max(make_view(rgb, labels, zoomed, np.random.default_rng(0), side=side).rgb.shape) == side
    )


@pytest.mark.parametrize("shape", [(300, 500), (1500, 1100), (1024, 700), (1, 40), (33, 2000)])
def test_plain_views_are_scaled_as_sam_does(shape):
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
    labels = rng.integers(-1, 9, shape).astype(np.int32)
    view = plain_view(rgb, labels)
    if min(shape) > 1:
        np.testing.assert_array_equal(view.rgb, ResizeLongestSide(SIDE).apply_image(rgb))
    assert view.labels.shape == view.rgb.shape[:2]
    assert set(np.unique(view.labels)) <= set(np.unique(labels))


@given(source=st.integers(1, 60), target=st.integers(1, 60))
@settings(deadline=None)
def test_nearest_takes_the_pixel_in_which_the_centre_lies(source, target):
    labels = np.arange(source, dtype=np.int32)[None]
    expected = np.floor((np.arange(target) + 0.5) * source / target + 1e-9)
    np.testing.assert_array_equal(nearest(labels, (1, target))[0], expected)


def test_grey_and_colour_take_the_same_way():
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(0, 255, (90, 70, 1), dtype=np.uint8), 3, axis=2)
    colour = grey.copy()
    colour[0, 0] = (1, 2, 3)
    labels = np.zeros((90, 70), np.int32)
    config = ViewConfig(None, AugmentationConfig(noise=0.0, scale=(1.0, 1.0)))
    views = [make_view(i, labels, config, np.random.default_rng(2)) for i in (grey, colour)]
    assert (views[0].rgb[..., 0] == views[0].rgb[..., 2]).all()
    differ = (views[0].rgb.astype(int) - views[1].rgb).any(axis=-1)
    assert differ.mean() < 0.02


def test_a_window_always_holds_labels_where_there_are_few():
    labels = np.full((400, 500), UNLABELLED, np.int32)
    labels[390:394, 20:24] = 0
    rgb = np.zeros((400, 500, 3), np.uint8)
    config = ViewConfig(64, geometry(any_angle=True), balance=0.0)
    for seed in range(8):
        view = make_view(rgb, labels, config, np.random.default_rng(seed))
        assert (view.labels == 0).any()


def test_rare_classes_are_shown_often():
    labels = np.zeros((600, 600), np.int32)
    labels[100:103, 100:500] = 1
    rgb = np.zeros((600, 600, 3), np.uint8)

    def share(balance: float) -> float:
        config = ViewConfig(60, geometry(scale=(1.0, 1.0)), balance)
        views = (make_view(rgb, labels, config, np.random.default_rng(s)) for s in range(40))
        return float(np.mean([(view.labels == 1).any() for view in views]))

    # 1/√frequency gives the thin line 0.946 of the balanced views.
    assert share(1.0) > 0.8
    assert share(0.0) < 0.4


def test_small_things_are_found_in_large_images():
    labels = np.zeros((3000, 3000), np.int32)
    labels[2000:2002, 1500:1502] = 5
    labels[0, 0] = 2_000_000_000
    rgb = np.zeros((3000, 3000, 3), np.uint8)
    config = ViewConfig(100, geometry(scale=(1.0, 1.0)), balance=1.0)
    seen = [
        (make_view(rgb, labels, config, np.random.default_rng(s)).labels == 5).any()
        for s in range(12)
    ]
    assert any(seen)


def test_an_image_without_labels_can_be_shown():
    labels = np.full((80, 90), UNLABELLED, np.int32)
    view = make_view(
        np.zeros((80, 90, 3), np.uint8), labels, ViewConfig(32), np.random.default_rng(0)
    )
    assert (view.labels == UNLABELLED).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (3, 2)])
def test_tiny_images(shape):
    config = ViewConfig(None, AugmentationConfig(any_angle=True, elastic=0.02))
    view = make_view(
        np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.int32), config, np.random.default_rng(0)
    )
    assert max(view.rgb.shape[:2]) == SIDE


def test_windows_cover_the_image():
    boxes = windows((100, 250), 100, 20)
    assert boxes == [(0, 0, 100, 100), (0, 75, 100, 175), (0, 150, 100, 250)]


def test_what_is_no_image_or_no_labels():
    rgb, labels = np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.int32)
    with pytest.raises(TrainingDataError, match=r"\(20, 30\), got \(30, 20\)"):
        plain_view(rgb, labels.T)
    with pytest.raises(TrainingDataError, match="float64"):
        plain_view(rgb, labels.astype(float))
    with pytest.raises(TrainingDataError, match="uint16"):
        make_view(rgb.astype(np.uint16), labels, ViewConfig(), np.random.default_rng(0))
    with pytest.raises(InvalidSettingError, match="got 0"):
        ViewConfig(0)
    with pytest.raises(InvalidSettingError, match="balance"):
        ViewConfig(balance=1.5)

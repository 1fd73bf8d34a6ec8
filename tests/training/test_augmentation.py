"""Intensities change by what was asked for; distortions move image and labels alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from phasesam.core.errors import InvalidSettingError
from phasesam.training.augmentation import (
    AugmentationConfig,
    change_intensities,
    draw_distortion,
    log_uniform,
    warp_mesh,
)

STILL = AugmentationConfig.none()


def only(**changes) -> AugmentationConfig:
    return AugmentationConfig(**{**vars(STILL), **changes})


def test_nothing_changes_when_nothing_is_asked_for():
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    changed = change_intensities(image, STILL, np.random.default_rng(1))
    np.testing.assert_array_equal(changed, image)
    angle, shifts = draw_distortion(STILL, np.random.default_rng(1))
    assert angle == 0
    assert not shifts.any()


def test_noise_has_the_wanted_deviation_at_most_and_no_bias():
    image = np.full((256, 256), 128, np.uint8)
    deviations = []
    for seed in range(30):
        noisy = change_intensities(image, only(noise=0.05), np.random.default_rng(seed)).astype(
            float
        )
        deviations.append(noisy.std() / 255)
        assert abs(noisy.mean() - 128) < 0.5
    assert 0.04 < max(deviations) < 0.051
    assert min(deviations) < 0.02


def test_bands_have_different_noise():
    image = np.full((200, 200, 3), 128, np.uint8)
    noisy = change_intensities(image, only(noise=0.05), np.random.default_rng(1)).astype(float)
    correlation = np.corrcoef(noisy.reshape(-1, 3).T)
    assert np.abs(correlation - np.eye(3)).max() < 0.03


def test_shot_noise_grows_with_the_brightness():
    image = np.repeat(np.array([[20], [180]], np.uint8), 40_000, axis=1)
    noisy = change_intensities(image, only(poisson=True), np.random.default_rng(0)).astype(float)
    dark, bright = noisy.var(axis=1) - 1 / 12
    assert bright / dark == pytest.approx(180 / 20, rel=0.25)


def test_gamma_contrast_and_brightness_keep_the_order_of_intensities():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    config = only(gamma=(0.5, 2.0), contrast=0.3, brightness=0.2)
    curves = [
        change_intensities(ramp, config, np.random.default_rng(s)).reshape(-1) for s in range(20)
    ]
    assert all((np.diff(curve.astype(int)) >= 0).all() for curve in curves)
    middles = [int(curve[128]) for curve in curves]
    assert min(middles) < 110
    assert max(middles) > 150


def test_gamma_alone_keeps_black_and_white():
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    curve = change_intensities(ramp, only(gamma=(2.0, 2.0)), np.random.default_rng(0)).reshape(-1)
    np.testing.assert_allclose(curve, 255 * (np.arange(256) / 255) ** 2, atol=0.51)


def test_blur_takes_away_detail_but_no_light():
    image = np.random.default_rng(0).integers(0, 255, (128, 128), dtype=np.uint8)
    blurred = [
        change_intensities(image, only(blur=4.0), np.random.default_rng(s)) for s in range(10)
    ]
    assert min(array.std() for array in blurred) < 0.2 * image.std()
    assert all(array.mean() == pytest.approx(image.mean(), abs=1) for array in blurred)


def test_scales_are_drawn_evenly_in_their_logarithm():
    rng = np.random.default_rng(0)
    drawn = np.array([log_uniform(rng, (0.5, 2.0)) for _ in range(4000)])
    assert drawn.min() >= 0.5
    assert drawn.max() <= 2.0
    assert np.mean(drawn > 1) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("elastic", [0.0, 0.03])
def test_a_mesh_moves_image_and_labels_by_the_same(elastic):
    height, width = 300, 400
    y, x = np.mgrid[:height, :width]
    config = only(any_angle=True, elastic=elastic)
    angle, shifts = draw_distortion(config, np.random.default_rng(2))
    mesh = warp_mesh((height, width), (120, 140), angle, shifts)

    def warped(array: np.ndarray, how: Image.Resampling) -> np.ndarray:
        picture = Image.fromarray(array)
        return np.array(picture.transform((140, 120), Image.Transform.MESH, mesh, how))

    labels = warped((y * width + x).astype(np.int32), Image.Resampling.NEAREST)
    for axis, found in zip((y, x), np.divmod(labels, width), strict=True):
        place = warped(axis.astype(np.float32), Image.Resampling.BILINEAR)
        error = place - found
        assert np.abs(error).max() <= 0.51
        assert abs(error.mean()) < 0.02
    # The centre stays where it is and what is two pixels apart stays two pixels apart.
    if not elastic:
        places = np.stack(np.divmod(labels, width), axis=-1).astype(float)
        assert np.abs(places[60, 70] - (150, 200)).max() <= 1
        far = np.linalg.norm(places[60, 130] - places[60, 10])
        assert far == pytest.approx(120, abs=1.5)
        turned = places[60, 130] - places[60, 10]
        assert math.atan2(-turned[0], turned[1]) % (2 * math.pi) == pytest.approx(
            angle % (2 * math.pi), abs=0.03
        )


def test_distortions_have_the_wanted_size():
    drawn = [draw_distortion(only(elastic=0.02), np.random.default_rng(s))[1] for s in range(40)]
    assert 0.01 < np.std(drawn) < 0.022
    # Larger shifts would reach beyond the margin that views keep around themselves.
    assert np.abs(drawn).max() < 3 * 0.02


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": (0.0, 1.0)},
        {"scale": (2.0, 1.0)},
        {"gamma": (1.0, math.inf)},
        {"noise": -0.1},
        {"blur": math.nan},
        {"elastic": 0.5},
        {"contrast": 1.5},
    ],
)
def test_impossible_settings(changes):
    with pytest.raises(InvalidSettingError, match=next(iter(changes))):
        AugmentationConfig(**changes)


def test_ranges_from_a_json_file_are_lists():
    assert AugmentationConfig(scale=[0.5, 2]) == AugmentationConfig(scale=(0.5, 2.0))

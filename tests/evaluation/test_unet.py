"""The baseline learns, leaves out what is unlabelled, and keeps to its limits."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from phasesam.core.errors import CancelledError, InvalidSettingError
from phasesam.evaluation.phase_maps import score_phase_maps
from phasesam.evaluation.unet import UNetConfig, _preferred, train_unet
from phasesam.training.augmentation import AugmentationConfig
from phasesam.training.data_sources import ArrayLabels
from phasesam.training.dataset import LabelledImage, TrainingData, from_arrays
from phasesam.training.views import ViewConfig

QUICK = UNetConfig(
    steps=24,
    windows=(32,),
    side=32,
    width=4,
    batch=4,
    lr=2e-2,
    views=ViewConfig(augmentation=AugmentationConfig.none()),
    validations=3,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sample(seed: int, shape=(48, 64)) -> tuple[np.ndarray, np.ndarray]:
    """Bright blobs in noise."""
    rng = np.random.default_rng(seed)
    labels = (ndimage.gaussian_filter(rng.normal(size=shape), 4) > 0.03).astype(np.int32)
    image = 80 + 90 * labels + rng.normal(0, 15, shape)
    return image.clip(0, 255).astype(np.uint8), labels


def data(splits="tttv", hide=None) -> TrainingData:
    images = []
    for seed, kind in enumerate(splits):
        image, labels = sample(seed)
        if hide is not None:
            labels = hide(labels, np.random.default_rng(seed))
        images.append((f"{kind}{seed}", image, labels, None))
    made = from_arrays(images, "semantic", fractions=(1, 0, 0), classes=("matrix", "blob"))
    names = {"t": "train", "v": "val", "e": "test"}
    return replace(made, images=tuple(replace(i, split=names[i.name[0]]) for i in made.images))


def score(network, image: LabelledImage, orientations: int = 2) -> float:
    predicted = network.predict(image.rgb(), orientations)
    return score_phase_maps([predicted], [image.label_array()], 2).pooled_mean_iou


@pytest.fixture(scope="module")
def trained():
    return train_unet(data("tttve"), QUICK)


def test_it_learns(trained):
    test = data("tttve").of("test")[0]
    assert score(trained, test) > 0.85
    assert trained.best_score > 0.85
    assert trained.classes == ("matrix", "blob")
    assert [row["step"] for row in trained.rows] == [8, 16, 24]
    assert trained.rows[-1]["loss"] < trained.rows[0]["loss"]


def test_the_same_seed_gives_the_same_network(trained):
    again = train_unet(data("tttve"), QUICK)
    rgb = data("e").images[0].rgb()
    np.testing.assert_array_equal(again.probabilities(rgb), trained.probabilities(rgb))


def test_probabilities_of_images_of_any_size(trained):
    for shape in ((32, 32), (20, 90), (65, 47)):
        rgb = np.repeat(sample(9, shape)[0][..., None], 3, axis=2)
        probabilities = trained.probabilities(rgb)
        assert probabilities.shape == (2, *shape)
        np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)
        np.testing.assert_array_equal(trained.predict(rgb), probabilities.argmax(axis=0))


def test_views_turned_upside_down_are_averaged(trained):
    """As for adapters, with which it is compared."""
    rgb = np.repeat(sample(9)[0][..., None], 3, axis=2)
    turned = np.ascontiguousarray(rgb[::-1, ::-1])
    np.testing.assert_allclose(
        trained.probabilities(rgb), trained.probabilities(turned)[:, ::-1, ::-1], atol=1e-5
    )
    once = [trained.probabilities(rgb, 1), trained.probabilities(turned, 1)[:, ::-1, ::-1]]
    assert np.abs(once[0] - once[1]).max() > 1e-3
    logits = sum(np.log(p) - np.log(p).mean(axis=0) for p in once) / 2
    expected = np.exp(logits) / np.exp(logits).sum(axis=0)
    np.testing.assert_allclose(trained.probabilities(rgb), expected, atol=1e-4)


def test_brightness_and_contrast_of_an_image_do_not_matter(trained):
    rgb = np.repeat(sample(9)[0][..., None], 3, axis=2)
    darker = (rgb // 2 + 20).astype(np.uint8)
    agreement = np.mean(trained.predict(rgb) == trained.predict(darker))
    assert agreement > 0.97


def test_unlabelled_pixels_are_not_learnt():
    def hidden(labels, rng):
        out = labels.copy()
        out[:, ::2] = -1
        return out

    network = train_unet(data("tttv", hidden), QUICK)
    image, labels = sample(7)
    rgb = np.repeat(image[..., None], 3, axis=2)
    assert score_phase_maps([network.predict(rgb)], [labels], 2).pooled_mean_iou > 0.8


def test_the_best_weights_are_kept():
    # A rate that wrecks the network after a good start.
    network = train_unet(data(), replace(QUICK, steps=30, lr=0.5, validations=10))
    validation = data().of("val")[0]
    assert score(network, validation, 1) == pytest.approx(network.best_score, abs=1e-6)


def test_without_validation_images_the_last_weights_are_taken():
    network = train_unet(data("tt"), replace(QUICK, steps=4))
    assert np.isnan(network.best_score)
    assert network.rows[-1]["step"] == 4


def test_time_limit():
    began = time.monotonic()
    network = train_unet(data(), replace(QUICK, steps=10**6, seconds=1.5))
    assert time.monotonic() - began < 15
    assert network.rows[-1]["step"] < 10**6


def test_small_images_get_smaller_windows():
    images = [("a", *sample(1, (40, 52)), None), ("b", *sample(2, (90, 70)), None)]
    made = from_arrays(images, "semantic", fractions=(1, 0, 0))
    network = train_unet(made, replace(QUICK, steps=2, windows=(64,), side=64))
    # The nearest multiple of 16.
    assert (network.window, network.side) == (40, 32)


def test_windows_may_be_shrunk_for_the_network():
    network = train_unet(data(), replace(QUICK, windows=(48,), side=32))
    assert (network.window, network.side) == (48, 32)
    assert score(network, data("e").images[0]) > 0.7
    assert network.probabilities(data("e").images[0].rgb()).shape == (2, 48, 64)


def test_the_field_of_view_is_chosen_on_validation_images():
    steps = []
    network = train_unet(
        data("tv"),
        replace(QUICK, steps=40, windows=(32, 48, 4096), validations=2),
        progress=lambda done, total: steps.append(done),
    )
    assert set(network.tried) == {32, 48}
    assert network.window in network.tried
    # Two trials of four steps each belong to the budget.
    assert steps == list(range(1, 41))
    assert network.rows[-1]["step"] == 32
    alone = train_unet(data("t"), replace(QUICK, steps=2, windows=(32, 48)))
    assert (alone.window, alone.tried) == (48, {})


def test_a_larger_field_of_view_must_be_clearly_better():
    assert _preferred({256: 0.80, 512: 0.82}) == 256
    assert _preferred({256: 0.40, 512: 0.52, 1024: 0.54}) == 512
    assert _preferred({256: 0.40, 512: 0.52, 1024: 0.62}) == 1024


def test_progress_and_stopping():
    steps = []
    train_unet(data(), replace(QUICK, steps=3), progress=lambda *p: steps.append(p))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(CancelledError):
        train_unet(data(), QUICK, should_stop=lambda: True)


def test_what_does_not_fit_is_refused():
    objects = from_arrays([("a", *sample(0), None)], "instance", fractions=(1, 0, 0))
    with pytest.raises(InvalidSettingError, match="classes"):
        train_unet(objects, QUICK)
    with pytest.raises(InvalidSettingError, match="multiple of 16"):
        UNetConfig(side=100)
    with pytest.raises(InvalidSettingError, match="windows"):
        UNetConfig(windows=())
    with pytest.raises(InvalidSettingError, match="width"):
        UNetConfig(width=0)
    with pytest.raises(InvalidSettingError, match="positive"):
        UNetConfig(seconds=0.0)


def test_validation_images_without_labels_judge_nothing():
    made = data("ttvv")
    blank = replace(made.images[3], labels=ArrayLabels("v3", np.full((48, 64), -1)))
    network = train_unet(replace(made, images=(*made.images[:3], blank)), QUICK)
    assert network.best_score == train_unet(data("ttv"), QUICK).best_score

"""The same place is found again, whatever happened to the image; other places are not."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from phasesam.core.errors import CancelledError
from phasesam.training.near_duplicates import near_duplicates


@dataclass(frozen=True)
class Picture:
    name: str
    split: str
    array: np.ndarray = field(repr=False)

    def rgb(self) -> np.ndarray:
        grey = np.clip(np.rint(self.array), 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)


def micrograph(seed: int, shape: tuple[int, int] = (300, 400), coarse: float = 5.0) -> np.ndarray:
    """Blobs over slow shading that all images share, as layers and vignettes do."""
    texture = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), coarse)
    shading = np.linspace(0, 60, shape[0])[:, None]
    return 100 + 30 * texture / texture.std() + shading


def noisy(array: np.ndarray, deviation: float = 6.0) -> np.ndarray:
    return array + np.random.default_rng(99).normal(0, deviation, array.shape)


def resized(array: np.ndarray, scale: float) -> np.ndarray:
    size = (round(array.shape[1] * scale), round(array.shape[0] * scale))
    return np.asarray(Image.fromarray(array.astype(np.float32)).resize(size))


CHANGES = {
    "again": lambda a: a,
    "noisy": lambda a: noisy(a),
    "mirrored": lambda a: noisy(a[:, ::-1]),
    "turned": lambda a: noisy(np.rot90(a)),
    "half turn, mirrored": lambda a: np.rot90(a[::-1], 2),
    "brighter": lambda a: noisy(a * 0.5 + 90),
    "gamma": lambda a: noisy(255 * (np.clip(a, 0, 255) / 255) ** 0.5),
    "more contrast": lambda a: (a - 120) * 1.6 + 120,
    "smaller": lambda a: resized(a, 0.5),
    "larger": lambda a: resized(a, 1.7),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_same_image_is_found(change):
    images = [
        Picture("a", "train", micrograph(1)),
        Picture("b", "train", micrograph(2)),
        Picture("a2", "test", change(micrograph(1))),
    ]
    found = near_duplicates(images)
    assert [(p.first, p.second, p.kind) for p in found] == [("a", "a2", "same")]
    assert found[0].splits == ("train", "test")
    assert found[0].similarity > 0.9


@pytest.mark.parametrize("share", [0.2, 0.4, 0.7])
@pytest.mark.parametrize("axis", [0, 1])
def test_overlapping_fields_are_found(share, axis):
    wide = micrograph(3, (600, 600), 4.0)
    offset = round((1 - share) * 300)
    one, other = wide[:300, 150:450], wide[offset : offset + 300, 130:430]
    if axis == 1:
        wide = wide.T
        one, other = wide[150:450, :300], wide[130:430, offset : offset + 300]
    images = [
        Picture("one", "train", one),
        Picture("other", "val", noisy(other * 0.8 + 20)),
        Picture("far", "val", micrograph(4, (300, 300), 4.0)),
    ]
    found = near_duplicates(images)
    assert [(p.first, p.second, p.kind) for p in found] == [("one", "other", "overlap")]


def test_a_crop_of_an_image_is_found():
    wide = micrograph(5, (500, 700), 4.0)
    images = [Picture("wide", "train", wide), Picture("crop", "val", wide[100:400, 250:650])]
    assert [p.kind for p in near_duplicates(images)] == ["overlap"]


@pytest.mark.parametrize("coarse", [1.0, 4.0, 10.0])
def test_other_images_of_the_same_kind_are_not_taken_for_the_same(coarse):
    images = [
        Picture(str(i), "train" if i % 2 else "val", micrograph(i, coarse=coarse))
        for i in range(12)
    ]
    assert near_duplicates(images) == ()


def test_images_of_one_split_are_not_compared():
    images = [Picture(name, "train", micrograph(1)) for name in "ab"]
    assert near_duplicates(images) == ()


def test_blank_and_tiny_images_are_like_nothing():
    images = [
        Picture("a", "train", np.full((50, 60), 80.0)),
        Picture("b", "val", np.full((50, 60), 80.0)),
        Picture("c", "test", np.zeros((1, 1))),
    ]
    assert near_duplicates(images) == ()
    assert near_duplicates([]) == ()


def test_progress_and_stop():
    seen = []
    images = [Picture(str(i), "train", micrograph(i)) for i in range(3)]
    near_duplicates(images, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(CancelledError):
        near_duplicates(images, should_stop=lambda: True)


@pytest.mark.slow
def test_fields_that_overlap_in_a_public_set_are_found(shared_data):
    """Names hold the columns of the crop, so that the truth is known."""
    from phasesam.training.dataset import read_training_data

    data = read_training_data(shared_data / "data" / "nasa_meltpool_val", "instance")
    found = {frozenset((p.first, p.second)) for p in near_duplicates(data.images)}
    spans = {i.name: (int(i.name.split("_")[1]), int(i.name.split("_")[3])) for i in data.images}
    truth = {
        frozenset((a.name, b.name))
        for a in data.images
        for b in data.images
        if a.split != b.split
        and spans[a.name][0] < spans[b.name][0] < spans[a.name][1]
        and spans[a.name][1] - spans[b.name][0] >= 100
    }
    assert len(truth) > 5
    assert found == truth

"""Small labelled images that can be learnt within seconds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from phasesam.training.dataset import TrainingData, from_arrays
from phasesam.training.recipes import Recipe, get_recipe


def discs(seed: int, size: int = 128) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Bright discs on a dark ground, numbered."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.int32)
    y, x = np.ogrid[:size, :size]
    for number in range(1, 7):
        cy, cx = rng.integers(15, size - 15, 2)
        labels[(y - cy) ** 2 + (x - cx) ** 2 < rng.integers(7, 15) ** 2] = number
    image = 60 + 110 * (labels > 0) + rng.normal(0, 8, labels.shape)
    return image.clip(0, 255).astype(np.uint8), labels


def disc_data(task: str, count: int = 4) -> TrainingData:
    """Images of discs; the last one validates."""
    images = []
    for seed in range(count):
        image, labels = discs(seed)
        if task == "semantic":
            labels = (labels > 0).astype(np.int32)
        images.append((f"disc{seed}", image, labels, None))
    data = from_arrays(images, task)
    splits = ["train"] * (count - 1) + ["val"]
    return replace(
        data,
        images=tuple(replace(i, split=s) for i, s in zip(data.images, splits, strict=True)),
    )


@pytest.fixture
def brief() -> Recipe:
    """Return the recipe of `brief_recipe`."""
    return brief_recipe()


def brief_recipe() -> Recipe:
    """Return a recipe of a few seconds with the tiny model."""
    default = get_recipe("default")
    return replace(
        default,
        epochs=2,
        views_per_epoch=2,
        pool=4,
        batch=1,
        detail_steps=1,
        prompts=replace(default.prompts, objects=2, rounds=2, judged=2),
    )

"""Objects that the model cannot see are told before the training, not learnt in silence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phasesam.core.errors import TrainingDataError
from phasesam.training.augmentation import AugmentationConfig
from phasesam.training.dataset import from_arrays
from phasesam.training.fine_tuning import train
from phasesam.training.prompt_rounds import choose_objects
from phasesam.training.recipes import get_recipe
from phasesam.training.run_folder import RunFolder
from phasesam.training.settings import TrainingSettings
from phasesam.training.views import ViewConfig, plain_view
from phasesam.training.visible_objects import ImageObjects, about_unseen, unseen_objects

STILL = AugmentationConfig(scale=(1.0, 1.0))


def labels(*sides: int, size: int = 512) -> np.ndarray:
    found = np.zeros((size, size), np.int32)
    for number, side in enumerate(sides, start=1):
        found[60 * number : 60 * number + side, 5 : 5 + side] = number
    return found


@pytest.mark.parametrize("side", range(2, 9))
@pytest.mark.parametrize("size", [256, 512, 1024])
def test_what_is_told_is_what_is_left_out(side: int, size: int) -> None:
    """A training with the whole image as a view picks the same objects."""
    array = labels(side, 40, size=size)
    image = np.zeros((size, size, 3), np.uint8)
    targets = choose_objects(plain_view(image, array).labels, None, np.random.default_rng(0))
    assert targets is not None
    seen = len(targets.masks)
    told = about_unseen([ImageObjects.of(array)], ViewConfig(window=None, augmentation=STILL))
    assert bool(told) == (seen < 2)


def test_a_window_shows_more() -> None:
    array = labels(5, 40, size=1024)
    assert about_unseen([ImageObjects.of(array)], ViewConfig(window=None, augmentation=STILL)) == (
        "of 2 objects 1 are smaller than 64 pixels, and are not learnt; "
        "a smaller window shows them larger"
    )
    assert about_unseen([ImageObjects.of(array)], ViewConfig(window=512, augmentation=STILL)) == ""


def test_what_fills_its_image() -> None:
    full = np.ones((64, 64), np.int32)
    view = ViewConfig(window=None, augmentation=STILL)
    both = [ImageObjects.of(full), ImageObjects.of(labels(40))]
    assert about_unseen(both, view) == "of 2 objects 1 fill their image, and are not learnt"
    with pytest.raises(TrainingDataError, match=r"got 1 of which 1 fill their image$"):
        about_unseen(both[:1], view)
    # With margins, which reduced and turned views have, it does not fill them.
    for more in ({"scale": (0.8, 1.25)}, {"any_angle": True}):
        turned = AugmentationConfig(**{"scale": (1.0, 1.0), **more})
        assert about_unseen(both, ViewConfig(window=None, augmentation=turned)) == ""


def test_the_window_that_a_training_will_take(make_adapter, tmp_path: Path) -> None:
    objects = [ImageObjects.of(labels(4, 40, size=1024))]
    recipe = replace(get_recipe("default"), auto_window=False)
    recipe = replace(recipe, views=replace(recipe.views, window=None))
    whole = TrainingSettings(recipe, base="tiny")
    assert "1 are smaller" in unseen_objects(whole, "instance", objects)
    assert unseen_objects(whole, "semantic", ()) == ""
    fitting = replace(whole, recipe=replace(recipe, auto_window=True))
    assert unseen_objects(fitting, "instance", objects) == ""
    start = make_adapter(tmp_path / "a.safetensors", window=256)
    assert unseen_objects(replace(whole, start=str(start)), "instance", objects) == ""


def test_nothing_is_trained_when_nothing_can_be_seen(tmp_path: Path) -> None:
    array = labels(3, 3, size=1024)
    data = from_arrays([("a", array.astype(np.uint8), array, None)], "promptable")
    recipe = replace(get_recipe("default"), auto_window=False)
    recipe = replace(recipe, views=replace(recipe.views, window=None))
    with pytest.raises(TrainingDataError, match="expected objects that the model can tell, got 2"):
        train(data, tmp_path, TrainingSettings(recipe, base="tiny", device="cpu"))
    assert RunFolder(tmp_path).status().state == "failed"

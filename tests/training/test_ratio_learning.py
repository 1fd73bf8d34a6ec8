"""Images of which only the amounts are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tests.training.conftest as made
import torch
from safetensors.torch import load_file
from tests.training.conftest import disc_data

from phasesam.core.errors import CancelledError, InvalidSettingError
from phasesam.core.types import PixelSize
from phasesam.engines.segmenter import Segmenter
from phasesam.engines.semantic import segment_classes
from phasesam.models.adapter_card import read_card
from phasesam.training import ratio_learning
from phasesam.training.dataset import from_arrays
from phasesam.training.fine_tuning import train
from phasesam.training.label_values import UNLABELLED
from phasesam.training.ratio_learning import (
    RatioExample,
    RatioLearning,
    learn_from_ratios,
    mapped,
    ratio_labels,
)
from phasesam.training.recipes import get_recipe
from phasesam.training.settings import TrainingSettings
from phasesam.training.trainer import Callback

SETTINGS = TrainingSettings(base="tiny", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = replace(
        get_recipe("default"), epochs=1, views_per_epoch=2, pool=4, batch=1, detail_steps=5
    )
    folder = tmp_path_factory.mktemp("adapter")
    return train(disc_data("semantic"), folder, replace(SETTINGS, recipe=recipe)).path


def example(seed: int, **changes: object) -> RatioExample:
    """An image that is darker and has less contrast than those learnt from."""
    image, labels = made.discs(seed)
    share = float((labels > 0).mean())
    given = RatioExample(f"unseen{seed}", (image // 2 + 20).astype(np.uint8), [1 - share, share])
    return replace(given, **changes)


def test_the_surest_pixels_of_a_map_with_the_amounts_are_labelled(adapter: Path) -> None:
    shown = example(20)
    segmenter = Segmenter(shown.image, "tiny", adapter=str(adapter))
    wanted, logits = replace(shown, fractions=[0.7, 0.3]), mapped(segmenter)
    labels = ratio_labels(logits, wanted, 0.6)
    assert labels.shape == (128, 128)
    assert [(labels == k).mean() for k in (0, 1)] == pytest.approx([0.42, 0.18], abs=0.01)
    every = ratio_labels(logits, wanted, 1.0)
    assert (every == 1).mean() == pytest.approx(0.3, abs=1e-4)
    assert (every != UNLABELLED).all()
    assert (every[labels >= 0] == labels[labels >= 0]).all()
    found = segment_classes(segmenter, keep_probabilities=True).probabilities
    # Surer of discs where they are labelled so than where the label was left out.
    odds = np.log(found[1] / found[0])
    assert odds[labels == 1].min() >= odds[(every == 1) & (labels < 0)].max() - 1e-4


def test_nothing_known_and_nothing_there(adapter: Path) -> None:
    shown = example(21, fractions=[None, None])
    segmenter = Segmenter(shown.image, "tiny", adapter=str(adapter))
    own, logits = segment_classes(segmenter).labels, mapped(segmenter)
    assert (ratio_labels(logits, shown, 1.0) == own).all()
    none = ratio_labels(logits, replace(shown, fractions=[1.0, 0.0]), 0.5)
    assert set(np.unique(none)) == {UNLABELLED, 0}
    # An uncertain amount gives way to what is seen.
    doubted = replace(shown, fractions=[0.2, 0.8], uncertainty=0.2)
    share = (ratio_labels(logits, doubted, 1.0) == 1).mean()
    assert own.mean() < share < 0.8


def test_an_adapter_learns_from_amounts(adapter: Path, tmp_path: Path) -> None:
    before = adapter.read_bytes()
    result = learn_from_ratios(
        [example(22), example(23)], adapter, tmp_path / "run", RatioLearning(views=3),
        settings=SETTINGS,
    )  # fmt: skip
    card, old = result.card, read_card(adapter)
    assert (card.classes, card.window, card.config) == (old.classes, old.window, old.config)
    assert card.details["splits"] == {"train": ["unseen22", "unseen23"]}
    assert result.path.read_bytes() != before
    assert adapter.read_bytes() == before
    assert len(result.rows) == 1


def test_the_new_adapter_keeps_what_the_card_says(tmp_path: Path) -> None:
    """Values of classes in label files, licence, size of a pixel."""
    recipe = replace(
        get_recipe("default"), epochs=1, views_per_epoch=2, pool=2, batch=1, detail_steps=2
    )
    image, labels = made.discs(3)
    data = from_arrays(
        [("one", image, np.where(labels > 0, 7, 4), None)], "semantic",
        classes={4: "ground", 7: "disc"}, pixel_size=PixelSize(0.2, 0.2, "um"),
        fractions=(1, 0, 0),
    )  # fmt: skip
    settings = replace(SETTINGS, recipe=recipe, licence="CC0-1.0")
    parent = train(data, tmp_path / "parent", settings).path
    short = RatioLearning(views=2)
    shown = example(20)
    taught = learn_from_ratios([shown], parent, tmp_path / "taught", short, settings=SETTINGS)
    before, after = read_card(parent).details, read_card(taught.path).details
    for key in ("class_values", "licence", "pixel_size_um"):
        assert after[key] == before[key], key
    assert after["class_values"] == [4, 7]
    shown = replace(shown, pixel_size=PixelSize(0.5, 0.5, "um"))
    taught = learn_from_ratios([shown], parent, tmp_path / "larger", short, settings=SETTINGS)
    assert read_card(taught.path).details["pixel_size_um"] == [0.5, 0.5]


def test_a_map_that_is_known_already_is_not_made_again(adapter: Path, tmp_path: Path) -> None:
    shown = example(26)
    logits = mapped(Segmenter(shown.image, "tiny", adapter=str(adapter)))
    asked, told = (
        load_file(
            learn_from_ratios(
                [replace(shown, logits=given)], adapter, tmp_path / str(number),
                RatioLearning(views=2), settings=SETTINGS,
            ).path
        )
        for number, given in enumerate((None, logits))
    )  # fmt: skip
    assert asked.keys() == told.keys()
    assert all(torch.equal(told[name], tensor) for name, tensor in asked.items())
    # It is what is learnt from, too.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ratio_learning, "segment_classes", None)
        learn_from_ratios(
            [replace(shown, logits=logits)], adapter, tmp_path / "2", RatioLearning(views=2),
            settings=SETTINGS,
        )  # fmt: skip


def test_what_makes_no_sense_is_refused(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidSettingError, match="at least one image"):
        learn_from_ratios([], adapter, tmp_path)
    monkeypatch.setattr(ratio_learning, "mapped", None)
    for changes, message in (
        ({"fractions": [0.9, 0.9]}, "unseen24: .*add up to at least 1.8"),
        ({"fractions": [0.2, 0.3, 0.5]}, r"unseen24: expected fractions of 2 classes \(.*, got 3"),
        ({"uncertainty": [0.1, -1.0]}, "unseen24: expected a standard error"),
    ):
        # Before the first image, which is as it should be, is mapped.
        with pytest.raises(InvalidSettingError, match=message):
            learn_from_ratios([example(23), example(24, **changes)], adapter, tmp_path / "a")
    for changes in ({"believed": 0}, {"believed": 1.5}, {"rate": 0}, {"views": 0}):
        with pytest.raises(InvalidSettingError):
            RatioLearning(**changes)


def test_it_can_be_stopped(adapter: Path, tmp_path: Path) -> None:
    class Stopper(Callback):
        def should_stop(self) -> bool:
            return True

    with pytest.raises(CancelledError):
        learn_from_ratios(
            [example(25)], adapter, tmp_path / "b", settings=SETTINGS, callbacks=[Stopper()]
        )

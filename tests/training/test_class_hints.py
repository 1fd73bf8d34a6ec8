from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.conftest import disc_data

from phasesam.core.errors import InvalidSettingError
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.sam import build_model
from phasesam.training.class_hints import amounts, class_boxes, draw_shares, stacked
from phasesam.training.class_objective import ClassObjective
from phasesam.training.feature_store import FeatureStore
from phasesam.training.fine_tuning import TrainingSettings, train
from phasesam.training.hint_config import HintTraining
from phasesam.training.objective import Surroundings
from phasesam.training.recipes import Recipe

ALWAYS = HintTraining(missing=0, unknown=0, error=0.15, exact=0, wrong=0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda x: sum(x) > 0.1),
       st.integers(0, 2**31))  # fmt: skip
def test_what_is_told_adds_up_whatever_is_true(parts, seed):
    true = np.array(parts) / sum(parts)
    shares, errors = draw_shares(true, ALWAYS, np.random.default_rng(seed))
    assert shares.sum() == pytest.approx(1)
    assert shares.min() >= 0
    assert (errors >= 0).all()
    assert (errors <= 0.15).all()


def test_how_often_what_is_told():
    config = HintTraining(missing=0.3, unknown=0.4, error=0.15, exact=0.2, wrong=0.1)
    true, rng = np.array([0.4, 0.35, 0.25]), np.random.default_rng(1)
    drawn = [draw_shares(true, config, rng) for _ in range(8000)]
    told = np.array([shares for shares, _ in drawn])
    errors = np.array([error for _, error in drawn])
    unknown = np.isnan(told).sum(1)
    # Of one unknown amount the others say how much it is.
    assert set(unknown.tolist()) == {0, 2, 3}
    # A rate u that is drawn evenly hides all three with the mean of u ** 3, which is a quarter.
    assert (unknown == 3).mean() == pytest.approx(0.3 + 0.7 * 0.4 / 4, abs=0.02)
    assert (unknown == 2).mean() == pytest.approx(0.7 * 0.4 / 4, abs=0.02)
    told_all = (unknown == 0) & (errors == 0).all(1)
    assert told_all.sum() / (unknown == 0).sum() == pytest.approx(0.2, abs=0.03)
    exact = np.abs(told - true).max(1) < 1e-9
    assert (told_all & ~exact).sum() / told_all.sum() == pytest.approx(0.1, abs=0.03)
    # An amount that was filled in is as unsure as both others together.
    assert 0.15 < errors.max() <= 0.15 * np.sqrt(2)
    each = (unknown == 0) & (errors.max(1) > 0)
    assert (np.ptp(errors[each], axis=1) == 0).mean() == pytest.approx(0.5, abs=0.1)


def test_of_images_without_labels_nothing_is_told():
    assert np.isnan(amounts(np.full((4, 4), -1), 3)).all()
    shares, errors = draw_shares(np.full(3, np.nan), ALWAYS, np.random.default_rng(0))
    assert np.isnan(shares).all()
    assert not errors.any()
    np.testing.assert_allclose(amounts(np.array([[0, 0, 2, -1]]), 3), [2 / 3, 0, 1 / 3])


def test_boxes_are_those_of_the_largest_regions():
    labels = np.zeros((20, 30), int)
    labels[2:5, 3:9] = 1
    labels[10:12, 20:22] = 1
    labels[15:, :] = -1
    found = class_boxes(labels, 3)
    assert found[0].tolist() == [0, 0, 29, 14]
    assert found[1].tolist() == [3, 2, 8, 4]
    assert np.isnan(found[2]).all()


@pytest.mark.parametrize("name", ["missing", "unknown", "error", "exact", "wrong", "whole"])
def test_shares_out_of_range_are_refused(name):
    with pytest.raises(InvalidSettingError, match=f"hints.{name} must be within 0–1, got 1.5"):
        HintTraining(**{name: 1.5})


def make_objective(recipe: Recipe) -> ClassObjective:
    where = Surroundings(torch.device("cpu"), nullcontext, FeatureStore(Path("unused")))
    return ClassObjective(build_model("tiny"), disc_data("semantic"), recipe, where)


def told(objective: ClassObjective):
    samples = objective.samples(0)
    return objective._hints(samples, [objective.plan.view(sample) for sample in samples])


def test_views_are_told_the_same_in_every_run(brief: Recipe) -> None:
    adapter = AdapterConfig(encoder=(), rank=2, ratio="located", class_boxes=True)
    recipe = replace(brief, adapter=adapter, views_per_epoch=12)
    first, second = (told(make_objective(recipe)) for _ in range(2))
    for name in ("shares", "errors", "boxes"):
        one, two = getattr(first, name), getattr(second, name)
        assert torch.equal(one.nan_to_num(-1), two.nan_to_num(-1))
    assert first.shares.shape == (12, 2)
    assert 0 < first.shares.isnan().all(1).sum() < 12
    assert first.boxes.shape == (12, 2, 4)
    assert 0 < first.boxes.isnan().all(-1).sum() < 24


def test_only_what_the_adapter_takes_is_told(brief: Recipe) -> None:
    adapter = AdapterConfig(encoder=(), rank=2, class_boxes=True)
    found = told(make_objective(replace(brief, adapter=adapter)))
    assert found.shares is None
    assert found.boxes is not None
    assert stacked([found, found]).boxes.shape == (4, 2, 4)


@pytest.mark.parametrize("kind", ["global", "spatial", "located"])
def test_a_training_with_ratios(tmp_path: Path, brief: Recipe, kind: str) -> None:
    adapter = replace(brief.adapter, ratio=kind, class_boxes=kind == "located")
    recipe = replace(brief, adapter=adapter, epochs=1)
    where = TrainingSettings(recipe, base="tiny", device="cpu", precision="fp32")
    result = train(disc_data("semantic"), tmp_path / "run", where)
    assert result.card.config.ratio == kind
    row = result.rows[-1]
    assert row["val_score"] == pytest.approx((row["score_plain"] + row["score_told"]) / 2)

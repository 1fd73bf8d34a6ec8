from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.conftest import disc_data
from torch.nn import functional

from phasesam.core.errors import CancelledError, TrainingError
from phasesam.core.levels import intensity_levels
from phasesam.models.adapters import attach
from phasesam.models.detail_head import detail_picture
from phasesam.models.sam import SamModel, build_model
from phasesam.training.class_maps import class_targets
from phasesam.training.dataset import from_arrays
from phasesam.training.detail_training import MOST_STEPS, SIDE, train_detail
from phasesam.training.feature_store import FeatureStore
from phasesam.training.objective import Surroundings
from phasesam.training.recipes import Recipe
from phasesam.training.view_plan import ViewPlan
from phasesam.training.views import ViewConfig


@pytest.fixture
def model(brief: Recipe) -> SamModel:
    return attach(build_model("tiny"), brief.adapter, 2)


def learn(model: SamModel, recipe: Recipe, report=lambda done, total: None) -> None:
    where = Surroundings(torch.device("cpu"), nullcontext, FeatureStore(Path("unused")))
    train_detail(model, plan(disc_data("semantic").of("train"), 256), recipe, where, report)


def plan(images, window) -> ViewPlan:
    return ViewPlan(images, ViewConfig(window=window), None, 0)


def test_large_phases_are_told_by_their_brightness(model: SamModel, brief: Recipe) -> None:
    """Most pieces show one phase: alone, both would look alike."""
    rng = np.random.default_rng(0)
    labels = np.zeros((256, 256), np.int32)
    labels[:, 128:] = 1
    image = (60 + 100 * labels + rng.normal(0, 5, labels.shape)).clip(0, 255).astype(np.uint8)
    data = from_arrays([("halves", image, labels, None)], "semantic", fractions=(1, 0, 0))
    where = Surroundings(torch.device("cpu"), nullcontext, FeatureStore(Path("unused")))
    recipe = replace(brief, detail_steps=8, epochs=2)
    shown = plan(data.of("train"), 200)
    train_detail(model, shown, recipe, where, lambda done, total: None)
    rgb = data.of("train")[0].rgb()
    with torch.no_grad():
        picture = detail_picture(rgb, intensity_levels(rgb), 256)
        found = model.class_decoder.detail.alone(picture)[0].argmax(0)
    assert (found[:, :56] == 0).float().mean() > 0.95
    assert (found[:, 72:] == 1).float().mean() > 0.95


def test_it_tells_discs_from_ground_without_the_decoder(model: SamModel, brief: Recipe) -> None:
    told: list[tuple[int, int]] = []
    learn(model, replace(brief, detail_steps=15, epochs=2), lambda *how: told.append(how))
    assert told == [(i, 30) for i in range(1, 31)]
    image = disc_data("semantic").of("val")[0]
    picture = detail_picture(image.rgb(), intensity_levels(image.rgb()), 128)
    rgb = functional.interpolate(picture, (512, 512), mode="bilinear")
    with torch.no_grad():
        found = model.class_decoder.detail.alone(rgb)[0].argmax(0)
    truth = class_targets(image.label_array(), 2, 128, 128)[0].argmax(0)
    near = functional.interpolate(found[None, None].float(), (128, 128))[0, 0]
    assert (near == truth).float().mean() > 0.93


def test_nothing_else_moves(model: SamModel, brief: Recipe) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    learn(model, brief)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert all(name.startswith("class_decoder.detail.") for name in moved)
    assert not any(name.startswith("class_decoder.detail.known") for name in moved)


def test_the_same_seed_learns_the_same(brief: Recipe) -> None:
    twins = [attach(build_model("tiny"), brief.adapter, 2) for _ in range(2)]
    for twin in twins:
        learn(twin, brief)
    first, second = (dict(twin.class_decoder.named_parameters()) for twin in twins)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_steps_or_head_nothing_happens(model: SamModel, brief: Recipe) -> None:
    told: list[int] = []
    learn(model, replace(brief, detail_steps=0), lambda done, total: told.append(done))
    plain = attach(build_model("tiny"), replace(brief.adapter, detail=False), 2)
    learn(plain, brief, lambda done, total: told.append(done))
    assert told == []


def test_long_trainings_have_no_longer_head_start(model: SamModel, brief: Recipe) -> None:
    def first(done: int, total: int) -> None:
        raise CancelledError(str(total))

    with pytest.raises(CancelledError, match=f"^{MOST_STEPS}$"):
        learn(model, replace(brief, detail_steps=40, epochs=1000), first)


def test_it_ends_when_asked(model: SamModel, brief: Recipe) -> None:
    def stop(done: int, total: int) -> None:
        raise CancelledError("enough")

    with pytest.raises(CancelledError, match="enough"):
        learn(model, brief, stop)


def test_a_loss_that_is_no_number_is_told(model: SamModel, brief: Recipe) -> None:
    with torch.no_grad():
        model.class_decoder.detail.correct.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="fine detail is not a number"):
        learn(model, brief)


def test_pieces_have_room_for_all_levels(model: SamModel) -> None:
    """At the coarsest level of a piece there is more than one place to tell apart."""
    seen: list[tuple[int, ...]] = []
    head = model.class_decoder.detail
    head.deeper[-1].register_forward_hook(lambda _m, _i, out: seen.append(out.shape[-2:]))
    assert head.alone(torch.zeros(1, 3, SIDE, SIDE)).shape == (1, 2, SIDE // 2, SIDE // 2)
    assert min(seen[0]) >= 8

"""Rates are tuned per variant on validation images; what was trained is not trained again."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from phasesam.core.errors import CancelledError, InvalidSettingError, TrainingError
from phasesam.evaluation import ablation
from phasesam.evaluation.ablation import (
    Trial,
    at_rate,
    best_trials,
    click_variant_table,
    click_variants,
    count_parameters,
    trial_table,
    tune_rates,
    variants_of,
)
from phasesam.evaluation.adapter_scores import Watch
from phasesam.evaluation.cells import ClickConfig
from phasesam.training.data_sources import ArrayLabels
from phasesam.training.dataset import from_arrays
from phasesam.training.fine_tuning import TrainingSettings
from phasesam.training.recipes import get_recipe


def trial(variant, factor, score):
    return Trial(variant, factor, 1e-3 * factor, score, 12.0, 50_000, Path("x"))


TRIALS = (
    trial("rank 4", 0.3, 0.5),
    trial("rank 4", 1.0, 0.7),
    trial("rank 64", 0.3, 0.9),
    trial("rank 64", 1.0, math.nan),
)


def blob(seed):
    labels = np.zeros((48, 64), np.int32)
    labels[8:30, 10 + seed : 40] = 1
    noise = np.random.default_rng(seed).normal(0, 5, labels.shape)
    return (60 + 100 * labels + noise).clip(0, 255).astype(np.uint8), labels


def data(splits=("train", "val")):
    images = [(f"i{n}", *blob(n), None) for n in range(len(splits))]
    made = from_arrays(images, "semantic", fractions=(1, 0, 0))
    named = zip(made.images, splits, strict=True)
    return replace(made, images=tuple(replace(i, split=s) for i, s in named))


def quick():
    recipe = get_recipe("default")
    return replace(recipe, epochs=1, views_per_epoch=2, pool=2, batch=2, detail_steps=1)


def test_variants_are_named_after_what_differs():
    first, second = get_recipe("default"), get_recipe("dental-iterative")
    assert list(variants_of([first], [4, 16])) == ["rank 4", "rank 16"]
    assert variants_of([first], [4])["rank 4"].adapter.rank == 4
    assert list(variants_of([first])) == ["default"]
    assert list(variants_of([first, second], [4])) == [
        "default, rank 4", "dental-iterative, rank 4"
    ]  # fmt: skip
    with pytest.raises(InvalidSettingError, match="twice"):
        variants_of([first], [4, 4])
    with pytest.raises(InvalidSettingError, match="at least one"):
        variants_of([])


def test_all_rates_of_a_recipe_are_multiplied():
    before, after = quick().optimiser, at_rate(quick(), 3).optimiser
    for name in ("lr_encoder", "lr_decoder", "lr_heads"):
        assert getattr(after, name) == pytest.approx(3 * getattr(before, name))


def test_the_best_validation_score_decides():
    best = best_trials(TRIALS)
    assert {name: t.factor for name, t in best.items()} == {"rank 4": 1.0, "rank 64": 0.3}
    with pytest.raises(InvalidSettingError, match="no training of rank 64"):
        best_trials(TRIALS[:2] + TRIALS[3:])


def test_the_table_marks_what_was_chosen():
    table = trial_table(TRIALS)
    assert table.columns[:3] == ("variant", "rates x 0.3", "rates x 1")
    assert table.rows[0][:4] == ("rank 4", "0.500", "0.700 *", "0.001")
    assert table.rows[1][:3] == ("rank 64", "0.900 *", "–")
    assert table.rows[1][4:] == ("0.05 M", "12")


def test_every_variant_is_trained_at_every_rate(tmp_path, monkeypatch, make_adapter):
    asked, stores = [], set()

    def train(data, folder, settings, resume, callbacks, features):
        assert resume
        stores.add(features)
        rank, rate = settings.recipe.adapter.rank, settings.recipe.optimiser.lr_encoder
        asked.append((folder.name, rank, rate))
        make_adapter(folder / "best.safetensors", metrics={"val_score": rank / 10})

    monkeypatch.setattr(ablation, "train", train)
    done = []
    watch = Watch(lambda *p: done.append(p))
    rate = quick().optimiser.lr_encoder
    trials = tune_rates(
        data(), tmp_path, variants_of([quick()], [2, 4]), TrainingSettings(), (1.0, 2.0), watch
    )
    assert asked == [
        ("rank_2_x1", 2, rate), ("rank_2_x2", 2, 2 * rate),
        ("rank_4_x1", 4, rate), ("rank_4_x2", 4, 2 * rate),
    ]  # fmt: skip
    assert len(stores) == 1, "what is alike is computed once"
    assert [t.score for t in trials] == [0.2, 0.2, 0.4, 0.4]
    assert [t.rate for t in trials] == [rate, 2 * rate] * 2
    assert done == [(i, 4) for i in range(5)]


def test_what_was_trained_is_not_trained_again(tmp_path):
    torch.set_num_threads(1)
    settings = TrainingSettings(base="tiny", device="cpu", precision="fp32")
    variants = variants_of([quick()], [2])
    (first,) = tune_rates(data(), tmp_path, variants, settings, (1.0,))
    assert 0 <= first.score <= 1
    assert first.parameters == count_parameters(first.path) > 1000
    stamp = first.path.stat().st_mtime_ns
    assert tune_rates(data(), tmp_path, variants, settings, (1.0,)) == (first,)
    assert first.path.stat().st_mtime_ns == stamp


def test_a_training_that_fails_is_a_trial_without_score(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise TrainingError("the loss is not a number")

    monkeypatch.setattr(ablation, "train", fail)
    trials = tune_rates(data(), tmp_path, variants_of([quick()]), TrainingSettings(), (1.0,))
    assert math.isnan(trials[0].score)


def test_stopping_and_what_makes_no_sense(tmp_path):
    variants, settings = variants_of([quick()]), TrainingSettings(base="tiny")
    with pytest.raises(CancelledError):
        tune_rates(data(), tmp_path, variants, settings, watch=Watch(should_stop=lambda: True))
    with pytest.raises(InvalidSettingError, match="validation images"):
        tune_rates(data(("train", "test")), tmp_path, variants, settings)
    empty = data()
    nothing = ArrayLabels("v", np.full(empty.of("val")[0].label_array().shape, -1))
    images = (replace(i, labels=nothing) if i.split == "val" else i for i in empty.images)
    with pytest.raises(InvalidSettingError, match=r"with labels; of \d none has any"):
        tune_rates(replace(empty, images=tuple(images)), tmp_path, variants, settings)
    with pytest.raises(InvalidSettingError, match="positive"):
        tune_rates(data(), tmp_path, variants, settings, (0.0,))


def test_clicks_of_all_variants():
    objects = from_arrays([("a", *blob(0), None), ("b", *blob(1), None)], "promptable")

    def exact(image):
        return lambda asked: [(image.label_array() == 1, None) for _ in asked]

    def empty(image):
        return lambda asked: [(image.label_array() * 0, None) for _ in asked]

    curves = click_variants(
        objects.images, {"base": empty, "rank 4": exact}, ClickConfig(clicks=3, max_clicks=4)
    )
    assert curves["rank 4"].noc(0.9).mean == 1
    assert curves["base"].noc(0.9).mean == 4
    table = click_variant_table(curves)
    assert table.columns == ("figure", "base", "rank 4")
    assert [row[0] for row in table.rows][:4] == [
        "IoU, 1 click", "Dice, 1 click", "IoU, 3 clicks", "Dice, 3 clicks"
    ]  # fmt: skip
    assert table.rows[0][2].startswith("1.000")

"""What views of objects, and views without any, teach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.conftest import disc_data, discs

from phasesam.core.errors import TrainingError
from phasesam.models.sam import build_model
from phasesam.training import prompt_objective
from phasesam.training.dataset import TrainingData, from_arrays
from phasesam.training.feature_store import FeatureStore
from phasesam.training.fine_tuning import TrainingSettings, fitted_to, train
from phasesam.training.objective import Surroundings
from phasesam.training.prompt_objective import PromptObjective
from phasesam.training.recipes import Recipe


def objective(data: TrainingData, recipe: Recipe, folder: Path) -> PromptObjective:
    torch.manual_seed(0)
    surroundings = Surroundings(
        torch.device("cpu"), lambda: torch.autocast("cpu", enabled=False), FeatureStore(folder)
    )
    return PromptObjective(build_model("tiny"), data, fitted_to(recipe, data, False), surroundings)


def with_an_empty_image(task: str, empty: int) -> TrainingData:
    image, labels = discs(0)
    images = [("discs", image, labels, None), ("none", image // 4, labels * 0 + empty, None)]
    data = from_arrays(images, task)
    return replace(data, images=tuple(replace(i, split="train") for i in data.images))


def losses_by_image(one: PromptObjective) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for sample in one.samples(0):
        seen: list[float] = []
        one.backward([sample], 1.0, lambda loss, seen=seen: seen.append(float(loss.detach())))
        found.setdefault(one.data.of("train")[sample.image].name, []).extend(seen)
    return found


@pytest.mark.parametrize(
    ("task", "empty", "count"),
    [("instance", 0, 1), ("promptable", 0, 0), ("instance", -1, 0)],
)
def test_an_image_without_objects_teaches_that_there_are_none(
    tmp_path: Path, brief: Recipe, task: str, empty: int, count: int
) -> None:
    recipe = replace(brief, views_per_epoch=6, pool=None)
    found = losses_by_image(objective(with_an_empty_image(task, empty), recipe, tmp_path))
    assert len(found["discs"]) > 0
    views = 6 // len(found)
    assert len(found["none"]) == count * views
    assert all(np.isfinite(loss) and loss > 0 for loss in found["none"])


def test_scores_on_an_image_without_objects_fall(tmp_path: Path, brief: Recipe) -> None:
    data = with_an_empty_image("instance", 0)
    data = replace(data, images=(replace(data.images[0], split="val"), data.images[1]))
    one = objective(data, replace(brief, pool=None), tmp_path)
    sample = one.samples(0)[0]

    def loss_now(learns: bool) -> float:
        seen: list[float] = []

        def note(loss: torch.Tensor) -> None:
            seen.append(float(loss.detach()))
            if learns:
                loss.backward()

        one.backward([sample], 1.0, note)
        return sum(seen)

    before = loss_now(True)
    weights = [w for w in one.weights().values() if w.grad is not None]
    assert weights
    torch.optim.SGD(weights, lr=0.05).step()
    assert loss_now(False) < before


def test_nothing_is_computed_in_half_precision_after_a_loss_that_is_no_number(
    tmp_path: Path, brief: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> Any:
        yield torch.tensor(float("nan"))

    monkeypatch.setattr(prompt_objective, "prompt_losses", broken)
    settings = TrainingSettings(brief, base="tiny", device="cpu", precision="bf16")
    with pytest.raises(TrainingError, match="not a number"):
        train(disc_data("instance"), tmp_path, settings)
    assert not torch.is_autocast_enabled("cpu")
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32

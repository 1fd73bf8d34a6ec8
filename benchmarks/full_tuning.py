"""Full fine-tuning of encoder and decoder on phases: what an adapter is to come close to.

Views, augmentation, losses and length are those of the default recipe, in fp32; only the weights
that are trained differ, and the learning rates that fit them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from phasesam.core.images import stretched
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.sam import EncoderOutput, build_model
from phasesam.training.acceleration import make_accelerator
from phasesam.training.class_objective import ClassObjective
from phasesam.training.dataset import TrainingData
from phasesam.training.feature_store import FeatureStore
from phasesam.training.fine_tuning import TrainingSettings, fitted_to
from phasesam.training.objective import Surroundings
from phasesam.training.recipes import Recipe, get_recipe
from phasesam.training.run_folder import RunFolder
from phasesam.training.trainer import Callback, Trainer, TrainerConfig

LR_ENCODER, LR_DECODER = 1e-4, 2e-4


class FullTuning(ClassObjective):
    """All weights are trained, and nothing is cached."""

    def weights(self) -> dict[str, Any]:
        """All weights but those of the prompt encoder, which class maps do not use."""
        for parameter in self.model.image_encoder.parameters():
            parameter.requires_grad_(True)
        own = {f"image_encoder.{n}": p for n, p in self.model.image_encoder.named_parameters()}
        return {**super().weights(), **own}

    def backward(self, samples: Any, share: float, backward: Any) -> float:
        """Differentiate encoder and decoder at once."""
        views = [self.plan.view(sample) for sample in samples]
        x = torch.cat([self.model.preprocess(view.rgb) for view in views])
        total = sum(self._losses(self.model.encode(x), samples, views))
        backward(total * share)
        return float(total.detach())

    def encode(self, name: str, rgb: Any) -> EncoderOutput:
        """Encode anew: nothing is frozen."""
        with torch.no_grad():
            return self.model.encode(self.model.preprocess(rgb))


class _Keeper(Callback):
    def __init__(self, objective: FullTuning) -> None:
        self.objective = objective
        self.best: dict[str, Any] = {}

    def on_best(self, row: Any) -> None:
        self.best = {n: p.detach().clone() for n, p in self.objective.weights().items()}


def train_fully(
    data: TrainingData, recipe: Recipe, device: str = "cpu"
) -> tuple[list[dict[str, float]], Callable[[Any], Any]]:
    """Train, and return the log and what maps an image (h, w, 3) to classes (h, w)."""
    torch.manual_seed(0)
    recipe = fitted_to(recipe, data, is_hq=False)
    settings = TrainingSettings(recipe, device=device, precision="fp32")
    accelerator = make_accelerator(settings, RunFolder("unused"))
    around = Surroundings(accelerator.device, accelerator.autocast, FeatureStore(Path("unused")))
    objective = FullTuning(build_model("mobile_sam"), data, recipe, around)
    keeper = _Keeper(objective)
    config = TrainerConfig(
        recipe.optimiser, batch=recipe.batch, epochs=recipe.epochs, patience=recipe.patience
    )
    rows = Trainer(objective, config, accelerator, [keeper]).run().rows
    with torch.no_grad():
        for name, weight in objective.weights().items():
            weight.copy_(keeper.best[name])
    objective.learning(False)

    @torch.no_grad()
    def predict(rgb: Any) -> Any:
        picture = stretched(rgb) if recipe.stretch else rgb
        return np.asarray(objective._map("test", picture))

    return rows, predict


def full_recipe() -> Recipe:
    """The default recipe for all weights."""
    recipe = get_recipe("default")
    optimiser = replace(
        recipe.optimiser, lr_encoder=LR_ENCODER, lr_decoder=LR_DECODER, lr_heads=1e-3
    )
    adapter = AdapterConfig(encoder=(), decoder="full")
    return replace(recipe, adapter=adapter, optimiser=optimiser)

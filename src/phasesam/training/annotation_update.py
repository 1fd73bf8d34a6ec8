"""One update of what is learnt while annotating: a few steps, on new and earlier objects."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from phasesam.core.errors import CancelledError
from phasesam.core.types import StopCallback
from phasesam.engines.embedding_cache import get_embedding_cache
from phasesam.models.adapters import adapter_tensors, attach
from phasesam.models.sam import EncoderOutput, SamModel
from phasesam.training.annotation_examples import targets_of
from phasesam.training.annotation_history import Example, LearningConfig, LearntState, Trial
from phasesam.training.clicks import click_in
from phasesam.training.losses import mask_iou
from phasesam.training.prompt_rounds import (
    AMBIGUOUS_MASKS,
    PromptState,
    Targets,
    decode,
    prompt_losses,
)

if TYPE_CHECKING:
    from phasesam.models.manager import ModelManager


@dataclass(frozen=True, eq=False)
class _Scene:
    """Objects of one image."""

    encoded: EncoderOutput
    targets: Targets
    examples: tuple[Example, ...]


@dataclass(frozen=True, eq=False)
class Descent:
    """Where an update has come to.

    Attributes
    ----------
    weights, moments : mapping
        As in `LearntState`, at the lowest loss.
    losses : tuple of float
        Before each step, and after the last.
    """

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Any]
    losses: tuple[float, ...]


class Student:
    """A model with what was learnt so far, while it learns more.

    Parameters
    ----------
    base : SamModel
        Leased as long as this is used; stays as it is.
    state : LearntState or None
        What was learnt so far.
    config : LearningConfig
        How much is learnt.
    manager : ModelManager
        Guards the device.
    should_stop : callable, optional
        Asked before each piece of work; then `CancelledError` is raised.
    """

    def __init__(
        self,
        base: SamModel,
        state: LearntState | None,
        config: LearningConfig,
        manager: ModelManager,
        should_stop: StopCallback | None = None,
    ) -> None:
        self.model = attach(base, config.adapter, seed=config.seed)
        self._base = base
        self._state = state
        self._config = config
        self._manager = manager
        self._should_stop = should_stop
        self._count = 0 if state is None else state.count
        self._weights = adapter_tensors(self.model, config.adapter)
        if state is not None:
            self._take(state.weights)

    def usable(self, examples: Sequence[Example]) -> list[Example]:
        """List what can be learnt from: neither specks, nor without their embedding."""
        return [e for scene in _scenes(examples, torch.device("cpu")) for e in scene.examples]

    def try_on(self, examples: Sequence[Example]) -> tuple[Trial, ...]:
        """Click once on objects that nothing was learnt from yet; nothing if there is nothing."""
        trials: list[Trial] = []
        for scene in self._scenes(examples) if self._state is not None else ():
            before, after = (
                self._manager.retry(partial(_first_click, model, scene), doing="learning")
                for model in (self._base, self.model)
            )
            trials += [Trial(b, a) for b, a in zip(before, after, strict=True)]
            self._check()
        return tuple(trials)

    def learn(self, new: Sequence[Example], earlier: Sequence[Example]) -> Descent:
        """Go down on new objects and some earlier ones; the model is then where it was lowest.

        All steps have the same prompts, so that losses can be compared.
        """
        config = self._config
        rng = np.random.default_rng([config.seed, self._count])
        chosen = [new[i] for i in rng.permutation(len(new))[: config.together]]
        chosen += [earlier[i] for i in rng.permutation(len(earlier))[: config.replayed]]
        scenes = self._scenes(chosen)
        optimiser = torch.optim.AdamW(
            self._weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        if self._state is not None:
            optimiser.load_state_dict(copy.deepcopy(dict(self._state.moments)))
        losses: list[float] = []
        best = 0
        while True:
            losses.append(self._differentiate(scenes))
            if len(losses) == 1 or losses[-1] < losses[best]:
                best = len(losses) - 1
                weights, moments = _copied(self._weights), _moments(optimiser)
            if len(losses) > config.steps or len(losses) - 1 - best >= config.patience:
                self._take(weights)
                return Descent(weights, moments, tuple(losses))
            optimiser.step()

    def _differentiate(self, scenes: Sequence[_Scene]) -> float:
        """Sum up loss and gradients; between images others may use the device."""
        count = sum(len(scene.examples) for scene in scenes)
        weights = list(self._weights.values())
        total = 0.0
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        for index, scene in enumerate(scenes):
            self._check()
            run = partial(self._gradients, scene, index)
            loss, gradients = self._manager.retry(run, doing="learning from an object")
            share = len(scene.examples) / count
            total += share * loss
            for weight, gradient in zip(weights, gradients, strict=True):
                if weight.grad is not None:
                    weight.grad += share * gradient
        return total

    def _gradients(self, scene: _Scene, index: int) -> tuple[float, list[Tensor]]:
        """Judge the answers on the objects of one image; may be tried again."""
        config = self._config
        rng = np.random.default_rng([config.seed, self._count, index])
        weights = list(self._weights.values())
        loss, gradients = 0.0, [torch.zeros_like(weight) for weight in weights]
        settings = (config.prompts, config.loss)
        for part in prompt_losses(self.model, scene.encoded, scene.targets, settings, rng):
            found = torch.autograd.grad(part, weights, allow_unused=True)
            for gradient, more in zip(gradients, found, strict=True):
                if more is not None:
                    gradient += more
            loss += float(part.detach())
        return loss, gradients

    def _scenes(self, examples: Sequence[Example]) -> list[_Scene]:
        return _scenes(examples, self._base.pixel_mean.device)

    @torch.no_grad()
    def _take(self, values: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(values[name])

    def _check(self) -> None:
        if self._should_stop is not None and self._should_stop():
            raise CancelledError("stopped before it was learnt")


def _scenes(examples: Sequence[Example], device: torch.device) -> list[_Scene]:
    """Group objects by image, as far as embeddings are at hand and they can be learnt from."""
    groups: dict[Any, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.key, []).append(example)
    scenes = []
    for key, group in groups.items():
        embedding = get_embedding_cache().get(key)
        targets, usable = targets_of(group) if embedding is not None else (None, [])
        if embedding is not None and targets is not None:
            here = embedding.to(device)
            encoded = EncoderOutput(here.features, here.intermediate)
            scenes.append(_Scene(encoded, targets, tuple(usable)))
    return scenes


@torch.no_grad()
def _first_click(model: SamModel, scene: _Scene) -> list[float]:
    """IoU of the best-scored answer to a click in the middle of each object."""
    targets, device = scene.targets, scene.encoded.features.device
    state, rng = PromptState(device), np.random.default_rng(0)
    places = [click_in(truth, rng, centre=True) for truth in targets.truth]
    state.add(places, [1] * len(places))
    masks, scores = decode(model, scene.encoded, state, AMBIGUOUS_MASKS)
    best = scores.argmax(1)
    answer = masks[torch.arange(len(masks), device=device), best][:, None]
    found = mask_iou(answer, targets.fine.to(device), targets.known.to(device))
    return [float(iou) for iou in found[:, 0]]


def _copied(weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}


def _moments(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    state = copy.deepcopy(optimiser.state_dict())
    for moments in state["state"].values():
        for name, value in moments.items():
            moments[name] = value.cpu() if isinstance(value, Tensor) else value
    return state

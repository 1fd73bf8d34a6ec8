"""What a training of a SAM does with a view, whatever is learnt: encode, judge, differentiate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from phasesam.models.adapters import adapter_tensors, attach
from phasesam.models.conv_lora import ScaleMixture, balance_loss
from phasesam.models.sam import EncoderOutput
from phasesam.models.split_encoder import FrozenFeatures, SplitEncoder
from phasesam.training.data_checks import judgeable
from phasesam.training.view_plan import Sample, ViewPlan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from phasesam.models.sam import SamModel
    from phasesam.training.dataset import LabelledImage, TrainingData
    from phasesam.training.feature_store import FeatureStore
    from phasesam.training.recipes import Recipe
    from phasesam.training.run_folder import Preview
    from phasesam.training.views import View

_JUDGED_INSTEAD = 3

Backward = Callable[[Tensor], None]
"""Adds the gradients of a loss to those of the weights."""


@dataclass(frozen=True)
class Surroundings:
    """Where and how a training computes.

    Attributes
    ----------
    device : torch.device
        Of the model.
    autocast : callable
        Makes a context in which torch computes in the precision chosen.
    store : FeatureStore
        Keeps frozen features.
    seed : int
        Of all chance.
    """

    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    store: FeatureStore
    seed: int = 0


class SamObjective(ABC):
    """A SAM with a new adapter, and data to train it on.

    Parameters
    ----------
    base : SamModel
        Stays as it is.
    data : TrainingData
        Images, labels, splits.
    recipe : Recipe
        Settings.
    surroundings : Surroundings
        Device, precision, memory.
    """

    def __init__(
        self, base: SamModel, data: TrainingData, recipe: Recipe, surroundings: Surroundings
    ) -> None:
        self.recipe = recipe
        self.data = data
        self.surroundings = surroundings
        self.model = attach(base, recipe.adapter, len(data.classes), surroundings.seed)
        self.model.to(surroundings.device)
        self.encoder = SplitEncoder(self.model, recipe.adapter)
        self.plan = ViewPlan(
            data.of("train"),
            recipe.views,
            recipe.pool,
            surroundings.seed,
            stretch=recipe.stretch,
        )

    @cached_property
    def judged(self) -> Sequence[LabelledImage]:
        """Validation images with labels; where there are none, some training images, as they are.

        One epoch alone is the best one without them.
        """
        instead = self.data.of("train")[:_JUDGED_INSTEAD] if self.recipe.epochs > 1 else ()
        return judgeable(self.data) or instead

    # What a trainer asks for

    def weights(self) -> dict[str, nn.Parameter]:
        """All that is trained, by name."""
        return adapter_tensors(self.model, self.recipe.adapter)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights of encoder, decoder and class tokens with their learning rates."""
        rates = self.recipe.optimiser
        groups: dict[str, list[nn.Parameter]] = {"encoder": [], "decoder": [], "heads": []}
        for name, weight in self.weights().items():
            part = (
                "encoder" if name.startswith("image_encoder")
                else "heads" if name.startswith("class_decoder") else "decoder"
            )  # fmt: skip
            groups[part].append(weight)
        return [
            {"params": weights, "lr": getattr(rates, f"lr_{part}"), "name": part}
            for part, weights in groups.items()
            if weights
        ]

    @abstractmethod
    def prepare(self, report: Callable[[int, int], None]) -> bool:
        """Do what comes before the first epoch, and tell how far it is: steps done and all.

        Returns whether there was anything to do.
        """

    def samples(self, epoch: int) -> list[Sample]:
        """List the samples of an epoch."""
        return self.plan.samples(epoch, self.recipe.views_per_epoch)

    def learning(self, on: bool) -> None:
        """Switch chance in the adapter (dropout, noisy gates) on or off; the base has none."""
        for module in self.model.modules():
            if isinstance(module, nn.Dropout | ScaleMixture):
                module.train(on)

    def backward(self, samples: Sequence[Sample], share: float, backward: Backward) -> float:
        """Judge some samples and add up gradients.

        Parameters
        ----------
        samples : sequence of Sample
            Views that go through the encoder together.
        share : float
            Weight of each sample in the step.
        backward : callable
            Differentiates a loss.

        Returns
        -------
        float
            Sum of the losses of the samples.
        """
        views = [self.plan.view(sample) for sample in samples]
        features = [self._features(s, v) for s, v in zip(samples, views, strict=True)]
        total = 0.0
        with self.surroundings.autocast():
            encoded = self.encoder.trained(_stacked(features))
            balance = balance_loss(self.model) if self.encoder.cut is not None else None
        # The decoder runs many times on the same features; each time its gradient is added up
        # here, and the encoder is differentiated once.
        leaves = _leaves(encoded)
        losses = self._losses(_output(leaves), samples, views)
        while True:
            with self.surroundings.autocast():
                loss = next(losses, None)
            if loss is None:
                break
            if not torch.isfinite(loss):
                return float("nan")
            total += float(loss.detach())
            backward(loss * share)
        pairs = [
            (tensor, leaf.grad)
            for tensor, leaf in zip(_tensors(encoded), leaves, strict=True)
            if leaf.grad is not None
        ]
        if balance is not None and self.recipe.loss.balance > 0:
            weight = self.recipe.loss.balance * share * len(samples)
            pairs.append((balance, torch.full_like(balance, weight)))
        if pairs:
            torch.autograd.backward([t for t, _ in pairs], [g for _, g in pairs])
        return total

    @abstractmethod
    def _losses(
        self, encoded: EncoderOutput, samples: Sequence[Sample], views: Sequence[View]
    ) -> Iterator[Tensor]:
        """Losses whose sum over all that are yielded is that of the samples."""

    @abstractmethod
    def validate(self) -> tuple[dict[str, float], Preview | None]:
        """Measure on the validation images: figures with "val_score" among them."""

    # For the tasks

    def encode(self, name: str, rgb: NDArray[np.uint8]) -> EncoderOutput:
        """Encode a validation picture, keeping what is frozen under `name`."""
        features = self._kept(name, rgb)
        with torch.no_grad(), self.surroundings.autocast():
            output = self.encoder.trained(features)
        return EncoderOutput(output.features.float(), tuple(t.float() for t in output.intermediate))

    def _features(self, sample: Sample, view: View) -> FrozenFeatures:
        if self.recipe.pool is None:
            return self._frozen(view.rgb)
        return self._kept(f"view-{sample.view}", view.rgb)

    def _kept(self, name: str, rgb: NDArray[np.uint8]) -> FrozenFeatures:
        kept = self.surroundings.store.get(name, lambda: self._frozen(rgb))
        return kept.to(self.surroundings.device, torch.float32)

    def _frozen(self, rgb: NDArray[np.uint8]) -> FrozenFeatures:
        with torch.no_grad(), self.surroundings.autocast():
            return self.encoder.frozen(self.model.preprocess(rgb))


def _stacked(features: list[FrozenFeatures]) -> FrozenFeatures:
    if len(features) == 1:
        return features[0]
    together = zip(*(one.intermediate for one in features), strict=True)
    return FrozenFeatures(
        torch.cat([one.activation for one in features]),
        tuple(torch.cat(tensors) for tensors in together),
    )


def _tensors(encoded: EncoderOutput) -> tuple[Tensor, ...]:
    return (encoded.features, *encoded.intermediate)


def _leaves(encoded: EncoderOutput) -> list[Tensor]:
    return [t.detach().requires_grad_(t.requires_grad) for t in _tensors(encoded)]


def _output(leaves: list[Tensor]) -> EncoderOutput:
    return EncoderOutput(leaves[0], tuple(leaves[1:]))

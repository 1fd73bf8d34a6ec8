"""A phase ratio as an input of the network: it changes the image embedding, and adds prompts.

Three kinds. "global" adds one learnt map for each share to the embedding, as first published: the
map does not depend on the image, so it can move thresholds and know no place. "spatial" multiplies
features of the image, seen together with their coordinates, by an embedding of the shares, as in
"Spatial-v1". "located" is ours: an embedding of each phase scales and shifts the features where the
image resembles that phase (FiLM, Perez et al., arXiv 1709.07871), and is a prompt of its own in the
decoder. It starts as SAM without a ratio, is told how uncertain each share is, and knows phases
whose share is unknown.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from phasesam.core.errors import InvalidSettingError

KINDS = ("global", "spatial", "located")
_OF_IMAGE, _OF_RATIO = 0.7, 0.3
_SMALL = 1e-3
_WIDTH = 256
_FACTS = 4
_STEEPNESS = 4.0


class RatioEncoder(nn.Module, ABC):
    """What all kinds have in common.

    Parameters
    ----------
    n_classes : int
        Phases.
    channels : int
        Of the image embedding.
    side : int
        Height and width of the image embedding.
    """

    def __init__(self, n_classes: int, channels: int, side: int) -> None:
        super().__init__()
        self.n_classes, self.channels, self.side = n_classes, channels, side

    def forward(
        self, features: Tensor, shares: Tensor | None, errors: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Condition an image embedding.

        Parameters
        ----------
        features : (b, c, side, side) tensor
            Image embeddings.
        shares : (b, n_classes) tensor or None
            Phase fractions, 0–1; NaN where unknown. None if nothing is known.
        errors : (b, n_classes) tensor, optional
            Standard errors of the shares; exact when left out.

        Returns
        -------
        features : (b, c, side, side) tensor
            For the decoder.
        prompts : (b, n, c) tensor or None
            Further tokens for it.
        """
        if shares is None:
            shares = torch.full((len(features), self.n_classes), torch.nan)
        if shares.shape != (len(features), self.n_classes):
            raise InvalidSettingError(
                f"expected shares of {len(features)} images and {self.n_classes} phases, "
                f"got {tuple(shares.shape)}"
            )
        shares = shares.to(features.device, torch.float32)
        errors = torch.zeros_like(shares) if errors is None else errors.to(shares)
        return self._condition(features, shares, errors)

    @abstractmethod
    def _condition(
        self, features: Tensor, shares: Tensor, errors: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Do it, with shares and errors where the features are."""


class GlobalRatio(RatioEncoder):
    """One map for each share, the same for all images; shares that are unknown count as 0."""

    def __init__(self, n_classes: int, channels: int, side: int) -> None:
        super().__init__(n_classes, channels, side)
        self.maps = nn.Linear(n_classes, channels * side**2)

    def _condition(
        self, features: Tensor, shares: Tensor, errors: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        added = self.maps(shares.nan_to_num(0.0)).view(-1, self.channels, self.side, self.side)
        return _OF_IMAGE * features + _OF_RATIO * added, None


class SpatialRatio(RatioEncoder):
    """Features of the image and their coordinates, times an embedding of the shares."""

    def __init__(self, n_classes: int, channels: int, side: int) -> None:
        super().__init__(n_classes, channels, side)
        total = n_classes * channels
        self.embed = nn.Sequential(
            nn.Linear(n_classes, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, total)
        )
        self.extract = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, total, 1)
        )
        self.place = nn.Conv2d(total + 3 * n_classes, total, 1, groups=n_classes)
        self.gather = nn.Sequential(
            nn.Conv2d(total + channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )

    def _condition(
        self, features: Tensor, shares: Tensor, errors: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        batch = len(features)
        by_class = self.extract(features).unflatten(1, (self.n_classes, self.channels))
        where = coordinates(self.side).to(by_class).expand(batch, self.n_classes, -1, -1, -1)
        placed = self.place(torch.cat([by_class, where], 2).flatten(1, 2))
        weighted = placed * self.embed(shares.nan_to_num(0.0))[..., None, None].to(placed.dtype)
        added = self.gather(torch.cat([weighted, features.to(weighted.dtype)], 1))
        return _OF_IMAGE * features + _OF_RATIO * added, None


class LocatedRatio(RatioEncoder):
    """Each phase changes the features where the image looks like it, and prompts the decoder.

    Parameters
    ----------
    n_classes, channels, side
        See `RatioEncoder`.
    neutral : (channels,) tensor, optional
        Prompt that says nothing: that of SAM for a point that is none.
    """

    def __init__(
        self, n_classes: int, channels: int, side: int, neutral: Tensor | None = None
    ) -> None:
        super().__init__(n_classes, channels, side)
        self.unknown = nn.Parameter(torch.zeros(n_classes, _FACTS))
        self.embed = nn.Sequential(
            nn.Linear(n_classes * _FACTS, _WIDTH),
            nn.ReLU(),
            nn.Linear(_WIDTH, n_classes * channels),
        )
        self.norm = nn.GroupNorm(1, channels)
        self.prototypes = nn.Conv2d(channels, n_classes, 1)
        self.film = nn.Linear(channels, 2 * channels)
        self.mix = nn.Conv2d(2 * channels + 3, channels, 1)
        self.prompt = nn.Linear(channels, channels)
        # Closed in the beginning: SAM as it is, and prompts that it knows to mean nothing. Each
        # weight opens by itself: one number for all of them would have to find a direction of
        # what is still random, and stays where it is.
        for weight in [*self.mix.parameters(), *self.prompt.parameters()]:
            nn.init.zeros_(weight)
        start = torch.zeros(channels) if neutral is None else neutral.detach().clone()
        self.neutral = nn.Parameter(start.expand(n_classes, -1).clone())

    def _condition(
        self, features: Tensor, shares: Tensor, errors: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        embedded = self.embed(self._facts(shares, errors).flatten(1))
        embedded = embedded.unflatten(1, (self.n_classes, self.channels))
        scale, shift = self.film(embedded).chunk(2, -1)
        plain = self.norm(features)
        # How much each place looks like each phase: scores of unit spread, whatever the width.
        alike = (self.prototypes(plain) / math.sqrt(self.channels) * 4).softmax(1)
        scale, shift = (
            torch.einsum("bkc,bkhw->bchw", part.to(alike.dtype), alike) for part in (scale, shift)
        )
        changed = scale * plain + shift
        where = coordinates(self.side).to(plain).expand(len(plain), -1, -1, -1)
        added = self.mix(torch.cat([plain, changed.to(plain.dtype), where], 1))
        prompts = self.neutral + self.prompt(embedded)
        return features + added, prompts

    def _facts(self, shares: Tensor, errors: Tensor) -> Tensor:
        """Write what is known of each share: itself, its logarithm, its error, that it is known.

        The first two about that of equal shares, and all of a spread of about one: what differs
        little from one image to the next is hardly heard.
        """
        known = shares.isfinite()
        filled = shares.nan_to_num(0.0)
        itself = _STEEPNESS * (filled - 1 / self.n_classes)
        logs = ((filled + _SMALL) * self.n_classes).log()
        facts = torch.stack([itself, logs, 10 * errors, torch.ones_like(filled)], -1)
        return torch.where(known[..., None], facts, self.unknown.expand_as(facts))


def build_ratio_encoder(kind: str, n_classes: int, prompts: Any) -> RatioEncoder:
    """Make a new encoder of a kind.

    Parameters
    ----------
    kind : {"global", "spatial", "located"}
        See the head of this file.
    n_classes : int
        Phases.
    prompts : nn.Module
        SAM's prompt encoder: its sizes, and what it says where there is no point.
    """
    side, channels = prompts.image_embedding_size[0], prompts.embed_dim
    if kind == "global":
        return GlobalRatio(n_classes, channels, side)
    if kind == "spatial":
        return SpatialRatio(n_classes, channels, side)
    if kind == "located":
        return LocatedRatio(n_classes, channels, side, prompts.not_a_point_embed.weight[0])
    raise InvalidSettingError(f"expected a ratio encoder of {', '.join(KINDS)}, got {kind!r}")


def coordinates(side: int) -> Tensor:
    """x, y and distance from the centre of each place, (3, side, side), from -1 to 1.

    After Liu et al., "CoordConv" (arXiv 1807.03247).
    """
    axis = torch.linspace(-1, 1, side)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y, (x**2 + y**2).sqrt() * math.sqrt(2) - 1])

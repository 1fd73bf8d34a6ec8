"""What is compared of the layers of models, and how it is coloured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from phasesam.core.errors import InvalidSettingError
from phasesam.core.layer_colours import ColourSpace
from phasesam.formats.overlay import PALETTE

MOST_GROUPS = len(PALETTE)


@dataclass(frozen=True)
class FeatureConfig:
    """What is compared, and how it is coloured.

    Attributes
    ----------
    layers : tuple of str or None
        Names of layers, in any order; all of them for None.
    basis : {"principal", "classes"}
        Directions of largest variance, or those that tell labelled classes apart.
    continuous : bool
        Whether the directions of each layer are chosen to look like those of its neighbours, so
        that colours change as little as the features do; otherwise each layer has its own.
    foreground_first : bool
        Whether the first component of the last layer decides what is foreground (the smaller
        part, by Otsu's threshold), and only that is coloured.
    space : {"rgb", "lab"}
        See `phasesam.core.layer_colours.colours`.
    groups : int
        Instead of colours by direction, colour this many groups of alike tokens (k-means among
        all models and pictures), which keep their colours from layer to layer, and have those of
        labelled classes that they fit; 0 for none.
    points : int
        Tokens of each picture and model that bases and figures are made from; fewer of many
        pictures.

    Raises
    ------
    InvalidSettingError
        If a setting is none of these.
    """

    layers: tuple[str, ...] | None = None
    basis: Literal["principal", "classes"] = "principal"
    continuous: bool = True
    foreground_first: bool = False
    space: ColourSpace = "rgb"
    groups: int = 0
    points: int = 2048

    def __post_init__(self) -> None:
        if self.basis not in ("principal", "classes") or self.space not in ("rgb", "lab"):
            raise InvalidSettingError(
                "expected a basis of principal or classes and colours of rgb or lab, got "
                f"{self.basis!r} and {self.space!r}"
            )
        if self.groups and not 2 <= self.groups <= MOST_GROUPS:
            raise InvalidSettingError(
                f"expected 2 to {MOST_GROUPS} groups, or 0 for none, got {self.groups}"
            )
        if self.points < 16:
            raise InvalidSettingError(f"expected 16 points or more, got {self.points}")

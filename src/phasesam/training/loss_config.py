"""Which loss a training minimises."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from phasesam.core.errors import InvalidSettingError

LossKind = Literal["dice_ce", "dice_focal"]


@dataclass(frozen=True)
class LossConfig:
    """Which loss, and how its parts are weighed.

    Attributes
    ----------
    kind : {"dice_ce", "dice_focal"}
        Dice with cross-entropy, or with focal loss.
    dice, pixels : float
        Weights of the Dice part and of the part that is a mean over pixels.
    iou : float
        Weight of the squared error of the predicted IoU.
    balance : float
        Weight of the balance loss of Conv-LoRA's gates.
    coarse : float
        Weight of the loss of class maps as the decoder says them, before the head of fine detail
        corrects them: so the decoder goes on learning what the head knows already from this
        sample, and would not know of another.
    """

    kind: LossKind = "dice_ce"
    dice: float = 1.0
    pixels: float = 1.0
    iou: float = 1.0
    balance: float = 0.01
    coarse: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("dice_ce", "dice_focal"):
            raise InvalidSettingError(f"the loss is dice_ce or dice_focal, got {self.kind!r}")
        weights = (self.dice, self.pixels, self.iou, self.balance, self.coarse)
        if not all(0 <= w < math.inf for w in weights) or self.dice + self.pixels == 0:
            raise InvalidSettingError("weights of a loss are 0 or more, Dice or pixels above 0")

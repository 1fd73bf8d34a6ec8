"""How prompts are simulated in training."""

from __future__ import annotations

from dataclasses import dataclass

from phasesam.core.errors import InvalidSettingError

MOST_ROUNDS = 11


@dataclass(frozen=True)
class PromptTraining:
    """How prompts are simulated in training.

    Attributes
    ----------
    objects : int
        Objects prompted in one view.
    rounds : int
        Prompts in a row for each object, the first included; 1 to 11.
    judged : int
        How many of the rounds are learnt from: the first, and others drawn anew each time.
        The rest only leads to their masks and clicks, which is far cheaper.
    box_share : float
        Share of views that start with boxes instead of points, 0–1.
    centre_share : float
        Share of clicks at the middle of the largest error, where people and the standard
        evaluation click; the others anywhere in the error.
    background : int
        Clicks in a view where there is no object, for objectness; 0 for none.
    """

    objects: int = 6
    rounds: int = 5
    judged: int = 3
    box_share: float = 0.3
    centre_share: float = 0.5
    background: int = 0

    def __post_init__(self) -> None:
        if self.objects < 1 or self.background < 0:
            raise InvalidSettingError("training needs at least one object in a view")
        if not 1 <= self.rounds <= MOST_ROUNDS:
            raise InvalidSettingError(f"rounds must be 1 to {MOST_ROUNDS}, got {self.rounds}")
        if self.judged < 1:
            raise InvalidSettingError(f"at least one round is judged, got {self.judged}")
        if not (0 <= self.box_share <= 1 and 0 <= self.centre_share <= 1):
            raise InvalidSettingError("shares must be within 0–1")

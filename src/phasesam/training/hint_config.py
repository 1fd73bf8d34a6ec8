"""How often a network is told what about phases in training."""

from __future__ import annotations

from dataclasses import dataclass

from phasesam.core.errors import InvalidSettingError


@dataclass(frozen=True)
class HintTraining:
    """How often what is told.

    Attributes
    ----------
    missing : float
        Share of views that are told nothing.
    unknown : float
        Share of the told views in which some amounts are left out: any share of them.
    error : float
        Largest standard error of amounts; each view, or each amount, has one below this.
    exact : float
        Share of views whose amounts are exact, and are told to be.
    wrong : float
        Share of views that are told amounts of any kind instead.
    whole : float
        Share of views that are told the amounts of the whole image instead of their own.

    Raises
    ------
    InvalidSettingError
        If a number is not within 0–1.
    """

    missing: float = 0.3
    unknown: float = 0.5
    error: float = 0.15
    exact: float = 0.25
    wrong: float = 0.05
    whole: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise InvalidSettingError(f"hints.{name} must be within 0–1, got {value}")

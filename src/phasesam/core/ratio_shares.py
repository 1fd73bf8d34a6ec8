"""Wanted shares of phases as they are edited: they add up to 1 after every change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError
from phasesam.core.ratio_request import Wanted

_LEAST = 1e-9
_T = TypeVar("_T")


@dataclass(frozen=True)
class PhaseShares:
    """Wanted shares of K phases, each a new value after every change.

    Attributes
    ----------
    values : tuple of float
        Wanted shares; they add up to 1. Those of unknown phases divide what is left.
    locked : tuple of bool
        Whether a share stays when others are changed.
    unknown : tuple of bool
        Whether the model decides how much of the rest a phase gets.
    errors : tuple of float
        Standard errors of the shares; 0 asks for the share exactly.
    """

    values: tuple[float, ...]
    locked: tuple[bool, ...]
    unknown: tuple[bool, ...]
    errors: tuple[float, ...]

    @classmethod
    def of(cls, fractions: Sequence[float] | NDArray[np.float64]) -> PhaseShares:
        """Begin with measured fractions.

        Raises
        ------
        InvalidSettingError
            If they are no shares of at least two phases.
        """
        values = np.asarray(fractions, dtype=np.float64)
        total = float(values.sum()) if values.ndim == 1 else 0.0
        if len(values) < 2 or not (values >= 0).all() or not 0 < total < np.inf:
            raise InvalidSettingError(
                f"expected fractions of two phases or more, none negative, got {fractions!r}"
            )
        n = len(values)
        shares = tuple(float(v) for v in values / total)
        return cls(shares, (False,) * n, (False,) * n, (0.0,) * n)

    @property
    def request(self) -> tuple[list[Wanted], list[float]]:
        """Fractions and standard errors, as `phasesam.core.ratio.solve` takes them."""
        wanted: list[Wanted] = [
            None if unknown else value
            for value, unknown in zip(self.values, self.unknown, strict=True)
        ]
        return wanted, list(self.errors)

    def with_share(self, k: int, value: float) -> PhaseShares:
        """Ask for a share of one phase.

        The others keep their proportions: first those that are unknown give or take, then those
        that are not locked. What these cannot give is not asked for. A phase that is asked for
        is not unknown any more.
        """
        unknown = _changed(self.unknown, k, False)
        values = np.array(self.values)
        others = np.arange(len(values)) != k
        fixed = others & np.array(self.locked) & ~np.array(unknown)
        room = max(0.0, 1.0 - float(values[fixed].sum()))
        values[k] = room if not (others & ~fixed).any() else min(max(value, 0.0), room)
        free = others & np.array(unknown)
        known = others & ~fixed & ~free
        rest = room - float(values[k])
        if free.any():
            # Known shares shrink only where there is no room for them.
            taken = float(values[known].sum())
            if taken > rest:
                values[known] *= rest / taken
            rest -= float(values[known].sum())
            _divide(values, free, rest)
        else:
            _divide(values, known, rest)
        return replace(self, values=_adding_up(values), unknown=unknown)

    def with_lock(self, k: int, locked: bool) -> PhaseShares:
        """Keep a share whatever happens to others, or not."""
        return replace(self, locked=_changed(self.locked, k, locked))

    def with_unknown(self, k: int, unknown: bool) -> PhaseShares:
        """Leave a phase to the model, or ask for the share that it has."""
        return replace(self, unknown=_changed(self.unknown, k, unknown))

    def with_error(self, k: int, error: float) -> PhaseShares:
        """State the standard error of a share.

        Raises
        ------
        InvalidSettingError
            If it is negative or more than 1.
        """
        if not 0 <= error <= 1:
            raise InvalidSettingError(f"expected a standard error within 0–1, got {error}")
        return replace(self, errors=_changed(self.errors, k, float(error)))

    def with_achieved(self, fractions: Sequence[float] | NDArray[np.float64]) -> PhaseShares:
        """Show for unknown phases what the model made of the rest."""
        values = np.array(self.values)
        free = np.array(self.unknown)
        rest = float(values[free].sum())
        values[free] = np.asarray(fractions, dtype=np.float64)[free]
        _divide(values, free, rest)
        return replace(self, values=_adding_up(values))


def _divide(values: NDArray[np.float64], which: NDArray[np.bool_], amount: float) -> None:
    """Give these an amount in their proportions, or equally where they have nothing."""
    if not which.any():
        return
    total = float(values[which].sum())
    values[which] = values[which] * (amount / total) if total > _LEAST else amount / which.sum()


def _adding_up(values: NDArray[np.float64]) -> tuple[float, ...]:
    values = np.maximum(values, 0.0)
    return tuple(float(v) for v in values / values.sum())


def _changed(flags: tuple[_T, ...], k: int, value: _T) -> tuple[_T, ...]:
    if not 0 <= k < len(flags):
        raise InvalidSettingError(f"there are {len(flags)} phases, got number {k}")
    return (*flags[:k], value, *flags[k + 1 :])

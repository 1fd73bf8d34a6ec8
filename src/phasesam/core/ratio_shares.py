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
    given : tuple of bool
        Whether a share is what somebody asked for, instead of what others left.
    """

    values: tuple[float, ...]
    locked: tuple[bool, ...]
    unknown: tuple[bool, ...]
    errors: tuple[float, ...]
    given: tuple[bool, ...]

    @classmethod
    def of(
        cls, fractions: Sequence[float] | NDArray[np.float64], *, given: bool = False
    ) -> PhaseShares:
        """Begin with fractions: measured ones, or ones that are asked for and thus ``given``.

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
        return cls(shares, (False,) * n, (False,) * n, (0.0,) * n, (given,) * n)

    @property
    def asks(self) -> bool:
        """Whether anything is asked for: a lock alone asks for nothing."""
        return any(self.given) or any(self.unknown) or any(self.errors)

    @property
    def yielding(self) -> tuple[bool, ...]:
        """Which phases the model decides about.

        Those that are unknown; beside a share with a standard error also those that nobody gave
        or locked. Were these exact, what they leave for the uncertain share would be, too.
        """
        unsure = any(self._unsure)
        return tuple(
            unknown or (unsure and not (locked or error or given))
            for unknown, locked, error, given in zip(
                self.unknown, self.locked, self.errors, self.given, strict=True
            )
        )

    @property
    def is_tied(self) -> bool:
        """Whether exact shares leave one with a standard error no room to differ."""
        return sum(self._unsure) == 1 and not any(self.yielding)

    @property
    def _unsure(self) -> tuple[bool, ...]:
        return tuple(e > 0 and not u for e, u in zip(self.errors, self.unknown, strict=True))

    @property
    def request(self) -> tuple[list[Wanted], list[float]]:
        """Fractions and standard errors, as `phasesam.core.ratio.solve` takes them."""
        yielding = self.yielding
        wanted: list[Wanted] = [
            None if yields else value for value, yields in zip(self.values, yielding, strict=True)
        ]
        errors = [0.0 if y else error for error, y in zip(self.errors, yielding, strict=True)]
        return wanted, errors

    def room(self, k: int) -> float | None:
        """Most that a phase can be given beside locked shares; None if all others are locked."""
        fixed = [
            j != k and locked and not unknown
            for j, (locked, unknown) in enumerate(zip(self.locked, self.unknown, strict=True))
        ]
        if sum(fixed) == len(fixed) - 1:
            return None
        taken = sum(value for value, is_fixed in zip(self.values, fixed, strict=True) if is_fixed)
        return max(0.0, 1.0 - taken)

    def with_share(self, k: int, value: float) -> PhaseShares:
        """Ask for a share of one phase.

        The others keep their proportions: first those that the model decides about give or take,
        then those that are not locked. What these cannot give is not asked for. A phase that is
        asked for is not unknown any more, and others that had to move count as given no longer.
        """
        asked = replace(
            self, unknown=_changed(self.unknown, k, False), given=_changed(self.given, k, True)
        )
        most = self.room(k)
        if most is None and not self.unknown[k]:
            return self
        values = np.array(self.values)
        others = np.arange(len(values)) != k
        fixed = others & np.array(self.locked) & ~np.array(asked.unknown)
        room = max(0.0, 1.0 - float(values[fixed].sum()))
        values[k] = room if most is None else min(max(value, 0.0), room)
        free = others & np.array(asked.yielding)
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
        stays = np.abs(values - self.values) < _LEAST
        given = tuple(j == k or (g and bool(stays[j])) for j, g in enumerate(asked.given))
        return replace(asked, values=_adding_up(values), given=given)

    def with_lock(self, k: int, locked: bool) -> PhaseShares:
        """Keep a share whatever happens to others, or not."""
        return replace(self, locked=_changed(self.locked, k, locked))

    def with_unknown(self, k: int, unknown: bool) -> PhaseShares:
        """Leave a phase to the model, or ask for the share that it has."""
        return replace(
            self,
            unknown=_changed(self.unknown, k, unknown),
            given=_changed(self.given, k, not unknown),
        )

    def with_error(self, k: int, error: float) -> PhaseShares:
        """State the standard error of a share, which is thereby given.

        Raises
        ------
        InvalidSettingError
            If it is negative or more than 1.
        """
        if not 0 <= error <= 1:
            raise InvalidSettingError(f"expected a standard error within 0–1, got {error}")
        return replace(
            self,
            errors=_changed(self.errors, k, float(error)),
            given=_changed(self.given, k, True),
        )

    def with_achieved(self, fractions: Sequence[float] | NDArray[np.float64]) -> PhaseShares:
        """Show for phases that the model decides about what it made of the rest."""
        values = np.array(self.values)
        free = np.array(self.yielding)
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

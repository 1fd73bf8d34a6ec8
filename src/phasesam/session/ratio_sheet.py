"""Requests for amounts of phases on one image: what is asked for where, and undo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError
from phasesam.core.ratio_request import Wanted
from phasesam.core.ratio_shares import PhaseShares

WHOLE = 0
"""Number of what lies in no region; of the whole image where there are none."""

_DEPTH = 200


@dataclass(frozen=True)
class RatioQuery:
    """What to solve, as plain values.

    Attributes
    ----------
    fractions : dict of int to list of Wanted
        Shares by number of region.
    errors : dict of int to list of float
        Their standard errors.
    """

    fractions: dict[int, list[Wanted]]
    errors: dict[int, list[float]]


class RatioSheet:
    """What is asked of the phases of one map.

    Parameters
    ----------
    classes : tuple of str
        Names of the phases.
    """

    def __init__(self, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.own: dict[int, NDArray[np.float64]] = {}
        self._requests: dict[int, PhaseShares] = {}
        self._past: list[dict[int, PhaseShares]] = []
        self._future: list[dict[int, PhaseShares]] = []
        self._held = False

    def shares(self, region: int) -> PhaseShares:
        """Shares asked for in a region; as the model sees them where nothing was asked."""
        kept = self._requests.get(region)
        if kept is not None and kept.asks:
            return kept
        own = self.own.get(region)
        n = len(self.classes)
        seen = PhaseShares.of(np.full(n, 1 / n) if own is None or own.sum() <= 0 else own)
        return seen if kept is None else replace(seen, locked=kept.locked)

    @property
    def asked(self) -> tuple[int, ...]:
        """Numbers of the regions that something is asked of."""
        return tuple(number for number, shares in self._requests.items() if shares.asks)

    def ask(self, region: int, shares: PhaseShares, *, goes_on: bool = False) -> None:
        """Ask for shares; the same again is no step to undo.

        Parameters
        ----------
        region : int
            Where.
        shares : PhaseShares
            What.
        goes_on : bool
            Whether more changes of the same gesture follow, such as of a slider that is being
            dragged: all of them are undone together.

        Raises
        ------
        InvalidSettingError
            If they are shares of another number of phases.
        """
        if len(shares.values) != len(self.classes):
            raise InvalidSettingError(
                f"expected shares of {len(self.classes)} phases, got {len(shares.values)}"
            )
        if not self._held:
            if shares == self.shares(region):
                return
            self._remember()
        self._held = goes_on
        self._requests[region] = shares

    def forget(self, region: int) -> None:
        """Ask for nothing in a region any more, and lock nothing."""
        if region in self._requests:
            self._remember()
            del self._requests[region]

    def _remember(self) -> None:
        self._past = [*self._past[1 - _DEPTH :], dict(self._requests)]
        self._future.clear()

    @property
    def can_undo(self) -> bool:
        """Whether there is anything to undo."""
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        """Whether there is anything to do again."""
        return bool(self._future)

    def undo(self) -> bool:
        """Take the last change back; False if there is none."""
        return self._step(self._past, self._future)

    def redo(self) -> bool:
        """Do it again; False if there is nothing."""
        return self._step(self._future, self._past)

    def _step(
        self, source: list[dict[int, PhaseShares]], target: list[dict[int, PhaseShares]]
    ) -> bool:
        if not source:
            return False
        target.append(dict(self._requests))
        self._requests = source.pop()
        self._held = False
        return True

    def query(self, present: set[int] | None = None) -> RatioQuery | None:
        """Put together what to solve; None if nothing is asked.

        Parameters
        ----------
        present : set of int, optional
            Numbers of the regions that there are; others are left out.
        """
        known = {WHOLE} | (present or set())
        chosen = {n: s for n, s in self._requests.items() if n in known and s.asks}
        if not chosen:
            return None
        requests = {number: shares.request for number, shares in chosen.items()}
        return RatioQuery(
            {number: wanted for number, (wanted, _) in requests.items()},
            {number: errors for number, (_, errors) in requests.items()},
        )

    def show_achieved(self, query: RatioQuery, achieved: Mapping[int, NDArray[np.float64]]) -> None:
        """Fill in what the model made of the phases that it decides about; no step to undo.

        Parameters
        ----------
        query : RatioQuery
            What was solved: regions that other shares are asked of meanwhile are left alone.
        achieved : mapping of int to (K,) float64 array
            What came of it.
        """
        for number, wanted in query.fractions.items():
            shares = self._requests.get(number)
            if shares is None or number not in achieved:
                continue
            if shares.request == (wanted, query.errors[number]):
                self._requests[number] = shares.with_achieved(achieved[number])

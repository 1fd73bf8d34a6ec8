"""Requests for amounts of phases on one image: what is asked for where, undo, and a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class RatioExperiment:
    """One request and what came of it, for the log.

    Attributes
    ----------
    image, model : str
        What it was asked of.
    classes : tuple of str
        Names of the phases.
    region : int
        Where; `WHOLE` outside of regions.
    wanted : tuple of float or None
        Shares asked for; None for unknown phases.
    errors : tuple of float
        Their standard errors.
    own, achieved : tuple of float
        Shares as the model sees them, and as they became.
    changed, contradicted, cost : float
        Over the whole image, as `phasesam.core.ratio.RatioSolution` has them.
    """

    image: str
    model: str
    classes: tuple[str, ...]
    region: int
    wanted: tuple[float | None, ...]
    errors: tuple[float, ...]
    own: tuple[float, ...]
    achieved: tuple[float, ...]
    changed: float
    contradicted: float
    cost: float


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
        if region in self._requests:
            return self._requests[region]
        own = self.own.get(region)
        n = len(self.classes)
        return PhaseShares.of(np.full(n, 1 / n) if own is None or own.sum() <= 0 else own)

    @property
    def asked(self) -> tuple[int, ...]:
        """Numbers of the regions that something is asked of."""
        return tuple(self._requests)

    def ask(self, region: int, shares: PhaseShares, *, goes_on: bool = False) -> None:
        """Ask for shares.

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
            self._remember()
        self._held = goes_on
        self._requests[region] = shares

    def forget(self, region: int) -> None:
        """Ask for nothing in a region any more."""
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
        chosen = {n: s for n, s in self._requests.items() if n in known}
        if not chosen:
            return None
        requests = {number: shares.request for number, shares in chosen.items()}
        return RatioQuery(
            {number: wanted for number, (wanted, _) in requests.items()},
            {number: errors for number, (_, errors) in requests.items()},
        )

    def show_achieved(self, achieved: Mapping[int, NDArray[np.float64]]) -> None:
        """Fill in what the model made of unknown phases; no step to undo."""
        for number, fractions in achieved.items():
            if number in self._requests:
                self._requests[number] = self._requests[number].with_achieved(fractions)


def log_table(experiments: list[RatioExperiment]) -> dict[str, list[Any]]:
    """Columns of a table with one row for each phase of each request."""
    rows = [
        {
            "request": number, "image": entry.image, "model": entry.model,
            "region": entry.region, "phase": name,
            "wanted": float("nan") if wanted is None else wanted,
            "standard_error": error, "own": own, "achieved": achieved,
            "changed": entry.changed, "contradicted": entry.contradicted,
            "cost_nats": entry.cost,
        }
        for number, entry in enumerate(experiments, start=1)
        for name, wanted, error, own, achieved in zip(
            entry.classes, entry.wanted, entry.errors, entry.own, entry.achieved, strict=True
        )
    ]  # fmt: skip
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}

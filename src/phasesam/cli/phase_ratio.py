"""Wanted amounts of phases on the command line, for each plane or for a whole stack."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phasesam.cli.plane import Watch
from phasesam.core.errors import InvalidSettingError
from phasesam.core.ratio import IMPLAUSIBLE
from phasesam.core.ratio_request import RatioRequest, Wanted
from phasesam.engines.phase_hints import PhaseHints
from phasesam.engines.ratio_guidance import RatioConfig, RatioGuide
from phasesam.engines.ratio_stack import RatioStack
from phasesam.engines.semantic import PhaseMap

_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"
_RANGE = re.compile(rf"{_NUMBER}\s*-\s*{_NUMBER}\s*(%?)")
_SHARE = re.compile(rf"{_NUMBER}\s*(?:(?:±|\+-|\+/-)\s*{_NUMBER}\s*)?(%?)")
_HINT = 'expected CLASS=SHARE such as "pore=2%", "pore=0.02+-0.005" or "pore=1-3%"'
LEVELS = ("stack", "plane")
PARTS = ("solver", "network", "both")


@dataclass(frozen=True)
class RatioRecipe:
    """Wanted amounts.

    Attributes
    ----------
    fractions : tuple of Wanted
        One per class.
    errors : tuple of float
        Their standard errors.
    level : {"stack", "plane"}
        Whether a stack as a whole has these amounts, or each of its planes.
    config : RatioConfig
        How regular phases are to be.
    by : {"solver", "network", "both"}
        Who uses them.
    """

    fractions: tuple[Wanted, ...]
    errors: tuple[float, ...]
    level: str = "stack"
    config: RatioConfig = field(default_factory=RatioConfig)
    by: str = "solver"

    def through(self, by: str) -> Self:
        """Return the same amounts for the solver, the network, or both.

        Raises
        ------
        InvalidSettingError
            If it is none of these.
        """
        if by not in PARTS:
            raise InvalidSettingError(f"--ratio-by is {', '.join(PARTS)}, got {by!r}")
        return replace(self, by=by)

    @property
    def hints(self) -> PhaseHints | None:
        """What the network is told."""
        return None if self.by == "solver" else PhaseHints(self.fractions, self.errors)

    @property
    def solves(self) -> bool:
        """Whether the amounts are met."""
        return self.by != "network"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the JSON summary."""
        return {
            "fractions": list(self.fractions),
            "errors": list(self.errors),
            "over": self.level,
            "by": self.by,
            "smoothing": self.config.smoothing,
            "smallest_region": self.config.smallest,
            "fewest_changes": self.config.fewest,
        }


def parse_ratio(
    texts: Sequence[str], classes: tuple[str, ...], level: str, config: RatioConfig
) -> RatioRecipe:
    """Read wanted amounts; classes that are not named are unknown.

    Raises
    ------
    InvalidSettingError
        If a text is none, names no class or one twice, or amounts cannot add up to 1.
    """
    found: dict[str, tuple[Wanted, float]] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        name = name.strip()
        if not equals:
            raise InvalidSettingError(f"{_HINT}, got {text!r}")
        if name not in classes or name in found:
            what = "twice" if name in found else "which is no class of the adapter"
            raise InvalidSettingError(
                f"--ratio names {name!r}, {what}; its classes are {', '.join(classes)}"
            )
        found[name] = _amount(value.strip(), text)
    if level not in LEVELS:
        raise InvalidSettingError(f"--ratio-over is {' or '.join(LEVELS)}, got {level!r}")
    pairs = [found.get(name, (None, 0.0)) for name in classes]
    request = RatioRequest([wanted for wanted, _ in pairs], [error for _, error in pairs])
    return RatioRecipe(request.fractions, request.uncertainty, level, config)


def _amount(value: str, text: str) -> tuple[Wanted, float]:
    if match := _RANGE.fullmatch(value):
        scale = 0.01 if match[3] else 1.0
        return (float(match[1]) * scale, float(match[2]) * scale), 0.0
    if match := _SHARE.fullmatch(value):
        scale = 0.01 if match[3] else 1.0
        return float(match[1]) * scale, float(match[2] or 0) * scale
    raise InvalidSettingError(f"{_HINT}, got {text!r}")


class RatioWork:
    """Makes the planes of one file obey a ratio, each by itself or all together.

    The logits of a stack wait on the disk until all are there.

    Parameters
    ----------
    recipe : RatioRecipe or None
        What is wanted; None, or for the network alone, leaves all planes as they are.
    n_planes : int
        How many there are.

    Raises
    ------
    InvalidSettingError
        If regions of a least size are wanted of a stack as a whole, or a network is to be told
        the shares of a stack.
    """

    def __init__(self, recipe: RatioRecipe | None, n_planes: int) -> None:
        over_stack = recipe is not None and recipe.level == "stack" and n_planes > 1
        if recipe is not None and over_stack and recipe.by != "solver":
            raise InvalidSettingError(
                "--ratio-by network and both tell each plane its own shares: use them with "
                "--ratio-over plane"
            )
        recipe = recipe if recipe is not None and recipe.solves else None
        self._recipe = recipe
        self._together = recipe is not None and over_stack
        if recipe is not None and self._together and recipe.config.needs_planes:
            raise InvalidSettingError(
                "--smallest-region and --fewest-changes work plane by plane: use them with "
                "--ratio-over plane"
            )
        self._stack = RatioStack() if self._together else None
        self._indices: list[tuple[int, ...]] = []
        self._doubts: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._stack is not None:
            self._stack.__exit__(*error)

    def labels(
        self, index: tuple[int, ...], found: PhaseMap, image: NDArray[Any]
    ) -> NDArray[np.uint8]:
        """Labels of one plane, (h, w); those of a stack as the model sees them, for now."""
        if self._recipe is None:
            return found.labels
        guide = RatioGuide(found, image, self._recipe.config)
        if self._stack is not None:
            self._stack.add(guide)
            self._indices.append(index)
            return found.labels
        guided = guide.solve(self._recipe.fractions, self._recipe.errors)
        self._doubts.append(guided.solution.contradicted)
        return guided.labels

    def finish(self, labels: NDArray[np.uint8], watch: Watch) -> None:
        """Write the labels of the planes of a stack."""
        if self._recipe is None or self._stack is None or not self._indices:
            return

        def write(number: int, plane: NDArray[np.uint8]) -> None:
            labels[self._indices[number]][: len(plane)] = plane

        solution = self._stack.solve(
            self._recipe.fractions,
            self._recipe.errors,
            write=write,
            progress=lambda done, total: watch.step("solving the ratio", done, total),
            should_stop=watch.should_stop,
        )
        self._doubts.append(solution.contradicted)

    def warnings(self) -> Iterator[str]:
        """Say where the ratio and the images disagree."""
        worst = max(self._doubts, default=0.0)
        if worst >= IMPLAUSIBLE:
            where = "of a plane" if len(self._doubts) > 1 else "of the image"
            yield f"the ratio contradicts what the model sees in {worst:.0%} {where}"

"""Wanted amounts of phases on the command line, for each plane or for a whole stack."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from phasesam.cli.plane import Watch
from phasesam.cli.ratio_doubts import RatioDoubts
from phasesam.core.class_names import class_named
from phasesam.core.errors import InvalidSettingError
from phasesam.core.ratio_request import RatioRequest, Wanted
from phasesam.engines.phase_hints import PhaseHints, takes_doubt, takes_ratio
from phasesam.engines.ratio_guidance import RatioConfig, RatioGuide
from phasesam.engines.ratio_stack import RatioStack
from phasesam.engines.semantic import PhaseMap

if TYPE_CHECKING:
    from phasesam.models.adapter_card import AdapterCard

_NUMBER = r"((?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*(%?)"
# Between the numbers of a range also what text processors make of a hyphen.
_AMOUNT = re.compile(rf"{_NUMBER}(?:\s*(±|\+-|\+/-|[-–−])\s*{_NUMBER})?")
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
    notes : tuple of str
        What the user should know of them, whatever the image.
    classes : tuple of str
        Names of the classes.
    """

    fractions: tuple[Wanted, ...]
    errors: tuple[float, ...]
    level: str = "stack"
    config: RatioConfig = field(default_factory=RatioConfig)
    by: str = "solver"
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def through(self, by: str, card: AdapterCard) -> Self:
        """Return the same amounts for the solver, the network of an adapter, or both.

        Raises
        ------
        InvalidSettingError
            If it is none of these, or the network does not take such amounts.
        """
        if by not in PARTS:
            raise InvalidSettingError(f"--ratio-by is {', '.join(PARTS)}, got {by!r}")
        if by != "solver" and not takes_ratio(card):
            raise InvalidSettingError(f"--ratio-by {by}: this adapter takes no shares")
        chosen = replace(self, by=by)
        hints = chosen.hints
        if hints is None:
            return chosen
        hints.check(card)
        if any(hints.errors) and not takes_doubt(card):
            note = "the network of this adapter takes shares as exact: it hears no standard errors"
            return replace(chosen, notes=(note,))
        return chosen

    @property
    def hints(self) -> PhaseHints | None:
        """What the network is told."""
        return None if self.by == "solver" else PhaseHints(self.fractions, self.errors)

    @property
    def solves(self) -> bool:
        """Whether the amounts are met."""
        return self.by != "network"

    @property
    def imposed(self) -> tuple[bool, ...]:
        """Whether the fraction of each class is that of the request, whatever the image."""
        exact = [
            self.solves and isinstance(wanted, float) and not error
            for wanted, error in zip(self.fractions, self.errors, strict=True)
        ]
        given = sum(
            share
            for share, is_exact in zip(self.fractions, exact, strict=True)
            if is_exact and isinstance(share, float)
        )
        # What all others leave is no less imposed, nor is that they leave nothing.
        is_all = sum(exact) >= len(exact) - 1 or given > 1 - 1e-9
        return (True,) * len(exact) if is_all else tuple(exact)

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
        name = class_named(name.strip(), classes) or name.strip()
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
    return RatioRecipe(
        request.fractions, request.uncertainty, level, config, classes=tuple(classes)
    )


def _amount(value: str, text: str) -> tuple[Wanted, float]:
    """Read what stands behind the = of `text`: a wanted share, and its standard error."""
    match = _AMOUNT.fullmatch(value)
    if match is None:
        raise InvalidSettingError(f"{_HINT}, got {text!r}")
    first, first_unit, sign, second, second_unit = match.groups()
    if sign and first_unit and not second_unit:
        # 25%+-0.02 may mean both.
        raise InvalidSettingError(
            f"--ratio {text!r}: expected a % sign behind the second number too, got {value!r}"
        )
    # Behind the last number it is for both.
    scale = 100.0 if second_unit or first_unit else 1.0
    share, other = float(first) / scale, float(second or 0) / scale
    is_range = bool(sign) and sign in "-–−"
    for what, size, typed in (
        ("share", share, first + first_unit),
        ("share" if is_range else "standard error", other, f"{second}{second_unit}"),
    ):
        if size > 1:
            # Who writes 25 means 25 %; who writes 0.2+-3 may mean anything.
            meant = scale == 1 and 1 < share <= 100 and other <= 100
            raise InvalidSettingError(
                f"--ratio {text!r}: expected a {what} within 0–1, or 0–100 %, got {typed}"
                + (f"; did you mean '{text.strip()}%'?" if meant else "")
            )
    if is_range and share > other:
        raise InvalidSettingError(
            f"--ratio {text!r}: expected a range from low to high, got {value!r}"
        )
    return ((share, other), 0.0) if is_range else (share, other)


class RatioWork:
    """Makes the planes of one file obey a ratio, each by itself or all together.

    The logits of a stack wait on the disk until all are there.

    Parameters
    ----------
    recipe : RatioRecipe or None
        What is wanted; None, or for the network alone, leaves all planes as they are.
    n_planes : int
        How many there are.
    n_pixels : int
        Pixels of each, to see whether there is room for all on the disk; 0 if that is not known.

    Raises
    ------
    InvalidSettingError
        If regions of a least size are wanted of a stack as a whole, or a network is to be told
        the shares of a stack.
    SaveError
        If there is no room for the logits of a stack.
    """

    def __init__(self, recipe: RatioRecipe | None, n_planes: int, n_pixels: int = 0) -> None:
        self._asked = recipe
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
        self._stack = None
        if recipe is not None and self._together:
            self._stack = RatioStack(n_planes * n_pixels * len(recipe.fractions))
        self._indices: list[tuple[int, ...]] = []
        self._own: dict[tuple[int, ...], NDArray[np.float64]] = {}
        self._doubts: RatioDoubts | None = None
        if recipe is not None:
            whole = "the stack" if self._together else "a plane" if n_planes > 1 else "the image"
            request = RatioRequest(recipe.fractions, recipe.errors)
            self._doubts = RatioDoubts(request, recipe.classes, whole)
        self._specks = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._stack is not None:
            self._stack.__exit__(*error)

    def labels(
        self, index: tuple[int, ...], found: PhaseMap, image: NDArray[Any]
    ) -> NDArray[np.uint8]:
        """Labels of one plane, (h, w); those of a stack as the model sees them, for now."""
        self._own[index] = found.fractions
        if self._recipe is None:
            return found.labels
        guide = RatioGuide(found, image, self._recipe.config)
        if self._stack is not None:
            self._stack.add(guide)
            self._indices.append(index)
            return found.labels
        guided = guide.solve(self._recipe.fractions, self._recipe.errors)
        if self._doubts is not None:
            self._doubts.note(guided.solution)
            if not (guide.config.fewest or guide.config.smallest > 1):
                self._doubts.note_changes(guide.fractions, guided.solution)
        self._specks += guided.solution.specks
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
        if self._doubts is not None:
            self._doubts.note(solution)

    def columns(self, index: tuple[int, ...], k: int) -> dict[str, Any]:
        """Say what was asked of class `k` in a plane, and what the model saw, for the table."""
        if self._asked is None:
            return {}
        found = {"requested": _written(self._asked.fractions[k]), "own": self._own[index][k]}
        # Of a stack with one ratio only the whole has it, unless it is one plane.
        alone = self._stack is None or len(self._indices) == 1
        if alone and self._asked.imposed[k]:
            # A number that was asked for is no estimate.
            found |= {"low_95": math.nan, "high_95": math.nan}
        return found

    def warnings(self) -> Iterator[str]:
        """Say where the ratio and the images disagree."""
        yield from () if self._asked is None else self._asked.notes
        yield from () if self._doubts is None else self._doubts
        if self._specks and self._asked is not None:
            size = self._asked.config.smallest
            yield (
                f"{self._specks} connected regions have fewer than {size} pixels all the same: the "
                "shares cannot be had without them"
            )


def _written(wanted: Wanted) -> str:
    if wanted is None:
        return ""
    # All cells as text: a column with ranges is one of texts.
    return "-".join(f"{end:.9g}" for end in (wanted if isinstance(wanted, tuple) else (wanted,)))

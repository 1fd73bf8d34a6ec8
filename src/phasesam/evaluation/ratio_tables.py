"""Tables and pictures about ways of using a phase ratio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.evaluation.phase_maps import PhaseMapScores
from phasesam.evaluation.ratio_requests import WRONG
from phasesam.evaluation.ratio_trials import Outcome
from phasesam.evaluation.report import Table
from phasesam.evaluation.statistics import Interval, bootstrap_interval, number, paired_difference

ALLOWED_LOSS = 0.03


def fraction_error(scores: PhaseMapScores) -> float:
    """Mean over classes of the size of the error of the phase fraction."""
    return float(np.abs(scores.fraction_errors).mean())


_FIGURES: tuple[tuple[str, Callable[[PhaseMapScores], float]], ...] = (
    ("mean Dice", lambda s: s.mean_dice),
    ("mIoU", lambda s: s.mean_iou),
    ("boundary IoU", lambda s: s.mean_boundary_iou),
    ("error of fractions", fraction_error),
)


def method_table(
    outcomes: Sequence[Outcome], request: str = "true", title: str = "True ratio"
) -> Table:
    """One row per method: figures with intervals, and the gain in Dice over the first.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Of all folds.
    request : str
        Those that are shown.
    title : str
        Heading.
    """
    by_method = _grouped(outcomes, request)
    first = next(iter(by_method))
    gains = [_gain]
    if len({(o.image, o.specimen) for o in outcomes}) > len({o.specimen for o in outcomes}):
        gains.append(_gain_of_specimens)
    rows = []
    for name, found in by_method.items():
        cells = [_mean(found, figure).text() for _, figure in _FIGURES]
        cells += ["" if name == first else gain(by_method[first], found) for gain in gains]
        rows.append((name, *cells))
    heads = [f"Dice - {first}", f"Dice - {first}, by specimen"]
    return Table(
        title,
        ("method", *(label for label, _ in _FIGURES), *heads[: len(gains)]),
        tuple(rows),
        "Means over images, each mapped by a network that has not learnt from its specimen; by "
        "specimen: each specimen counts once, however many images show it. The "
        "error of fractions is the mean over classes of |found - true|. Each network was trained "
        "once: differences between networks hold chance of the training, too, which the intervals "
        "do not; and p of many methods is not corrected for their number.",
    )


def wrong_table(
    outcomes: Sequence[Outcome], hear: Sequence[str], title: str = "Wrong requests"
) -> Table:
    """One row per request and method: what was achieved, beside what is possible.

    Parameters
    ----------
    outcomes : sequence of Outcome
        Of all folds, with the requests of `WRONG`; of the first method, which hears none, too.
    hear : sequence of str
        Methods that hear the request.
    title : str
        Heading.
    """
    first = outcomes[0].method
    plain = _dice(_grouped(outcomes, "true")[first])
    rows: list[tuple[str, ...]] = []
    for request in WRONG:
        for name, found in _grouped(outcomes, request).items():
            if name not in hear:
                continue
            dice, oracle = _dice(found), np.array([o.oracle for o in found])
            bound = plain * oracle - ALLOWED_LOSS
            missed = [float(np.abs(o.achieved - o.wanted).max()) for o in found]
            rows.append(
                (
                    f"{request}: {name}",
                    _listed(np.mean([o.wanted for o in found], axis=0)),
                    _listed(np.mean([o.achieved for o in found], axis=0)),
                    number(max(missed), 4),
                    number(float(dice.mean())),
                    number(float(oracle.mean())),
                    number(float(bound.mean())),
                    f"{int((dice >= bound).sum())} of {len(found)}",
                )
            )
    return Table(
        title,
        ("request: method", "requested", "achieved", "largest difference", "mean Dice",
         "oracle Dice", "bound", "images above it"),
        tuple(rows),
        "Requested and achieved: mean fractions of the classes. The oracle is the best Dice of any "
        f"map with the requested amounts; the bound is (Dice of {first}) x oracle - "
        f"{ALLOWED_LOSS:g}, image by image.",
    )  # fmt: skip


def error_table(
    outcomes: Sequence[Outcome], requests: Sequence[str], title: str = "Ratio off by its error"
) -> Table:
    """One row per method, one column per standard error: gain in Dice over the first method."""
    first = outcomes[0].method
    columns = [_grouped(outcomes, request) for request in requests]
    rows = [
        (name, *(_gain(column[first], column[name]) for column in columns))
        for name in columns[0]
        if name != first
    ]
    return Table(
        title,
        ("method", *requests),
        tuple(rows),
        f"Difference of the mean Dice to that of {first}, paired by image.",
    )


def outcome_columns(outcomes: Sequence[Outcome]) -> dict[str, list[object]]:
    """Columns of a CSV file with one row per image, method, request and class."""
    columns: dict[str, list[object]] = {}
    for outcome in outcomes:
        dice = outcome.scores.dice
        for c in range(len(outcome.wanted)):
            row: dict[str, object] = {
                "image": outcome.image,
                "specimen": outcome.specimen,
                "method": outcome.method,
                "request": outcome.request,
                "draw": outcome.draw,
                "error": outcome.error,
                "class": c,
                "requested": float(outcome.wanted[c]),
                "achieved": float(outcome.achieved[c]),
                "true_fraction": float(outcome.scores.true_fractions[c]),
                "dice": float(dice[c]),
                "mean_dice": outcome.scores.mean_dice,
                "oracle_dice": outcome.oracle,
            }
            for key, value in row.items():
                columns.setdefault(key, []).append(value)
    return columns


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Figures by request and method, as plain values."""
    found: dict[str, Any] = {}
    for request in dict.fromkeys(o.request for o in outcomes):
        of: dict[str, Any] = {}
        for name, group in _grouped(outcomes, request).items():
            dice = _mean(group, lambda s: s.mean_dice)
            of[name] = {
                "mean_dice": dice.mean,
                "interval": [dice.low, dice.high],
                "miou": _mean(group, lambda s: s.mean_iou).mean,
                "fraction_error": _mean(group, fraction_error).mean,
                "oracle_dice": float(np.mean([o.oracle for o in group])),
                "by_image": _by_image(group),
            }
        found[request] = of
    return found


def _grouped(outcomes: Sequence[Outcome], request: str) -> dict[str, list[Outcome]]:
    """Outcomes of a request by method; repeated draws of an image stay together."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.request == request:
            found.setdefault(outcome.method, []).append(outcome)
    return found


def _by_image(found: Sequence[Outcome]) -> dict[str, float]:
    """Mean Dice of each image, over the draws of a request."""
    values: dict[str, list[float]] = {}
    for outcome in found:
        values.setdefault(outcome.image, []).append(outcome.scores.mean_dice)
    return {name: float(np.mean(dice)) for name, dice in values.items()}


def _dice(found: Sequence[Outcome]) -> NDArray[np.float64]:
    return np.array([o.scores.mean_dice for o in found])


def _mean(found: Sequence[Outcome], figure: Callable[[PhaseMapScores], float]) -> Interval:
    groups = [o.specimen for o in found]
    return bootstrap_interval([figure(o.scores) for o in found], groups, bounds=(0, 1))


def _gain(first: Sequence[Outcome], found: Sequence[Outcome]) -> str:
    groups = [o.specimen for o in found]
    return paired_difference(_dice(first), _dice(found), groups).text()


def _gain_of_specimens(first: Sequence[Outcome], found: Sequence[Outcome]) -> str:
    """Gain where all specimens weigh the same."""
    means = []
    for outcomes in (first, found):
        of: dict[str, list[float]] = {}
        for outcome in outcomes:
            of.setdefault(outcome.specimen, []).append(outcome.scores.mean_dice)
        means.append([float(np.mean(dice)) for dice in of.values()])
    return paired_difference(*means).text()


def _listed(values: NDArray[np.float64]) -> str:
    return " / ".join(f"{v:.3f}" for v in values)

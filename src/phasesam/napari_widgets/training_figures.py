"""What a training achieved, in the words of its task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SCORES = {
    "promptable": "mean Dice after 1, 3 and 5 clicks",
    "instance": "mean of Dice after 1 click and objectness",
    "semantic": "mean IoU of the classes",
}
_CLICKS = (1, 3, 5)


@dataclass(frozen=True)
class Figure:
    """One line of a result.

    Attributes
    ----------
    title : str
        What was measured.
    value : float
        With the adapter, 0–1.
    base : float or None
        Without it; None where it was not measured, or cannot be.
    """

    title: str
    value: float
    base: float | None = None


def score_title(task: str) -> str:
    """Say what the validation score of a task is."""
    return _SCORES.get(task, "validation score")


def best_row(rows: Sequence[Mapping[str, float]]) -> Mapping[str, float] | None:
    """Find the epoch whose adapter is kept; the newest where nothing was validated."""
    trained = [row for row in rows if row.get("epoch", 0) > 0]
    if not trained:
        return None
    scored = [row for row in trained if "val_score" in row]
    # Of equal scores the first is kept, as in training.
    return max(scored, key=lambda row: row["val_score"]) if scored else trained[-1]


def base_row(rows: Sequence[Mapping[str, float]]) -> Mapping[str, float] | None:
    """Find the figures of the model before; None where there are none."""
    return next((row for row in rows if row.get("epoch") == 0), None)


def figures(
    rows: Sequence[Mapping[str, float]], task: str, classes: Sequence[str] = ()
) -> list[Figure]:
    """List what was measured on the validation images in the best epoch.

    Parameters
    ----------
    rows : sequence of mapping of str to float
        The log.
    task : str
        What is learnt.
    classes : sequence of str
        Names of the classes.
    """
    best, base = best_row(rows), base_row(rows) or {}
    if best is None:
        return []
    titles: dict[str, str] = {}
    if task == "semantic":
        for index, name in enumerate(classes):
            titles[f"iou_{index}"] = f"IoU of {name}"
    else:
        for count in _CLICKS:
            titles[f"dice_{count}"] = f"Dice after {count} click" + ("s" if count > 1 else "")
        titles["objectness"] = "Objectness"
    return [Figure(title, best[key], base.get(key)) for key, title in titles.items() if key in best]

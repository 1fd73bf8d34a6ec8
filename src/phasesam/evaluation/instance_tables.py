"""Scores of single objects as tables for reports, the terminal and CSV files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter

from phasesam.core.metrics import InstanceScores
from phasesam.evaluation.instances import InstanceSummary
from phasesam.evaluation.phase_tables import paired_note
from phasesam.evaluation.report import Table
from phasesam.evaluation.statistics import number, paired_difference


@dataclass(frozen=True)
class _Figure:
    """One figure of merit; errors have a sign and no best direction."""

    label: str
    name: str
    is_error: bool = False

    @property
    def of(self) -> Callable[[InstanceScores], float]:
        return attrgetter(self.name)

    @property
    def bounds(self) -> tuple[float, float]:
        return (-1.0, math.inf) if self.is_error else (0.0, 1.0)


_FIGURES = (
    _Figure("SA50", "sa50"),
    _Figure("SA75", "sa75"),
    _Figure("mSA", "msa"),
    _Figure("AP50", "ap50"),
    _Figure("PQ", "panoptic_quality"),
    _Figure("count error", "count_error", is_error=True),
    _Figure("D50 error", "d50_error", is_error=True),
)


def instance_table(summaries: Mapping[str, InstanceSummary], title: str = "Objects") -> Table:
    """One row per figure, one column per method; the last method is compared with the first."""
    everyone = list(summaries.values())
    names, several = list(summaries), len(summaries) > 1
    rows: list[tuple[str, ...]] = []
    for figure in _FIGURES:
        means = [s.mean(figure.of, figure.bounds).text(sign=figure.is_error) for s in everyone]
        difference = paired_difference(
            everyone[0].values(figure.of), everyone[-1].values(figure.of), everyone[0].groups
        ).text()
        shown = "" if figure.is_error else difference
        rows.append((f"{figure.label}, per image", *means, *([shown] if several else [])))
    for label, pooled, sign in (
        ("AP50, pooled", InstanceSummary.average_precision, False),
        ("PQ, pooled", InstanceSummary.panoptic_quality, False),
        ("count error, pooled", InstanceSummary.count_error, True),
        ("D50 error, pooled", InstanceSummary.d50_error, True),
    ):
        values = (number(pooled(s), sign=sign) for s in everyone)
        rows.append((label, *values, *([""] if several else [])))
    for index, quantile in enumerate(("D10", "D50", "D90")):
        sizes = (s.diameters() for s in everyone)
        texts = (f"{number(found[index], 1)} / {number(true[index], 1)}" for found, true in sizes)
        rows.append((f"{quantile} found / true, px", *texts, *([""] if several else [])))
    rows = [row for row in rows if any(cell not in ("", "–") for cell in row[1:])]
    difference_column = [f"{names[-1]} - {names[0]}"] if several else []
    note = (
        "SA is TP / (TP + FP + FN) at an IoU of 0.50 or 0.75, mSA its mean over 0.50, 0.55, ... "
        "0.95. Errors are relative: (found - true) / true. Pooled: objects of all images together."
    )
    if several:
        note = f"{note} {paired_note(len(set(everyone[0].groups)))}"
    return Table(title, ("figure", *names, *difference_column), tuple(rows), note)


def instance_image_table(summaries: Mapping[str, InstanceSummary], title: str = "Images") -> Table:
    """One row per image and method."""
    several = len(summaries) > 1
    rows = []
    for index, name in enumerate(next(iter(summaries.values())).names):
        for method, summary in summaries.items():
            scores = summary.images[index].scores
            figures = (number(f.of(scores), sign=f.is_error) for f in _FIGURES)
            counts = (str(scores.n_predicted), str(scores.n_true))
            rows.append((name, *([method] if several else []), *counts, *figures))
    labels = [figure.label for figure in _FIGURES]
    return Table(
        title,
        ("image", *(["method"] if several else []), "found", "true", *labels),
        tuple(rows),
    )


def instance_columns(summaries: Mapping[str, InstanceSummary]) -> dict[str, list[object]]:
    """Columns of a CSV file with one row per method and image."""
    columns: dict[str, list[object]] = {}
    for method, summary in summaries.items():
        for name, group, image in zip(summary.names, summary.groups, summary.images, strict=True):
            row: dict[str, object] = {
                "method": method,
                "image": name,
                "specimen": group,
                "found": image.scores.n_predicted,
                "true": image.scores.n_true,
                **{figure.name: figure.of(image.scores) for figure in _FIGURES},
            }
            for key, value in row.items():
                columns.setdefault(key, []).append(value)
    return columns

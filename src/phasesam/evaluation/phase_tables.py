"""Scores of phase maps as tables for reports, the terminal and CSV files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from phasesam.evaluation.phase_maps import PhaseMapScores, PhaseMapSummary
from phasesam.evaluation.report import Table
from phasesam.evaluation.statistics import number, paired_difference

_FIGURES: tuple[tuple[str, Callable[[PhaseMapScores], float]], ...] = (
    ("mIoU", lambda s: s.mean_iou),
    ("mean Dice", lambda s: s.mean_dice),
    ("boundary IoU", lambda s: s.mean_boundary_iou),
    ("accuracy", lambda s: s.accuracy),
)


def class_table(summary: PhaseMapSummary, title: str = "Classes") -> Table:
    """One row per class: how well it was found over all images."""
    positive, empty = summary.iou_on_positive_images(), summary.specificity_on_empty_images()
    boundary = summary.per_class(lambda s: s.boundary_iou)
    rows = [
        (
            name,
            number(summary.pooled_iou[c]),
            number(summary.pooled_dice[c]),
            f"{positive[c].text()} ({positive[c].n_values})",
            f"{empty[c].text()} ({empty[c].n_values})",
            boundary[c].text(),
        )
        for c, name in enumerate(summary.classes)
    ]
    mean = (
        "mean",
        number(summary.pooled_mean_iou),
        number(summary.pooled_mean_dice),
        f"{summary.mean(lambda s: s.mean_iou).text()} ({len(summary.scores)})",
        "",
        summary.mean(lambda s: s.mean_boundary_iou).text(),
    )
    return Table(
        title,
        ("class", "IoU, pooled", "Dice, pooled", "IoU on images with it (n)",
         "specificity without it (n)", "boundary IoU"),
        (*rows, mean),
        "Pooled: pixels of all images added up first. The other figures are means over images; "
        "in the last row these are means of the images' means over classes (mIoU).",
    )  # fmt: skip


def fraction_table(summary: PhaseMapSummary, title: str = "Phase fractions") -> Table:
    """One row per class: its share of the area, and how far off the found one is."""
    share = summary.per_class(lambda s: s.true_fractions)
    error, bias = summary.fraction_error(), summary.fraction_bias()
    worst = summary.worst_fraction_error()
    rows = [
        (name, share[c].text(), error[c].text(), bias[c].text(sign=True), number(worst[c]))
        for c, name in enumerate(summary.classes)
    ]
    mean = float(np.mean([e.mean for e in error]))
    return Table(
        title,
        ("class", "true fraction", "mean |error|", "bias", "largest |error|"),
        (*rows, ("mean", "", number(mean), "", number(float(worst.max())))),
        "Shares of the labelled area of an image, 0–1; errors are found minus true.",
    )


def phase_image_table(summary: PhaseMapSummary, title: str = "Images") -> Table:
    """One row per image."""
    rows = [
        (
            name,
            *(number(figure(scores)) for _, figure in _FIGURES),
            *(number(value) for value in scores.iou),
        )
        for name, scores in zip(summary.names, summary.scores, strict=True)
    ]
    columns = [label for label, _ in _FIGURES] + [f"IoU {c}" for c in summary.classes]
    return Table(title, ("image", *columns), tuple(rows))


def phase_comparison(summaries: Mapping[str, PhaseMapSummary], title: str = "Comparison") -> Table:
    """One column per method on the same images, and how much the last is better than the first."""
    everyone = list(summaries.values())
    first, last = everyone[0], everyone[-1]
    rows: list[tuple[str, ...]] = [
        ("mIoU, pooled", *(number(s.pooled_mean_iou) for s in everyone), "")
    ]
    for c, name in enumerate(last.classes):
        rows.append((f"IoU {name}, pooled", *(number(s.pooled_iou[c]) for s in everyone), ""))
    for label, figure in _FIGURES[:3]:
        difference = paired_difference(first.values(figure), last.values(figure), first.groups)
        means = (s.mean(figure).text() for s in everyone)
        rows.append((f"{label}, per image", *means, difference.text()))
    for c, name in enumerate(last.classes):
        errors = (s.fraction_error()[c].text() for s in everyone)
        rows.append((f"|error| of the fraction of {name}", *errors, ""))
    names = list(summaries)
    return Table(
        title,
        ("figure", *names, f"{names[-1]} - {names[0]}"),
        tuple(rows),
        paired_note(len(set(last.groups))),
    )


def paired_note(n: int) -> str:
    """Say how differences are to be read with so many units."""
    return (
        "Differences are paired by image; p is that of a sign-flip test, which cannot be below "
        f"{2.0 ** (1 - n):.2g} here."
    )


def phase_columns(summaries: Mapping[str, PhaseMapSummary]) -> dict[str, list[object]]:
    """Columns of a CSV file with one row per method, image and class."""
    columns: dict[str, list[object]] = {}
    for method, summary in summaries.items():
        for name, group, scores in zip(summary.names, summary.groups, summary.scores, strict=True):
            iou, dice, errors = scores.iou, scores.dice, scores.fraction_errors
            for c, label in enumerate(summary.classes):
                row: dict[str, object] = {
                    "method": method,
                    "image": name,
                    "specimen": group,
                    "class": label,
                    "iou": float(iou[c]),
                    "dice": float(dice[c]),
                    "boundary_iou": float(scores.boundary_iou[c]),
                    "true_fraction": float(scores.true_fractions[c]),
                    "fraction_error": float(errors[c]),
                    "true_px": int(scores.confusion[c].sum()),
                    "predicted_px": int(scores.confusion[:, c].sum()),
                    "right_px": int(scores.confusion[c, c]),
                }
                for key, value in row.items():
                    columns.setdefault(key, []).append(value)
    return columns

"""Whole reports of each kind of evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.mask_set import MaskSet
from phasesam.evaluation.case_pictures import (
    CLICK_CAPTION,
    OBJECT_CAPTION,
    PHASE_CAPTION,
    choose_cases,
    click_picture,
    instance_picture,
    phase_picture,
)
from phasesam.evaluation.cells import FourCells
from phasesam.evaluation.click_tables import cells_table, click_plot, curve_table, noc_table
from phasesam.evaluation.instance_tables import instance_image_table, instance_table
from phasesam.evaluation.instances import NOTHING_TO_FIND, InstanceSummary
from phasesam.evaluation.phase_maps import EMPTY_IMAGES, PhaseMapSummary
from phasesam.evaluation.phase_tables import (
    class_table,
    fraction_table,
    phase_comparison,
    phase_image_table,
)
from phasesam.evaluation.report import INTERVAL_NOTE, Picture, Report, Table
from phasesam.evaluation.statistics import number as number_text
from phasesam.formats.overlay import PALETTE

Case = tuple[NDArray[np.uint8], NDArray[np.integer[Any]], NDArray[Any] | MaskSet]
"""Image (h, w, 3) uint8, truth, and prediction of the last method."""


def phase_report(
    title: str,
    summaries: Mapping[str, PhaseMapSummary],
    case: Callable[[int], Case],
    introduction: tuple[str, ...] = (),
) -> Report:
    """Report on phase maps: the last method in detail, with the others compared.

    Parameters
    ----------
    title : str
        Heading.
    summaries : mapping of str to PhaseMapSummary
        Scores by method, of the same images.
    case : callable
        From the index of an image to what its picture shows.
    introduction : tuple of str
        What was compared, before the rules.
    """
    name, last = list(summaries.items())[-1]
    values = last.values(lambda s: s.mean_iou)
    pictures = []
    for kind, index in choose_cases(values).items():
        rgb, truth, predicted = case(index)
        heading = f"{kind}: {last.names[index]} (mIoU {number_text(values[index])})"
        if isinstance(predicted, MaskSet):
            predicted = predicted.to_labels()
        pictures.append(Picture(heading, PHASE_CAPTION, phase_picture(rgb, truth, predicted)))
    suffix = f", {name}" if len(summaries) > 1 else ""
    tables = [phase_comparison(summaries)] if len(summaries) > 1 else []
    tables += [
        class_table(last, f"Classes{suffix}"),
        fraction_table(last, f"Phase fractions{suffix}"),
        phase_image_table(last, f"Images{suffix}"),
    ]
    legend = {label: _colour(c) for c, label in enumerate(last.classes, -1) if c >= 0}
    return Report(
        title,
        (*introduction, _units(last.names, last.groups), EMPTY_IMAGES, INTERVAL_NOTE),
        tuple(tables),
        pictures=tuple(pictures),
        legend=legend,
    )


def instance_report(
    title: str,
    summaries: Mapping[str, InstanceSummary],
    case: Callable[[int], Case],
    introduction: tuple[str, ...] = (),
) -> Report:
    """Report on single objects; parameters as for `phase_report`."""
    last = list(summaries.values())[-1]
    values = last.values(lambda s: s.msa)
    pictures = []
    for kind, index in choose_cases(values).items():
        heading = f"{kind}: {last.names[index]} (mSA {number_text(values[index])})"
        pictures.append(Picture(heading, OBJECT_CAPTION, instance_picture(*case(index))))
    return Report(
        title,
        (*introduction, _units(last.names, last.groups), NOTHING_TO_FIND, INTERVAL_NOTE),
        (instance_table(summaries), instance_image_table(summaries)),
        pictures=tuple(pictures),
        legend={"found": _colour(1), "missed": _colour(3), "false": _colour(5)},
    )


def click_report(
    title: str,
    cells: FourCells,
    introduction: tuple[str, ...] = (),
    case: Callable[[int], tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]] | None = None,
) -> Report:
    """Report on clicks: the four cells first, as figures and as pictures.

    Parameters
    ----------
    title : str
        Heading.
    cells : FourCells
        Clicks with both models.
    introduction : tuple of str
        What was compared, before the rules.
    case : callable, optional
        From the number of an image to its RGB and its true objects; no pictures without.
    """
    pictures = [] if case is None else _click_pictures(cells, case)
    tables: tuple[Table, ...] = (cells_table(cells), noc_table(cells), curve_table(cells))
    return Report(
        title,
        (*introduction, INTERVAL_NOTE),
        tables,
        (click_plot(cells),),
        tuple(pictures),
    )


def _click_pictures(
    cells: FourCells,
    case: Callable[[int], tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]],
) -> list[Picture]:
    """Show the best, median and worst image of the adapted model after all clicks."""
    adapted, n = cells.adapted, cells.adapted.complete
    count = int(adapted.numbers.max()) + 1 if len(adapted.numbers) else 0
    if not adapted.last_masks:
        return []
    values = np.full(count, np.nan)
    for number in np.unique(adapted.numbers):
        values[number] = adapted.iou[adapted.numbers == number, n - 1].mean()
    pictures = []
    for kind, index in choose_cases(values).items():
        rgb, labels = case(index)
        ids = adapted.object_ids[adapted.numbers == index]
        truth = np.where(np.isin(labels, ids), labels, 0)
        shape = (labels.shape[0], labels.shape[1])
        panels = []
        for curves in (cells.base, cells.adapted):
            chosen = np.flatnonzero(curves.numbers == index)
            for masks in (curves.first_masks, curves.last_masks):
                panels.append(MaskSet.from_crops(shape, [masks[i] for i in chosen]))
        name = adapted.image_of(int(np.flatnonzero(adapted.numbers == index)[0]))
        heading = f"{kind}: {name} (IoU {number_text(values[index])} after {n} clicks)"
        picture = click_picture(rgb, truth, panels)
        pictures.append(Picture(heading, CLICK_CAPTION.format(n=n), picture))
    return pictures


def joined(title: str, *reports: Report) -> Report:
    """Put reports one after the other under one title; repeated paragraphs appear once."""
    return Report(
        title,
        tuple(dict.fromkeys(text for report in reports for text in report.introduction)),
        tuple(table for report in reports for table in report.tables),
        tuple(plot for report in reports for plot in report.plots),
        tuple(picture for report in reports for picture in report.pictures),
        {name: colour for report in reports for name, colour in report.legend.items()},
    )


def _units(names: tuple[str, ...], groups: tuple[str, ...]) -> str:
    n, units = len(names), len(set(groups))
    text = f"{n} image{'s' if n > 1 else ''}"
    return f"{text}." if units == n else f"{text} of {units} specimen{'s' if units > 1 else ''}."


def _colour(index: int) -> tuple[int, int, int]:
    red, green, blue = PALETTE[index % len(PALETTE)].tolist()
    return red, green, blue

"""Results of clicking as tables and plots for reports, the terminal and CSV files."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from phasesam.evaluation.cells import FourCells, Model
from phasesam.evaluation.click_curves import MEASURES, ClickCurves
from phasesam.evaluation.curve_plot import Curve
from phasesam.evaluation.report import Plot, Table

_MODELS: tuple[Model, ...] = ("base", "adapted")


def cells_table(cells: FourCells, title: str = "Clicks") -> Table:
    """Write the four cells, for IoU and Dice, with differences after equally many clicks."""
    n = cells.config.clicks
    rows: list[tuple[str, ...]] = []
    for label, measure in MEASURES:
        for model in _MODELS:
            shown = (cells.cell(model, k, measure).text() for k in (1, n))
            rows.append((f"{label}, {model}", *shown))
        gains = (cells.gain(k, measure).text() for k in (1, n))
        rows.append((f"{label}, adapted - base", *gains))
    small = cells.config.min_area
    left_out = f" Objects below {small} pixels are left out." if small else ""
    if cells.config.most_objects is not None:
        left_out += f" At most {cells.config.most_objects} objects per image, drawn at random."
    return Table(
        title,
        ("model", "1 click", f"{n} clicks"),
        tuple(rows),
        f"Means over {len(cells.base)} objects in {cells.base.units}. Each "
        "click goes to the centre of the largest error; the first one offers three masks, of "
        f"which the model's own favourite counts.{left_out} Compare within a column, not across.",
    )


def noc_table(cells: FourCells, title: str = "Clicks needed") -> Table:
    """Numbers of clicks to reach IoU values, failures, and the height of the curve."""
    most = cells.config.max_clicks
    pair = cells.base, cells.adapted
    rows: list[tuple[str, ...]] = []
    for threshold in cells.config.thresholds:
        clicks = (curves.noc(threshold).text(2) for curves in pair)
        saved = cells.saved_clicks(threshold).text(2)
        rows.append((f"NoC@{100 * threshold:.0f}", *clicks, saved))
    for threshold in cells.config.thresholds:
        failures = (curves.failure_rate(threshold).text() for curves in pair)
        rows.append((f"FR{most}@{100 * threshold:.0f}", *failures, ""))
    for label, measure in MEASURES:
        heights = (curves.area_under_curve(measure).text() for curves in pair)
        rows.append((f"mean {label} over {cells.base.complete} clicks", *heights, ""))
    return Table(
        title,
        ("figure", *_MODELS, "clicks saved"),
        tuple(rows),
        f"NoC: clicks until the IoU is reached, {most} where it never is; FR: share of objects "
        f"that never reach it. Both depend on the limit of {most} clicks.",
    )


def curve_table(cells: FourCells, title: str = "After each click") -> Table:
    """Mean IoU and Dice after each click that all objects got."""
    rows = []
    for k in range(1, cells.base.complete + 1):
        values = (
            cells.cell(model, k, measure).text() for _, measure in MEASURES for model in _MODELS
        )
        rows.append((str(k), *values))
    columns = [f"{label}, {model}" for label, _ in MEASURES for model in _MODELS]
    return Table(title, ("clicks", *columns), tuple(rows))


def click_plot(cells: FourCells, title: str = "IoU after each click") -> Plot:
    """Mean IoU over clicks of both models."""
    return curve_plot({model: cells.curves(model) for model in _MODELS}, title)


def curve_plot(curves: Mapping[str, ClickCurves], title: str = "IoU after each click") -> Plot:
    """Mean IoU over the clicks that all objects got, for at most five methods."""
    lines: dict[str, Curve] = {}
    for name, of in curves.items():
        clicks = np.arange(1, of.complete + 1, dtype=np.float64)
        lines[name] = Curve(clicks, of.mean_curve()[: of.complete])
    return Plot(title, lines, "clicks", "mean IoU", (0, 1))


def click_columns(cells: FourCells) -> dict[str, list[object]]:
    """Columns of a CSV file with one row per model, object and click."""
    return curve_columns({model: cells.curves(model) for model in _MODELS})


def curve_columns(curves: Mapping[str, ClickCurves]) -> dict[str, list[object]]:
    """Columns of a CSV file with one row per method, object and click."""
    columns: dict[str, list[object]] = {
        name: [] for name in ("method", "image", "specimen", "object", "clicks", "iou", "dice")
    }
    for method, of in curves.items():
        for i, (specimen, label) in enumerate(zip(of.images, of.object_ids, strict=True)):
            for k in range(of.max_clicks):
                row = (method, of.image_of(i), str(specimen), int(label), k + 1)
                scores = float(of.iou[i, k]), float(of.dice[i, k])
                for name, value in zip(columns, (*row, *scores), strict=True):
                    columns[name].append(value)
    return columns

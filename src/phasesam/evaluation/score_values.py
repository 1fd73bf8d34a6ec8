"""Scores as plain values for JSON: for scripts, adapter cards and logs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from phasesam.evaluation.cells import FourCells, Model
from phasesam.evaluation.click_curves import MEASURES, ClickCurves
from phasesam.evaluation.instances import InstanceSummary
from phasesam.evaluation.phase_maps import PhaseMapSummary
from phasesam.evaluation.statistics import Interval, PairedDifference

_MODELS: tuple[Model, ...] = ("base", "adapted")


def phase_values(summary: PhaseMapSummary) -> dict[str, Any]:
    """Figures of phase maps by name; what is unknown is None."""
    positive, empty = summary.iou_on_positive_images(), summary.specificity_on_empty_images()
    boundary = summary.per_class(lambda s: s.boundary_iou)
    error, bias = summary.fraction_error(), summary.fraction_bias()
    worst = summary.worst_fraction_error()
    classes = {
        name: {
            "iou_pooled": _known(summary.pooled_iou[c]),
            "dice_pooled": _known(summary.pooled_dice[c]),
            "iou_on_positive_images": _interval(positive[c]),
            "specificity_on_empty_images": _interval(empty[c]),
            "boundary_iou": _interval(boundary[c]),
            "fraction_error": _interval(error[c]),
            "fraction_bias": _interval(bias[c]),
            "largest_fraction_error": _known(worst[c]),
        }
        for c, name in enumerate(summary.classes)
    }
    return {
        "images": list(summary.names),
        "miou_pooled": _known(summary.pooled_mean_iou),
        "mean_dice_pooled": _known(summary.pooled_mean_dice),
        "miou": _interval(summary.mean(lambda s: s.mean_iou)),
        "mean_dice": _interval(summary.mean(lambda s: s.mean_dice)),
        "boundary_iou": _interval(summary.mean(lambda s: s.mean_boundary_iou)),
        "accuracy": _interval(summary.mean(lambda s: s.accuracy)),
        "classes": classes,
    }


def instance_values(summary: InstanceSummary) -> dict[str, Any]:
    """Figures of single objects by name; what is unknown is None."""
    relative = (-1.0, math.inf)
    found, true = summary.diameters()
    return {
        "images": list(summary.names),
        "sa50": _interval(summary.mean(lambda s: s.sa50)),
        "sa75": _interval(summary.mean(lambda s: s.sa75)),
        "msa": _interval(summary.mean(lambda s: s.msa)),
        "ap50": _interval(summary.mean(lambda s: s.ap50)),
        "pq": _interval(summary.mean(lambda s: s.panoptic_quality)),
        "count_error": _interval(summary.mean(lambda s: s.count_error, relative)),
        "d50_error": _interval(summary.mean(lambda s: s.d50_error, relative)),
        "ap50_pooled": _known(summary.average_precision()),
        "pq_pooled": _known(summary.panoptic_quality()),
        "count_error_pooled": _known(summary.count_error()),
        "d50_error_pooled": _known(summary.d50_error()),
        "d10_d50_d90_px": {"found": [_known(v) for v in found], "true": [_known(v) for v in true]},
    }


def cells_values(cells: FourCells) -> dict[str, Any]:
    """Figures of clicks by model, differences between the models beside them."""
    n, thresholds = cells.config.clicks, cells.config.thresholds
    values: dict[str, Any] = {"objects": len(cells.base), "clicks": n}
    for model in _MODELS:
        values[model] = curve_values(cells.curves(model), n)
    values["adapted - base"] = {
        **{f"iou_{k}": _difference(cells.gain(k)) for k in (1, n)},
        **{f"clicks_saved_{100 * t:.0f}": _difference(cells.saved_clicks(t)) for t in thresholds},
    }
    return values


def curve_values(curves: ClickCurves, clicks: int) -> dict[str, Any]:
    """Figures of clicks with one model, after one and after so many clicks among them."""
    thresholds, shown = curves.thresholds, sorted({1, min(clicks, curves.complete)})
    return {
        **{
            f"{measure}_{k}_click{'s' if k > 1 else ''}": _interval(curves.after(k, measure))
            for _, measure in MEASURES
            for k in shown
        },
        **{f"noc_{100 * t:.0f}": _interval(curves.noc(t)) for t in thresholds},
        **{f"fr_{100 * t:.0f}": _interval(curves.failure_rate(t)) for t in thresholds},
        **{
            f"{measure}_after_each_click": [
                _known(v) for v in curves.mean_curve(measure)[: curves.complete]
            ]
            for _, measure in MEASURES
        },
    }


def by_method(summaries: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of several methods."""
    return {
        name: phase_values(s) if isinstance(s, PhaseMapSummary) else instance_values(s)
        for name, s in summaries.items()
    }


def _interval(interval: Interval) -> dict[str, Any]:
    return {
        "mean": _known(interval.mean),
        "low": _known(interval.low),
        "high": _known(interval.high),
        "n": interval.n_units,
    }


def _difference(difference: PairedDifference) -> dict[str, Any]:
    return {**_interval(difference.interval), "p": _known(difference.p_value)}


def _known(value: float) -> float | None:
    """Round to what may be known, and have no NaN in JSON."""
    return None if math.isnan(value) else round(float(value), 6)

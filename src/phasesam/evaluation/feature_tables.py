"""Tables and curves of a comparison of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.layer_numbers import earliest_useful
from phasesam.engines.features import LayerView
from phasesam.evaluation.curve_plot import Curve
from phasesam.evaluation.report import Picture, Plot, Report, Table
from phasesam.models.adapter_config import blocks_from

NOTE = (
    "Shown: share of the variance that the three directions of the pictures have. Likeness: linear "
    "CKA of the two models, 1 for the same up to a turn and a scale. Change: mean length of what "
    "the second adds to the first's tokens, over that of these. Fisher: scatter between a class "
    "and the others over that within them, without what a network could make of it. Probe: mean "
    "IoU of a linear map from tokens to classes, of pictures (or bands of the only one) that it "
    "was not fitted to."
)


def suggested_start(views: Sequence[LayerView]) -> str | None:
    """Name of the layer from which on adapting is worth while; None without labels.

    See `phasesam.core.layer_numbers.earliest_useful`, of the first model.
    """
    scores = [view.figures.probe_means[0] if view.figures.probe else np.nan for view in views]
    place = earliest_useful(scores)
    return None if place is None else views[place].name


def loses(views: Sequence[LayerView]) -> bool:
    """Whether the first model tells the classes worse at its end than before."""
    known = [view for view in views if view.figures.probe]
    return bool(np.isfinite([v.figures.probe_means[0] for v in known]).any()) and (
        suggested_start(views) is None
    )


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Give names that are there more than once their place."""
    return tuple(
        name if names.count(name) == 1 else f"{name} ({index + 1})"
        for index, name in enumerate(list(names))
    )


def layer_columns(
    views: Sequence[LayerView], models: Sequence[str], classes: Sequence[str] = ()
) -> dict[str, list[Any]]:
    """Columns of a table with one row per layer, for CSV.

    Parameters
    ----------
    views : sequence of LayerView
        The layers.
    models : sequence of str
        Name of each model.
    classes : sequence of str
        Name of each class, where there are labels.
    """
    figures = [view.figures for view in views]
    columns: dict[str, list[Any]] = {
        "layer": [view.name for view in views],
        "shown": [f.explained for f in figures],
    }
    if len(models) > 1:
        columns["likeness"] = [f.cka for f in figures]
        columns["change"] = [f.change for f in figures]
    if not classes or not any(f.probe for f in figures):
        return columns
    for m, model in enumerate(models):
        columns[f"probe {model}"] = [f.probe_means[m] for f in figures]
        for k, name in enumerate(classes):
            columns[f"probe {model} {name}"] = [_of(f.probe[m], k) for f in figures]
            columns[f"fisher {model} {name}"] = [_of(f.fisher[m], k) for f in figures]
    return columns


def layer_report(
    title: str,
    views: Sequence[LayerView],
    models: Sequence[str],
    classes: Sequence[str] = (),
    pictures: Sequence[Picture] = (),
    *,
    are_all: bool = True,
) -> Report:
    """Report on layers: a table, curves over the depth, contact sheets.

    Parameters
    ----------
    title : str
        Heading.
    views, models, classes
        As for `layer_columns`.
    pictures : sequence of Picture
        Contact sheets.
    are_all : bool
        Whether these are all layers: of some nobody knows whether others would do.
    """
    start = suggested_start(views) if are_all else None
    introduction = [
        f"Models: {', '.join(models)}. The pictures of a layer have one basis for all models and "
        "images: the same colour means the same."
    ]
    if start is not None:
        introduction.append(
            f"From {start} on the first model tells the classes nearly as well as it ever does "
            f"(95 % of its best probe): {_advice(blocks_from(start))}."
        )
    elif are_all and loses(views):
        introduction.append(
            "The first model tells the classes best in earlier layers than its last, which lose "
            "something: adapt all of it (adapter.blocks=all)."
        )
    return Report(
        title,
        tuple(introduction),
        _tables(views, models, classes),
        layer_plots(views, models),
        tuple(pictures),
    )


def _advice(blocks: str | None) -> str:
    if blocks is None:
        return "adapting the decoder only may do (adapter.encoder=[])"
    return f"adapt it from there (adapter.blocks={blocks})"


def _tables(
    views: Sequence[LayerView], models: Sequence[str], classes: Sequence[str]
) -> tuple[Table, ...]:
    """One table for reading down, and one with the classes where there are any."""
    columns = layer_columns(views, models)
    probes = {f"probe {m}": [_mean(view, i) for view in views] for i, m in enumerate(models)}
    if any(view.figures.probe for view in views):
        columns |= probes
    rows = zip(*([_text(value) for value in values] for values in columns.values()), strict=True)
    table = Table("Layers", tuple(columns), tuple(rows), NOTE)
    if not classes:
        return (table,)
    pairs = [(m, k) for m in range(len(models)) for k in range(len(classes))]
    by_class = [
        (
            view.name,
            *(
                f"{_text(_of(view.figures.probe[m], k))} / {_text(_of(view.figures.fisher[m], k))}"
                for m, k in pairs
            ),
        )
        for view in views
        if view.figures.probe
    ]
    heads = ("layer", *(f"{models[m]} {classes[k]}" for m, k in pairs))
    note = "IoU of the probe / Fisher ratio of each class."
    return table, Table("Classes", heads, tuple(by_class), note)


def _of(values: NDArray[np.float64], k: int) -> float:
    """Figure of a class; none of one that no token has."""
    return float(values[k]) if k < len(values) else float("nan")


def _mean(view: LayerView, model: int) -> float:
    return view.figures.probe_means[model] if view.figures.probe else float("nan")


def layer_plots(views: Sequence[LayerView], models: Sequence[str]) -> tuple[Plot, ...]:
    """Curves over the depth: likeness and change, probe, Fisher ratio."""
    depth = np.arange(1, len(views) + 1, dtype=np.float64)
    figures = [view.figures for view in views]

    def curve(values: Sequence[float | None]) -> Curve:
        return Curve(depth, np.array([np.nan if v is None else v for v in values], np.float64))

    label = f"layer ({views[0].name} to {views[-1].name})"
    plots = []
    if any(f.probe for f in figures):
        probes = {m: curve([f.probe_means[i] for f in figures]) for i, m in enumerate(models)}
        plots.append(Plot("Linear probe", probes, label, "mean IoU", (0.0, 1.0)))
        ratios = {
            m: curve([float(np.nanmean(f.fisher[i])) for f in figures])
            for i, m in enumerate(models)
        }
        plots.append(Plot("Fisher ratio", ratios, label, "between / within", None))
    if len(models) > 1:
        both = {
            "likeness (CKA)": curve([f.cka for f in figures]),
            "change": curve([f.change for f in figures]),
        }
        plots.append(Plot("Likeness and change", both, label, "0–1", None))
    shown = {"shown": curve([f.explained for f in figures])}
    plots.append(Plot("Variance in the pictures", shown, label, "share", (0.0, 1.0)))
    return tuple(plots)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "–" if value is None or np.isnan(value) else f"{value:.3f}"

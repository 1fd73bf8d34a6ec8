"""The options of ``phasesam segment`` alone, one dataclass per panel of its help.

Where a threshold is None, the preset decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

from phasesam.cli.batch_options import panel


class PresetName(StrEnum):
    """The quality presets, see `phasesam.engines.presets`."""

    default = "default"
    particles = "particles"
    grains = "grains"
    pores = "pores"


class Nested(StrEnum):
    """Which mask stays where one lies inside another."""

    both = "both"
    outer = "outer"
    inner = "inner"


class NmsKind(StrEnum):
    """What non-maximum suppression compares."""

    box = "box"
    mask = "mask"


class Rank(StrEnum):
    """What makes one of two overlapping masks the better one."""

    score = "score"
    product = "product"


_prompt = panel("Prompts, instead of automatic masks")
_search = partial(panel("Automatic masks: search (default: the preset's)"), show_default=False)
_filter = partial(panel("Automatic masks: filter (default: the preset's)"), show_default=False)


@dataclass(frozen=True)
class PromptOptions:
    """Where prompts come from."""

    prompts: Annotated[
        Path | None,
        _prompt(
            "--prompts",
            metavar="FILE.json",
            text='Holds {"objects": [{"points": [[y, x]], "labels": [1], '
            '"box": [y0, x0, y1, x1]}]}, or {"images": {"NAME": {"objects": ...}}} for prompts '
            "of single images.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True)
class SearchOptions:
    """The expensive step of automatic masks."""

    preset: Annotated[
        PresetName | None,
        _search(
            "--preset",
            "-p",
            metavar="NAME",
            text=f"Settings for a kind of object: {', '.join(PresetName)}. Options given besides "
            "override it.",
        ),
    ] = None
    points_per_side: Annotated[
        int | None,
        _search(
            "--points-per-side", metavar="N", min=1, max=512, text="Point prompts along each side."
        ),
    ] = None
    points_per_batch: Annotated[
        int | None,
        _search(
            "--points-per-batch", metavar="N", min=1, max=4096, text="Prompts decoded at once."
        ),
    ] = None
    crop_n_layers: Annotated[
        int | None,
        _search(
            "--crop-layers",
            metavar="N",
            min=0,
            max=5,
            text="For small objects: layer i adds 4^i enlarged crops to the search.",
        ),
    ] = None
    crop_overlap_ratio: Annotated[
        float | None,
        _search(
            "--crop-overlap",
            metavar="X",
            min=0.0,
            max=0.95,
            text="Overlap of the crops, share of the side.",
        ),
    ] = None
    crop_n_points_downscale_factor: Annotated[
        int | None,
        _search(
            "--crop-points-divisor",
            metavar="N",
            min=1,
            max=64,
            text="Points per side are divided by this in each further layer.",
        ),
    ] = None
    window: Annotated[
        int | None,
        _search(
            "--window",
            metavar="PX",
            min=0,
            text="Search windows of this side (pixels) instead; 0 for none. As the adapter was "
            "trained when left out.",
        ),
    ] = None
    best_only: Annotated[
        bool | None,
        _search(
            "--best-only/--all-masks",
            text="Keep the best or all three masks of each point (part, object, group). As the "
            "adapter was trained when left out: one that tells objects keeps the best.",
        ),
    ] = None
    speckle_area: Annotated[
        int | None,
        _search(
            "--speckle-area",
            metavar="N",
            min=0,
            text="Remove holes and islands smaller than this from every mask (pixels).",
        ),
    ] = None
    skip_covered: Annotated[
        bool | None,
        _search(
            "--skip-covered/--no-skip-covered",
            text="Leave out points in masks already found with high scores: faster.",
        ),
    ] = None
    region: Annotated[
        Path | None,
        _search(
            "--region",
            metavar="MASK",
            text="Image of the same size; only its non-zero part is searched.",
        ),
    ] = None


@dataclass(frozen=True)
class FilterOptions:
    """The instant step of automatic masks; named as the fields of ``FilterConfig``."""

    pred_iou: Annotated[
        float | None,
        _filter(
            "--pred-iou",
            metavar="X",
            min=0.0,
            max=1.0,
            text="Smallest quality (IoU) the model predicts.",
        ),
    ] = None
    stability: Annotated[
        float | None,
        _filter("--stability", metavar="X", min=0.0, max=1.0, text="Smallest stability score."),
    ] = None
    stability_offset: Annotated[
        float | None,
        _filter(
            "--stability-offset",
            metavar="X",
            min=0.0,
            max=8.0,
            text="Shift of the mask threshold that stability is measured with (logits).",
        ),
    ] = None
    min_area: Annotated[
        float | None, _filter("--min-area", metavar="X", min=0.0, text="Smallest object (pixels).")
    ] = None
    max_area: Annotated[
        float | None, _filter("--max-area", metavar="X", min=0.0, text="Largest object (pixels).")
    ] = None
    nms: Annotated[
        float | None,
        _filter(
            "--nms",
            metavar="X",
            min=0.0,
            max=1.0,
            text="Of two objects that overlap by more than this IoU the worse one goes.",
        ),
    ] = None
    crop_nms: Annotated[
        float | None,
        _filter(
            "--crop-nms",
            metavar="X",
            min=0.0,
            max=1.0,
            text="The same between crops of the image.",
        ),
    ] = None
    nms_kind: Annotated[
        NmsKind | None,
        _filter("--nms-kind", metavar="box|mask", text="Whether boxes or masks are compared."),
    ] = None
    overlap: Annotated[
        float | None,
        _filter(
            "--overlap",
            metavar="X",
            min=0.0,
            max=1.0,
            text="Of two objects that share more than this part of the smaller one, the worse "
            "one goes; 1 switches it off.",
        ),
    ] = None
    rank: Annotated[
        Rank | None,
        _filter(
            "--rank",
            metavar="score|product",
            text="What is better: predicted IoU, or that times stability.",
        ),
    ] = None
    nested: Annotated[
        Nested | None,
        _filter(
            "--nested",
            metavar="both|outer|inner",
            text="Which object stays where one lies inside another.",
        ),
    ] = None
    touching_edge: Annotated[
        bool | None,
        _filter(
            "--touching-edge/--no-touching-edge",
            text="Whether objects that touch the edge of the image stay.",
        ),
    ] = None
    min_region_area: Annotated[
        int | None,
        _filter(
            "--min-region-area",
            metavar="N",
            min=0,
            text="Fill holes and drop islands smaller than this (pixels).",
        ),
    ] = None

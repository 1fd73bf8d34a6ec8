"""A log of requests for amounts of phases and of what came of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phasesam.session.ratio_sheet import WHOLE

if TYPE_CHECKING:
    from phasesam.engines.ratio_guidance import RatioConfig


@dataclass(frozen=True)
class RatioExperiment:
    """One request and what came of it, for the log.

    Attributes
    ----------
    image, model : str
        What it was asked of.
    plane : tuple of int or None
        Position of the plane on the leading axes; None for all planes together.
    classes : tuple of str
        Names of the phases.
    region : int or None
        Where: number of the region, `WHOLE` outside of regions, None where there are none.
    wanted : tuple of float or None
        Shares asked for; None for phases that the model decided about.
    errors : tuple of float
        Their standard errors.
    own, achieved : tuple of float
        Shares as the model sees them, and as they became.
    config : RatioConfig
        What was wished beside the shares.
    changed, contradicted, cost : float
        Over the whole image, as `phasesam.core.ratio.RatioSolution` has them.
    """

    image: str
    model: str
    plane: tuple[int, ...] | None
    classes: tuple[str, ...]
    region: int | None
    wanted: tuple[float | None, ...]
    errors: tuple[float, ...]
    own: tuple[float, ...]
    achieved: tuple[float, ...]
    config: RatioConfig
    changed: float
    contradicted: float
    cost: float


def log_table(experiments: list[RatioExperiment]) -> dict[str, list[Any]]:
    """Columns of a table with one row for each phase of each request."""
    rows = [
        {
            "request": number, "image": entry.image, "model": entry.model,
            "plane": _plane_name(entry.plane), "region": _region_name(entry.region),
            "phase": name, "wanted": float("nan") if wanted is None else wanted,
            "standard_error": error, "own": own, "achieved": achieved,
            "changed": entry.changed, "contradicted": entry.contradicted,
            "cost_nats": entry.cost, "smoothing_px": entry.config.smoothing,
            "smallest_region_px": entry.config.smallest, "fewest_changes": entry.config.fewest,
        }
        for number, entry in enumerate(experiments, start=1)
        for name, wanted, error, own, achieved in zip(
            entry.classes, entry.wanted, entry.errors, entry.own, entry.achieved, strict=True
        )
    ]  # fmt: skip
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}


def _plane_name(plane: tuple[int, ...] | None) -> str:
    """Write the place of a plane: "", "3", "0 3", "all"."""
    return "all" if plane is None else " ".join(map(str, plane))


def _region_name(region: int | None) -> str:
    if region is None:
        return "whole image"
    return "outside of regions" if region == WHOLE else str(region)

"""Size distribution of objects: D10, D50, D90 and a histogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phasesam.core.errors import InvalidSettingError
from phasesam.core.measurements import ObjectTable

Weights = Literal["number", "area", "volume"]

_POWER = {"number": 0, "area": 2, "volume": 3}


@dataclass(frozen=True, eq=False)
class SizeDistribution:
    """Distribution of the equivalent diameter.

    Attributes
    ----------
    d10, d50, d90 : float
        Diameters below which 10, 50 and 90 % of the objects lie, by the chosen weights;
        NaN when there are none.
    mean, standard_deviation : float
        By the chosen weights.
    unit : str
        ``"um"`` or ``"pixel"``.
    weights : {"number", "area", "volume"}
        What an object counts for.
    n_objects, n_left_out : int
        Objects used, and those left out because they touch the edge.
    edges : (k + 1,) float64 array
        Borders of the histogram's bins.
    shares : (k,) float64 array
        Share of the weight in each bin; they add up to 1.
    """

    d10: float
    d50: float
    d90: float
    mean: float
    standard_deviation: float
    unit: str
    weights: Weights
    n_objects: int
    n_left_out: int
    edges: NDArray[np.float64]
    shares: NDArray[np.float64]

    @property
    def span(self) -> float:
        """Width relative to the median, (D90 - D10) / D50."""
        return (self.d90 - self.d10) / self.d50


def size_distribution(
    sizes: ObjectTable | ArrayLike,
    weights: Weights = "number",
    *,
    leave_out_edge: bool = False,
    bins: int | ArrayLike = 20,
    unit: str | None = None,
) -> SizeDistribution:
    """Compute the size distribution of objects.

    Parameters
    ----------
    sizes : ObjectTable or (n,) array-like
        Measured objects, of which the equivalent diameter is taken (in µm if there is
        one), or diameters.
    weights : {"number", "area", "volume"}
        Whether each object counts once, by its area (d²) or by the volume of the
        sphere (d³) as sieves and laser diffraction do.
    leave_out_edge : bool
        Leave out objects that touch the edge of the image, whose size is unknown. (Large
        objects touch it more often, so that this favours small ones.) Needs a table.
    bins : int or array-like
        Number of bins of the histogram, or their borders.
    unit : str, optional
        Unit of plain diameters; ``"pixel"`` when left out.

    Returns
    -------
    SizeDistribution
        Quantiles interpolate linearly between the middles of the objects' steps in the
        cumulative curve (Hazen's rule, so that D50 by number is the usual median).

    Raises
    ------
    InvalidSettingError
        If the weights are unknown, a diameter is not a positive number, or objects at
        the edge cannot be told from plain diameters.
    """
    if weights not in _POWER:
        raise InvalidSettingError(f"weights must be one of {', '.join(_POWER)}, got {weights!r}")
    left_out = 0
    if isinstance(sizes, ObjectTable):
        physical = "equivalent_diameter_um" in sizes
        diameters = sizes["equivalent_diameter_um" if physical else "equivalent_diameter_px"]
        unit = "um" if physical else "pixel"
        if leave_out_edge:
            left_out = int(np.count_nonzero(sizes["touches_edge"]))
            diameters = diameters[~sizes["touches_edge"]]
    elif leave_out_edge:
        raise InvalidSettingError("objects at the edge can only be left out of an object table")
    else:
        diameters = np.asarray(sizes, dtype=np.float64).reshape(-1)
    if not (np.isfinite(diameters) & (diameters > 0)).all():
        raise InvalidSettingError("diameters must be positive numbers")
    diameters = np.sort(diameters)
    weight = diameters ** _POWER[weights]
    low, middle, high = weighted_quantiles(diameters, weight, (0.1, 0.5, 0.9))
    total = weight.sum()
    mean = float((diameters * weight).sum() / total) if total else np.nan
    spread = float(np.sqrt(((diameters - mean) ** 2 * weight).sum() / total)) if total else np.nan
    filled, edges = np.histogram(diameters, bins=_bins(bins, diameters), weights=weight)
    return SizeDistribution(
        d10=low,
        d50=middle,
        d90=high,
        mean=mean,
        standard_deviation=spread,
        unit=unit or "pixel",
        weights=weights,
        n_objects=len(diameters),
        n_left_out=left_out,
        edges=edges.astype(np.float64),
        shares=filled / max(float(filled.sum()), np.finfo(float).tiny),
    )


def _bins(bins: int | ArrayLike, diameters: NDArray[np.float64]) -> NDArray[np.float64]:
    if isinstance(bins, int | np.integer):
        if bins < 1:
            raise InvalidSettingError(f"the histogram needs at least one bin, got {bins}")
        top = float(diameters[-1]) if len(diameters) else 1.0
        return np.linspace(0.0, top, int(bins) + 1)
    edges = np.asarray(bins, dtype=np.float64).reshape(-1)
    if len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise InvalidSettingError("the borders of the bins must ascend")
    return edges


def weighted_quantiles(
    values: NDArray[np.float64], weights: NDArray[np.float64], shares: ArrayLike
) -> list[float]:
    """Interpolate the cumulative curve of ascending values at its steps' middles."""
    wanted = np.asarray(shares, dtype=np.float64).reshape(-1)
    if len(values) == 0:
        return [float("nan")] * len(wanted)
    middles = (np.cumsum(weights) - weights / 2) / weights.sum()
    return [float(q) for q in np.interp(wanted, middles, values)]

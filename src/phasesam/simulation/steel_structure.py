"""Grains and phases of a steel: which pixel belongs to what, before any light falls on it.

Grains are cells of a power diagram (a Voronoi diagram with weights). Bainite takes over
whole grains, martensite sits at triple junctions and in small grains. Every phase is a
level set of a score, cut so that it holds exactly the wanted number of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import label as connected_components
from skimage.morphology import remove_small_holes, remove_small_objects

from phasesam.simulation.micrograph import number_objects
from phasesam.simulation.random_fields import FloatArray, rough_noise, smooth_noise

FERRITE, BAINITE, MARTENSITE = 1, 2, 3


@dataclass(frozen=True)
class Tessellation:
    """A division of the plane into grains.

    Attributes
    ----------
    grain : (h, w) int32 array
        Index of the grain.
    second, third : (h, w) int32 array
        Indices of the next grains.
    to_second, to_third : (h, w) float32 array
        Distance in pixels from the boundary with the second and with the third grain.
    """

    grain: NDArray[np.int32]
    second: NDArray[np.int32]
    third: NDArray[np.int32]
    to_second: FloatArray
    to_third: FloatArray


def tessellate(
    rng: np.random.Generator,
    shape: tuple[int, int],
    diameter: float,
    *,
    spread: float = 0.3,
    waviness: float = 0.05,
) -> Tessellation:
    """Divide an image into polygonal grains.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : (int, int)
        Height and width in pixels.
    diameter : float
        Typical diameter of a grain in pixels.
    spread : float
        How much grains differ in size; 0 for nearly equal ones.
    waviness : float
        Amplitude of the bends of the boundaries, as a share of the diameter.
    """
    seeds = _scattered_seeds(rng, shape, diameter)
    weights = (spread * diameter) ** 2 * rng.normal(0.0, 1.0, len(seeds))
    # Nearest neighbours in one more dimension are nearest in power distance.
    lift = np.sqrt(weights.max() - weights)
    tree = cKDTree(np.column_stack([seeds, lift]))
    bends = [smooth_noise(rng, shape, 0.35 * diameter) * waviness * diameter for _ in range(2)]
    rows, columns = np.indices(shape, dtype=np.float32)
    where = np.column_stack(
        [(rows + bends[0]).ravel(), (columns + bends[1]).ravel(), np.zeros(rows.size, np.float32)]
    )
    distance, nearest = tree.query(where, k=3)
    power = distance**2

    def to_boundary(other: int) -> FloatArray:
        apart = np.linalg.norm(seeds[nearest[:, other]] - seeds[nearest[:, 0]], axis=1)
        gap = (power[:, other] - power[:, 0]) / (2.0 * np.maximum(apart, 1e-3))
        return gap.astype(np.float32).reshape(shape)

    first, second, third = (nearest[:, i].astype(np.int32).reshape(shape) for i in range(3))
    return Tessellation(first, second, third, to_boundary(1), to_boundary(2))


def _scattered_seeds(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> NDArray[np.float64]:
    """Scatter points around the nodes of a hexagonal lattice that overhangs the image."""
    step_y, step_x = 0.75**0.25 * diameter, diameter / 0.75**0.25
    rows = np.arange(-2, int(np.ceil(shape[0] / step_y)) + 3)
    columns = np.arange(-2, int(np.ceil(shape[1] / step_x)) + 3)
    y, x = np.meshgrid(rows * step_y, columns * step_x, indexing="ij")
    x = x + 0.5 * step_x * (rows[:, None] % 2)
    nodes = np.column_stack([y.ravel(), x.ravel()]) + rng.uniform(0.0, diameter, 2)
    return nodes + rng.uniform(-0.42, 0.42, nodes.shape) * diameter


@dataclass(frozen=True)
class SteelStructure:
    """Phases and grains.

    Attributes
    ----------
    phase : (h, w) uint8 array
        `FERRITE`, `BAINITE` or `MARTENSITE`.
    labels : (h, w) int32 array
        Ferrite grains, bainite grains and martensite islands, numbered from 1; 0 on
        scattered specks too small to count.
    """

    phase: NDArray[np.uint8]
    labels: NDArray[np.int32]


def grow_phases(
    rng: np.random.Generator,
    grains: Tessellation,
    diameter: float,
    bainite: float,
    martensite: float,
) -> SteelStructure:
    """Transform parts of the grains into bainite and martensite.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    grains : Tessellation
        The grains of the ferrite.
    diameter : float
        Their typical diameter in pixels.
    bainite, martensite : float
        Wanted shares of the image, 0–1; met to the pixel.
    """
    shape = grains.grain.shape
    size = grains.grain.size
    smallest = max(4, round((0.1 * diameter) ** 2))
    free = np.ones(shape, dtype=bool)
    edge_noise = rough_noise(rng, shape, 0.12 * diameter, octaves=3) * 0.035 * diameter
    score = _grain_score(rng, grains, bainite, large=True) + edge_noise
    is_bainite = cut_to_count(score, free, round(bainite * size), smallest)
    free &= ~is_bainite
    blocky = _grain_score(rng, grains, 0.45 * martensite, large=False, allowed=free)
    junction = _junction_score(rng, grains, diameter)
    edge_noise = rough_noise(rng, shape, 0.06 * diameter, octaves=2) * 0.02 * diameter
    score = np.maximum(blocky, junction) + edge_noise
    is_martensite = cut_to_count(score, free, round(martensite * size), smallest)
    phase = np.full(shape, FERRITE, dtype=np.uint8)
    phase[is_bainite] = BAINITE
    phase[is_martensite] = MARTENSITE
    grain = _settle_grains(phase, grains.grain)
    return SteelStructure(phase, _number_grains(phase, grain, smallest))


def _grain_score(
    rng: np.random.Generator,
    grains: Tessellation,
    fraction: float,
    *,
    large: bool,
    allowed: NDArray[np.bool_] | None = None,
) -> FloatArray:
    """Signed distance in pixels into a choice of grains that make up about `fraction`."""
    areas = np.bincount(grains.grain.ravel())
    if allowed is not None:
        # The rest of a grain that has transformed already is no grain of its own.
        left = np.bincount(grains.grain[allowed], minlength=len(areas))
        areas = np.where(left > 0.6 * areas, left, 0)
    order = np.argsort(-areas if large else areas, kind="stable")
    order = order[areas[order] > 0]
    jumble = rng.uniform(0.0, 1.0, len(order)) * len(order) * 0.7
    order = order[np.argsort(np.arange(len(order)) + jumble, kind="stable")]
    total = np.cumsum(areas[order])
    wanted = fraction * grains.grain.size
    count = int(np.searchsorted(total, wanted)) + (fraction > 0)
    chosen = np.isin(grains.grain, order[:count])
    if allowed is not None:
        chosen &= allowed
    inside = ndimage.distance_transform_edt(chosen) if chosen.any() else np.zeros(chosen.shape)
    if chosen.all():
        return inside.astype(np.float32)
    outside = ndimage.distance_transform_edt(~chosen)
    return (inside - outside).astype(np.float32)


def _junction_score(rng: np.random.Generator, grains: Tessellation, diameter: float) -> FloatArray:
    """High where three grains meet, each junction with a size of its own; in pixels."""
    trio = np.sort(np.stack([grains.grain, grains.second, grains.third]), axis=0).astype(np.int64)
    base = int(trio.max()) + 1
    key = (trio[0] * base + trio[1]) * base + trio[2]
    _, which = np.unique(key, return_inverse=True)
    sizes = rng.gamma(1.2, 0.09 * diameter, int(which.max()) + 1)
    reach = sizes[which].reshape(key.shape)
    # Islands reach out along the boundaries, so that their sides are hollow.
    along = 0.55 * grains.to_third + 0.45 * grains.to_second
    return (reach - along - 0.12 * diameter).astype(np.float32)


def cut_to_count(
    score: FloatArray, allowed: NDArray[np.bool_], count: int, smallest: int
) -> NDArray[np.bool_]:
    """Choose exactly `count` of the allowed pixels with the highest score, without specks.

    Parameters
    ----------
    score : (h, w) float32 array
        What decides.
    allowed : (h, w) bool array
        Pixels that may be chosen.
    count : int
        How many pixels to choose; at most those allowed.
    smallest : int
        Patches and holes below this number of pixels are removed.

    Returns
    -------
    (h, w) bool array
    """
    count = min(count, int(np.count_nonzero(allowed)))
    mask = np.zeros(score.shape, dtype=bool)
    if count == 0:
        return mask
    ranked = np.where(allowed, score, -np.inf).ravel()
    mask.ravel()[np.argsort(-ranked, kind="stable")[:count]] = True
    mask = remove_small_objects(mask, max_size=smallest)
    mask = remove_small_holes(mask, max_size=smallest) & allowed
    while (missing := count - int(np.count_nonzero(mask))) != 0:
        if missing > 0:
            rim = ndimage.binary_dilation(mask) & allowed & ~mask
            rim = rim if rim.any() else allowed & ~mask
        else:
            rim = mask & ~ndimage.binary_erosion(mask, border_value=1)
            # A mask that fills the image has no rim.
            rim = rim if rim.any() else mask
        places = np.flatnonzero(rim)
        order = np.argsort(-np.sign(missing) * score.ravel()[places], kind="stable")
        mask.ravel()[places[order[: abs(missing)]]] = missing > 0
    return mask


def _settle_grains(phase: NDArray[np.uint8], grain: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give the rim that a grain lost to another phase to the next grain of that phase."""
    count = int(grain.max()) + 1
    in_bainite = np.bincount(grain[phase == BAINITE], minlength=count)
    in_ferrite = np.bincount(grain[phase == FERRITE], minlength=count)
    home = np.where(in_bainite > in_ferrite, BAINITE, FERRITE)[grain]
    settled_grain = grain.copy()
    for value in (FERRITE, BAINITE):
        settled = (phase == value) & (home == value)
        orphans = (phase == value) & (home != value)
        if orphans.any() and settled.any():
            _, nearest = ndimage.distance_transform_edt(~settled, return_indices=True)
            settled_grain[orphans] = grain[nearest[0][orphans], nearest[1][orphans]]
    return settled_grain


def _number_grains(
    phase: NDArray[np.uint8], grain: NDArray[np.int32], smallest: int
) -> NDArray[np.int32]:
    """Give numbers to connected grains; slivers join the grain of their phase beside them.

    A sliver without such a neighbour keeps its phase and gets no number.
    """
    key = np.where(phase == MARTENSITE, 0, grain + 1).astype(np.int64) * 4 + phase
    pieces = connected_components(key, connectivity=1).astype(np.int32)
    sizes = np.bincount(pieces.ravel())
    sliver = sizes[pieces] < smallest
    for value in (FERRITE, BAINITE, MARTENSITE):
        settled = (phase == value) & ~sliver
        orphans = (phase == value) & sliver
        if not orphans.any() or not settled.any():
            continue
        apart, nearest = ndimage.distance_transform_edt(~settled, return_indices=True)
        joins = orphans & (apart < 3.0)
        pieces[joins] = pieces[nearest[0][joins], nearest[1][joins]]
        sliver &= ~joins
    pieces[sliver] = 0
    return number_objects(pieces)

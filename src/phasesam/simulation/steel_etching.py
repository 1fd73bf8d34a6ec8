"""How an etched steel looks: brightness of grains, plates, laths, boundaries and flaws.

Brightness is the share of the light that comes back to the objective, 0–1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from phasesam.simulation.random_fields import (
    FloatArray,
    directed_noise,
    rough_noise,
    smooth_noise,
)
from phasesam.simulation.steel_structure import (
    BAINITE,
    MARTENSITE,
    SteelStructure,
    tessellate,
)

N_DIRECTIONS = 9


def etched_brightness(
    rng: np.random.Generator, steel: SteelStructure, pixel: float, contrast: float
) -> FloatArray:
    """Brightness of a polished and etched section.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    steel : SteelStructure
        Phases and grains.
    pixel : float
        Edge length of a pixel in µm.
    contrast : float
        Strength of the etching; 1 is usual.

    Returns
    -------
    (h, w) float32 array
        About 0.7 in ferrite.
    """
    shape = steel.phase.shape
    light = _ferrite(rng, steel, pixel)
    bainite = _plates(rng, shape, pixel)
    martensite = _laths(rng, shape, pixel)
    light = np.where(steel.phase == BAINITE, bainite, light)
    light = np.where(steel.phase == MARTENSITE, martensite, light)
    light = light - _grooves(rng, steel, pixel)
    light = light + 0.10 * _relief(rng, steel, pixel)
    mean = np.float32(0.66)
    return np.clip(mean + np.float32(contrast) * (light - mean), 0.02, 1.0).astype(np.float32)


def _ferrite(rng: np.random.Generator, steel: SteelStructure, pixel: float) -> FloatArray:
    """Bright grains, each with a shade of its own, and a few fine carbides."""
    shape = steel.phase.shape
    shades = 0.73 + 0.05 * np.clip(rng.standard_normal(int(steel.labels.max()) + 1), -2.2, 1.6)
    light = shades.astype(np.float32)[steel.labels]
    light = light + 0.018 * rough_noise(rng, shape, 1.0 / pixel, octaves=4, persistence=0.7)
    dots = smooth_noise(rng, shape, 0.12 / pixel)
    sparse = smooth_noise(rng, shape, 2.5 / pixel) > 0.9
    return light - 0.22 * np.clip(dots - 2.6, 0.0, 1.0) * sparse


def _plates(rng: np.random.Generator, shape: tuple[int, int], pixel: float) -> FloatArray:
    """Bainite: sheaves of pale ferrite plates with dark films of carbide between them."""
    packets = _packets(rng, shape, 5.5 / pixel)
    direction = rng.integers(0, N_DIRECTIONS, int(packets.max()) + 1)[packets]
    plates = _directed(rng, direction, length=1.9 / pixel, width=0.26 / pixel)
    films = _directed(rng, direction, length=0.7 / pixel, width=0.11 / pixel)
    broken = np.clip(0.75 + 0.6 * smooth_noise(rng, shape, 0.5 / pixel), 0.0, 1.4)
    dark = np.clip(0.75 * films + 0.45 * plates, 0.0, 2.0) * broken
    shade = 0.02 * rng.standard_normal(int(packets.max()) + 1)
    pale = 0.585 + 0.035 * np.tanh(-plates) + shade.astype(np.float32)[packets]
    return pale - 0.19 * np.tanh(1.2 * dark)


def _laths(rng: np.random.Generator, shape: tuple[int, int], pixel: float) -> FloatArray:
    """Martensite: dark blocks of fine laths."""
    packets = _packets(rng, shape, 1.9 / pixel)
    direction = rng.integers(0, N_DIRECTIONS, int(packets.max()) + 1)[packets]
    field = _directed(rng, direction, length=0.8 / pixel, width=0.12 / pixel)
    shade = smooth_noise(rng, shape, 1.4 / pixel)
    fine = smooth_noise(rng, shape, 0.1 / pixel)
    return 0.335 + 0.085 * np.tanh(1.2 * field) + 0.035 * shade + 0.02 * fine


def _packets(
    rng: np.random.Generator, shape: tuple[int, int], diameter: float
) -> NDArray[np.int32]:
    """Divide the image into packets and give each pixel the number of its packet."""
    return tessellate(rng, shape, diameter, spread=0.35, waviness=0.12).grain


def _directed(
    rng: np.random.Generator, direction: NDArray[np.int64], length: float, width: float
) -> FloatArray:
    """Streaks along one of `N_DIRECTIONS` directions at each pixel; sizes in pixels."""
    shape = direction.shape
    values = np.zeros(shape, dtype=np.float32)
    for index in range(N_DIRECTIONS):
        angle = np.pi * index / N_DIRECTIONS
        here = direction == index
        values[here] = directed_noise(rng, shape, angle, length, width)[here]
    bend = 1.5 * width * smooth_noise(rng, shape, 8.0 * width)
    rows, columns = np.indices(shape)
    shift = np.rint(bend).astype(int)
    # A slight bend keeps the streaks from looking ruled.
    return values[np.clip(rows + shift, 0, shape[0] - 1), np.clip(columns - shift, 0, shape[1] - 1)]


def _grooves(rng: np.random.Generator, steel: SteelStructure, pixel: float) -> FloatArray:
    """Darkness of etched boundaries; some grain boundaries hardly etch."""
    edge, other = _boundaries(steel.labels)
    if not edge.any():
        return np.zeros(edge.shape, dtype=np.float32)
    distance, nearest = ndimage.distance_transform_edt(~edge, return_indices=True)
    here, there = steel.labels[edge].astype(np.int64), other[edge].astype(np.int64)
    low, high = np.minimum(here, there), np.maximum(here, there)
    _, pair = np.unique(low * (int(high.max()) + 1) + high, return_inverse=True)
    etched = np.clip(rng.normal(0.24, 0.11, int(pair.max()) + 1), 0.03, 0.40)[pair]
    phase_of = np.zeros(int(steel.labels.max()) + 1, dtype=np.uint8)
    phase_of[steel.labels.ravel()] = steel.phase.ravel()
    etched = np.where(phase_of[here] != phase_of[there], np.maximum(0.20, 0.6 * etched), etched)
    both_bainite = (phase_of[here] == BAINITE) & (phase_of[there] == BAINITE)
    etched = np.where(both_bainite, 0.75 * etched, etched)
    depth = np.zeros(edge.shape, dtype=np.float32)
    depth[edge] = etched
    depth = depth[nearest[0], nearest[1]]
    uneven = 1.0 + 0.25 * smooth_noise(rng, edge.shape, 1.0 / pixel)
    width = 0.12 / pixel * (0.8 + 1.2 * depth)
    return (depth * np.exp(-((distance / width) ** 2)) * uneven).astype(np.float32)


def _boundaries(labels: NDArray[np.int32]) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Pixels beside another label (below or to the right), and that label."""
    other = labels.copy()
    below, right = labels[:-1] != labels[1:], labels[:, :-1] != labels[:, 1:]
    other[:-1][below] = labels[1:][below]
    other[:, :-1][right] = labels[:, 1:][right]
    return other != labels, other


def _relief(rng: np.random.Generator, steel: SteelStructure, pixel: float) -> FloatArray:
    """Shading of the height left by polishing: hard martensite stands out."""
    heights = rng.normal(0.0, 0.25, int(steel.labels.max()) + 1)[steel.labels]
    heights = heights + 0.9 * (steel.phase == MARTENSITE) + 0.4 * (steel.phase == BAINITE)
    smooth = ndimage.gaussian_filter(heights.astype(np.float32), 0.18 / pixel)
    slope_y, slope_x = np.gradient(smooth)
    return ((0.8 * slope_y + 0.6 * slope_x) * 0.18 / pixel).astype(np.float32)


def scratches(
    rng: np.random.Generator, shape: tuple[int, int], pixel: float, count: int
) -> FloatArray:
    """Brightness that polishing scratches add (thin, broken lines, dark or bright).

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : (int, int)
        Height and width in pixels.
    pixel : float
        Edge length of a pixel in µm.
    count : int
        Number of scratches.

    Returns
    -------
    (h, w) float32 array
    """
    rows, columns = np.indices(shape, dtype=np.float32)
    added = np.zeros(shape, dtype=np.float32)
    broken = smooth_noise(rng, shape, 3.0 / pixel)
    main = rng.uniform(0.0, np.pi)
    for _ in range(count):
        angle = main + rng.normal(0.0, 0.25) if rng.uniform() < 0.7 else rng.uniform(0.0, np.pi)
        y0, x0 = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        across = np.cos(angle) * (rows - y0) - np.sin(angle) * (columns - x0)
        along = np.sin(angle) * (rows - y0) + np.cos(angle) * (columns - x0)
        across = across + rng.normal(0.0, 2e-4) * along**2 * pixel
        width = rng.uniform(0.06, 0.14) / pixel
        length = rng.uniform(8.0, 60.0) / pixel
        profile = np.exp(-((across / width) ** 2) - (np.abs(along) / length) ** 4)
        strength = rng.choice([-1.0, 0.7]) * rng.uniform(0.04, 0.16)
        added += strength * profile * np.clip(0.7 + 0.6 * broken, 0.0, 1.3)
    return added


def pits(rng: np.random.Generator, shape: tuple[int, int], pixel: float, count: int) -> FloatArray:
    """Share of the light that etch pits and pull-outs take away, 0–1, (h, w) float32."""
    taken = np.zeros(shape, dtype=np.float32)
    for _ in range(count):
        radius = float(np.clip(rng.lognormal(np.log(0.28), 0.45), 0.1, 1.2)) / pixel
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        reach = int(4 * radius) + 2
        window = (
            slice(max(0, int(y) - reach), int(y) + reach + 1),
            slice(max(0, int(x) - reach), int(x) + reach + 1),
        )
        rows, columns = np.ogrid[window[0], window[1]]
        rows, columns = rows[: shape[0]], columns[:, : shape[1]]
        view = taken[window]
        dy, dx = rows[: view.shape[0]] - y, columns[:, : view.shape[1]] - x
        stretch = rng.uniform(0.7, 1.3)
        away = np.sqrt((dy * stretch) ** 2 + (dx / stretch) ** 2) / radius
        dark = 0.75 / (1.0 + np.exp(6.0 * (away - 1.0)))
        rim = -0.10 * np.exp(-(((away - 1.6) / 0.4) ** 2))
        np.copyto(view, np.where(np.abs(dark + rim) > np.abs(view), dark + rim, view))
    return taken

"""What the electron beam meets: height, slope and texture of a pile of particles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from phasesam.simulation.particle_shapes import Ellipsoid, Particle
from phasesam.simulation.random_fields import smooth_noise

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Surface:
    """The uppermost surface at every pixel.

    Attributes
    ----------
    height : (h, w) float32 array
        Height above the plate in µm; 0 on the plate.
    owner : (h, w) int32 array
        Index of the particle; -1 on the plate.
    kind : (h, w) uint8 array
        Kind of the ellipsoid (see `particle_shapes`); 0 on the plate.
    normal : (3, h, w) float32 array
        Unit normal ``(y, x, z)``.
    """

    height: FloatArray
    owner: NDArray[np.int32]
    kind: NDArray[np.uint8]
    normal: FloatArray


def render_surface(particles: list[Particle], shape: tuple[int, int], pixel: float) -> Surface:
    """Look at the particles from above.

    Parameters
    ----------
    particles : list of Particle
        Particles at their places.
    shape : (int, int)
        Height and width of the field in pixels.
    pixel : float
        Edge length of a pixel in µm.
    """
    normal = np.zeros((3, *shape), dtype=np.float32)
    normal[2] = 1.0
    surface = Surface(
        np.zeros(shape, np.float32), np.full(shape, -1, np.int32), np.zeros(shape, np.uint8), normal
    )
    for index, particle in enumerate(particles):
        for ellipsoid in particle.ellipsoids:
            _paint(surface, index, particle, ellipsoid, pixel)
    return surface


def _paint(
    surface: Surface, index: int, particle: Particle, ellipsoid: Ellipsoid, pixel: float
) -> None:
    """Put one ellipsoid on the surface wherever it is the highest."""
    window = _window(particle, ellipsoid, surface.height.shape, pixel)
    if window is None:
        return
    rows, columns = window
    y = ((np.arange(rows.start, rows.stop) + 0.5) * pixel - particle.position[0])[:, None]
    x = ((np.arange(columns.start, columns.stop) + 0.5) * pixel - particle.position[1])[None, :]
    outline = _outline(particle, y, x)
    dy, dx = y / outline - ellipsoid.centre[0], x / outline - ellipsoid.centre[1]
    to_sphere = np.linalg.inv(ellipsoid.axes)
    # On the unit sphere the beam is the line start + up * z; it meets the surface twice.
    start = [row[0] * dy + row[1] * dx for row in to_sphere]
    up = to_sphere[:, 2]
    a = float(up @ up)
    b = sum(s * u for s, u in zip(start, up, strict=True))
    c = sum(s * s for s in start) - 1.0
    discriminant = b * b - a * c
    z = (-b + np.sqrt(np.maximum(discriminant, 0.0))) / a
    height = z + ellipsoid.centre[2] + particle.position[2]
    seen = (discriminant > 0) & (height > surface.height[window])
    if not seen.any():
        return
    on_sphere = [(s + u * z)[seen] for s, u in zip(start, up, strict=True)]
    normal = np.stack(on_sphere, axis=1) @ to_sphere
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    surface.height[window][seen] = height[seen]
    surface.owner[window][seen] = index
    surface.kind[window][seen] = ellipsoid.kind
    for axis in range(3):
        surface.normal[axis][window][seen] = normal[:, axis]


def _window(
    particle: Particle, ellipsoid: Ellipsoid, shape: tuple[int, ...], pixel: float
) -> tuple[slice, slice] | None:
    """Rows and columns that an ellipsoid can reach; None outside the field."""
    swell = 1.0 + float(particle.lobes[0].sum())
    slices = []
    for axis in range(2):
        middle = particle.position[axis] + ellipsoid.centre[axis]
        # The outline stretches with the distance from the particle's centre.
        reach = (ellipsoid.reach[axis] + abs(ellipsoid.centre[axis])) * swell - abs(
            ellipsoid.centre[axis]
        )
        low = max(0, int(np.floor((middle - reach) / pixel)))
        high = min(shape[axis], int(np.ceil((middle + reach) / pixel)) + 1)
        if high <= low:
            return None
        slices.append(slice(low, high))
    return slices[0], slices[1]


def _outline(
    particle: Particle, y: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far the outline lies from the ideal one, as a factor in each direction."""
    angle = np.arctan2(y, x)
    factor = np.ones_like(angle)
    for order, (amplitude, phase) in enumerate(particle.lobes.T, start=2):
        factor += amplitude * np.cos(order * angle + phase)
    return factor


@dataclass(frozen=True)
class Texture:
    """Relief of a surface on the scale of grains.

    Attributes
    ----------
    ridge : (h, w) float32 array
        Height of the ridges where grains meet, 0–1.
    dome : (h, w) float32 array
        Height of the grains themselves, which bulge a little, 0–1.
    facet : (h, w) float32 array
        Offset of each grain's brightness, about -1 to 1.
    """

    ridge: FloatArray
    dome: FloatArray
    facet: FloatArray


def grain_texture(
    rng: np.random.Generator,
    surface: Surface,
    particles: list[Particle],
    pixel: float,
    cell_size: float,
) -> Texture:
    """Divide every particle's surface into solidification cells.

    The cells are Voronoi cells of points on the particle in three dimensions, so that
    they are foreshortened towards the limb as on a real sphere.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    surface : Surface
        What is seen of the particles.
    particles : list of Particle
        The particles, in the order of ``surface.owner``.
    pixel : float
        Edge length of a pixel in µm.
    cell_size : float
        Typical diameter of a cell in µm.
    """
    shape = surface.height.shape
    ridge, dome, facet = (np.zeros(shape, np.float32) for _ in range(3))
    wobble = [smooth_noise(rng, shape, 0.3 * cell_size / pixel) for _ in range(2)]
    flat_owner = surface.owner.ravel()
    by_owner = np.argsort(flat_owner, kind="stable")
    bounds = np.searchsorted(flat_owner[by_owner], np.arange(len(particles) + 1))
    for index, particle in enumerate(particles):
        pixels = by_owner[bounds[index] : bounds[index + 1]]
        size = cell_size * float(rng.lognormal(0.0, 0.3)) * (particle.radius / 12.0) ** 0.35
        strength = float(rng.uniform(0.3, 1.0))
        seeds = _surface_points(rng, particle, size)
        if len(pixels) == 0 or len(seeds) < 3:
            continue
        rows, columns = np.divmod(pixels, shape[1])
        bend = 0.12 * size
        where = np.stack(
            [
                (rows + 0.5) * pixel - particle.position[0] + bend * wobble[0].ravel()[pixels],
                (columns + 0.5) * pixel - particle.position[1] + bend * wobble[1].ravel()[pixels],
                surface.height.ravel()[pixels] - particle.position[2],
            ],
            axis=1,
        )
        distance, nearest = cKDTree(seeds).query(where, k=2)
        apart = np.linalg.norm(seeds[nearest[:, 0]] - seeds[nearest[:, 1]], axis=1)
        to_edge = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2.0 * np.maximum(apart, 1e-6))
        # Some boundaries stand out, others can hardly be seen.
        edge = _edge_strength(nearest, len(seeds))
        width = 0.055 * size + 0.5 * pixel
        ridge.ravel()[pixels] = strength * edge * np.exp(-((to_edge / width) ** 2))
        dome.ravel()[pixels] = strength * np.sqrt(np.clip(2.5 * to_edge / size, 0.0, 1.0))
        facet.ravel()[pixels] = strength * rng.normal(0.0, 0.5, len(seeds))[nearest[:, 0]]
    return Texture(ridge, dome, facet)


def _edge_strength(nearest: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Give each pair of neighbouring cells a fixed number between 0.25 and 1."""
    low, high = nearest.min(axis=1), nearest.max(axis=1)
    phase = np.sin(low * 12.9898 + high * 78.233 + count) * 43758.5453
    return 0.25 + 0.75 * (phase - np.floor(phase)) ** 1.2


def _surface_points(
    rng: np.random.Generator, particle: Particle, size: float
) -> NDArray[np.float64]:
    """Scatter points over the upper side of a particle, about one for each cell."""
    points = []
    main = particle.ellipsoids[:: 6 if len(particle.ellipsoids) > 30 else 1]
    for ellipsoid in main:
        mean_axis = float(np.linalg.norm(ellipsoid.axes) / np.sqrt(3.0))
        count = int(min(4000, 4.0 * np.pi * (mean_axis / size) ** 2))
        directions = rng.standard_normal((count, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        placed = directions @ ellipsoid.axes.T + ellipsoid.centre
        points.append(placed[placed[:, 2] > -0.4 * particle.radius])
    return np.concatenate(points)

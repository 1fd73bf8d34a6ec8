"""Powder particles as unions of ellipsoids, dropped onto a plate one after the other.

All lengths are in µm; ``z`` points from the plate to the detector.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BODY, SATELLITE, AGGLOMERATE = 1, 2, 3


@dataclass(frozen=True)
class Ellipsoid:
    """One ellipsoid of a particle.

    Attributes
    ----------
    centre : (3,) float array
        ``(y, x, z)`` relative to the particle's centre.
    axes : (3, 3) float array
        Takes the unit sphere to the ellipsoid; columns are half axes.
    kind : int
        `BODY`, `SATELLITE` or `AGGLOMERATE`.
    """

    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    kind: int = BODY

    @property
    def reach(self) -> NDArray[np.float64]:
        """Half extent along y, x and z, (3,)."""
        return np.sqrt((self.axes**2).sum(axis=1))


@dataclass(frozen=True)
class Particle:
    """A particle at its place.

    Attributes
    ----------
    ellipsoids : tuple of Ellipsoid
        What it is made of.
    radius : float
        Radius of the sphere that stands for it when particles touch.
    position : (3,) float array
        ``(y, x, z)`` of its centre.
    lobes : (2, k) float array
        Amplitude and phase of the deviations of its outline from the ideal one,
        for 2, 3, … lobes.
    """

    ellipsoids: tuple[Ellipsoid, ...]
    radius: float
    position: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    lobes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((2, 0)))

    @property
    def is_agglomerate(self) -> bool:
        """Whether it is debris rather than a solidified droplet."""
        return self.ellipsoids[0].kind == AGGLOMERATE


@dataclass(frozen=True)
class ShapeMix:
    """How often each shape occurs; the rest are round.

    Attributes
    ----------
    elongated, teardrop, agglomerate : float
        Share of the particles, 0–1.
    satellites : float
        Mean number of small spheres welded to a particle of median size.
    """

    elongated: float = 0.07
    teardrop: float = 0.06
    agglomerate: float = 0.03
    satellites: float = 0.8


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a rotation matrix, (3, 3), evenly from all orientations."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    return q * np.sign(np.diag(r))


def random_direction(rng: np.random.Generator, lowest_z: float = -1.0) -> NDArray[np.float64]:
    """Draw a unit vector ``(y, x, z)`` with ``z >= lowest_z``."""
    z = rng.uniform(lowest_z, 1.0)
    angle = rng.uniform(0.0, 2.0 * np.pi)
    flat = np.sqrt(1.0 - z * z)
    return np.array([flat * np.sin(angle), flat * np.cos(angle), z])


def make_particle(rng: np.random.Generator, radius: float, mix: ShapeMix) -> Particle:
    """Draw the shape of one particle of the given radius in µm."""
    draw = rng.uniform()
    small = radius < 5.0
    if draw < mix.agglomerate and not small:
        return Particle(_agglomerate(rng, 1.3 * radius), radius, lobes=_lobes(rng, 0.04))
    draw -= mix.agglomerate
    if draw < mix.teardrop and not small:
        body = _teardrop(rng, radius)
    elif draw < mix.teardrop + mix.elongated:
        body = _ellipsoid(rng, radius, rng.uniform(1.1, 1.45) ** 1.4, rng.uniform(0.9, 1.05))
    else:
        body = _ellipsoid(rng, radius, 1.0 + abs(rng.normal(0.0, 0.04)), 1.0)
    return Particle(
        body + _satellites(rng, body[0], radius, mix.satellites),
        max(radius, 0.92 * float(body[0].reach[:2].max())),
        lobes=_lobes(rng, 0.011),
    )


def _lobes(rng: np.random.Generator, amplitude: float) -> NDArray[np.float64]:
    orders = np.arange(2, 7)
    amplitudes = np.abs(rng.normal(0.0, amplitude, len(orders))) * (2.0 / orders) ** 0.7
    return np.stack([amplitudes, rng.uniform(0.0, 2.0 * np.pi, len(orders))])


def _ellipsoid(
    rng: np.random.Generator, radius: float, aspect: float, thickness: float
) -> tuple[Ellipsoid, ...]:
    """Make an ellipsoid lying flat, of the projected area of a disc of `radius`."""
    angle = rng.uniform(0.0, np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    halves = radius * np.array([aspect**0.5, aspect**-0.5, thickness * aspect**-0.5])
    return (Ellipsoid(np.zeros(3), turn * halves),)


def _teardrop(rng: np.random.Generator, radius: float) -> tuple[Ellipsoid, ...]:
    """Make a droplet that froze while it was being drawn out: spheres along a tapering tail."""
    angle = rng.uniform(0.0, 2.0 * np.pi)
    heading = np.array([np.sin(angle), np.cos(angle), rng.uniform(-0.25, 0.1)])
    length = radius * rng.uniform(1.0, 2.0)
    tip = rng.uniform(0.15, 0.4)
    head = 0.88 * radius
    parts = []
    for t in np.linspace(0.0, 1.0, 36):
        size = head * (1.0 - (1.0 - tip) * t ** rng.uniform(1.28, 1.32))
        bend = 0.06 * length * np.sin(2.0 * t) * np.array([heading[1], -heading[0], 0.0])
        parts.append(Ellipsoid(heading * length * t + bend, np.eye(3) * size))
    return tuple(parts)


def _satellites(
    rng: np.random.Generator, body: Ellipsoid, radius: float, mean: float
) -> tuple[Ellipsoid, ...]:
    """Weld small spheres to the body, most of them partly sunk into it."""
    count = rng.poisson(mean * min(3.0, (radius / 10.0) ** 1.2))
    parts = []
    for _ in range(count):
        size = radius * float(np.clip(rng.lognormal(np.log(0.10), 0.55), 0.04, 0.30))
        direction = random_direction(rng, -0.35)
        sunk = rng.uniform(-0.7, 0.7)
        surface = body.axes @ direction
        centre = body.centre + surface * (1.0 + sunk * size / np.linalg.norm(surface))
        axes = random_rotation(rng) * (size * rng.uniform(0.88, 1.12, 3))
        parts.append(Ellipsoid(centre, axes, SATELLITE))
    return tuple(parts)


def _agglomerate(rng: np.random.Generator, radius: float) -> tuple[Ellipsoid, ...]:
    """Make a lump of half-molten fragments: lumps around a bent, stretched core."""
    stretch = random_rotation(rng) * (radius * np.array([1.15, 0.7, 0.55]))
    grain = min(radius * rng.uniform(0.10, 0.17), rng.uniform(2.0, 3.2))
    count = int(np.clip(3.0 * (radius / grain) ** 2, 60, 450))
    parts = []
    for _ in range(count):
        direction = random_direction(rng)
        depth = rng.uniform(0.45, 1.0)
        centre = stretch @ (direction * depth)
        centre[0] += 0.25 * radius * np.sin(2.2 * centre[1] / radius)
        size = grain * rng.lognormal(0.0, 0.45)
        axes = random_rotation(rng) * (size * rng.uniform(0.45, 1.7, 3))
        parts.append(Ellipsoid(centre, axes, AGGLOMERATE))
    return tuple(parts)


def drop_particles(
    rng: np.random.Generator,
    particles: list[Particle],
    field_size: tuple[float, float],
    stacking: float,
) -> list[Particle]:
    """Let particles come to rest on a plate, the large ones mostly first.

    A particle takes a place on the plate if it fits there (also below the overhang of a
    larger one). If it does not, it either tries elsewhere or stays where it touches
    the particles below.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    particles : list of Particle
        Shapes without a place.
    field_size : (float, float)
        Height and width of the field of view in µm; particles may cross its border.
    stacking : float
        Probability, 0–1, of staying on top of others at each failed try.

    Returns
    -------
    list of Particle
        Those that found a place.
    """
    sizes = np.array([particle.radius for particle in particles])
    order = np.argsort(-sizes * rng.uniform(0.7, 1.3, len(sizes)))
    spheres = np.empty((len(particles), 4))
    placed: list[Particle] = []
    for index in order:
        particle = particles[index]
        rest = _find_rest(rng, particle.radius, spheres[: len(placed)], field_size, stacking)
        if rest is None:
            continue
        spheres[len(placed)] = (*rest, particle.radius)
        placed.append(Particle(particle.ellipsoids, particle.radius, rest, particle.lobes))
    return placed


def _find_rest(
    rng: np.random.Generator,
    radius: float,
    spheres: NDArray[np.float64],
    field_size: tuple[float, float],
    stacking: float,
) -> NDArray[np.float64] | None:
    """Find a place for a sphere among ``(n, 4)`` others ``(y, x, z, radius)``."""
    margin = 0.7 * radius
    highest = 2.2 * (spheres[:, 3].max(initial=radius)) + radius
    for _ in range(60):
        y = rng.uniform(-margin, field_size[0] + margin)
        x = rng.uniform(-margin, field_size[1] + margin)
        flat = (spheres[:, 0] - y) ** 2 + (spheres[:, 1] - x) ** 2
        gap = (spheres[:, 3] + radius) ** 2 - flat
        if not (gap > (spheres[:, 2] - radius) ** 2).any():
            return np.array([y, x, radius])
        if rng.uniform() < stacking:
            z = float((spheres[:, 2] + np.sqrt(np.maximum(gap, 0.0)))[gap > 0].max())
            covered = (gap > 0) & (flat < (spheres[:, 3] - 0.7 * radius).clip(0) ** 2)
            # A large particle does not balance on a small one, nor hide it altogether.
            hidden = (flat < (radius - spheres[:, 3]).clip(0) ** 2).any()
            if z + radius < highest and not hidden and (radius < 12.0 or not covered.any()):
                return np.array([y, x, z])
    return None

"""A printed metal part with pores and inclusions, as fractions of every voxel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from phasesam.simulation.particle_shapes import random_rotation
from phasesam.simulation.random_fields import FloatArray, smooth_noise

AIR, MATRIX, PORE, INCLUSION = 0, 1, 2, 3


@dataclass(frozen=True)
class Phantom:
    """What fills each voxel.

    Attributes
    ----------
    part : (z, h, w) float32 array
        Share of the voxel inside the outer surface of the part, 0–1.
    pore, inclusion : (z, h, w) float32 array
        Share of the voxel that a pore or an inclusion fills, 0–1.
    owner : (z, h, w) int32 array
        Number of the pore or inclusion that fills at least half the voxel, else 0.
    n_pores, n_inclusions : int
        How many of each were placed; pores are numbered first.
    """

    part: FloatArray
    pore: FloatArray
    inclusion: FloatArray
    owner: NDArray[np.int32]
    n_pores: int
    n_inclusions: int

    @property
    def classes(self) -> NDArray[np.uint8]:
        """`AIR`, `MATRIX`, `PORE` or `INCLUSION`, whichever fills most of the voxel."""
        classes = np.where(self.part >= 0.5, MATRIX, AIR).astype(np.uint8)
        classes[self.pore >= 0.5] = PORE
        classes[self.inclusion >= 0.5] = INCLUSION
        return classes


@dataclass(frozen=True)
class DefectSizes:
    """Log-normal sizes of one kind of defect.

    Attributes
    ----------
    fraction : float
        Share of the part's volume.
    diameter : float
        Median diameter by number in voxels.
    spread : float
        Standard deviation of the natural logarithm of the diameter.
    flat : float
        Share of flat, ragged defects (lack of fusion) among them, 0–1.
    """

    fraction: float
    diameter: float
    spread: float
    flat: float = 0.0


def make_part(
    rng: np.random.Generator, shape: tuple[int, int, int], outline: str, fill: float
) -> FloatArray:
    """Make the outer shape of a part with a rough surface.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : (int, int, int)
        Slices, height and width in voxels; height equals width.
    outline : {"cylinder", "rectangular"}
        Cross-section.
    fill : float
        Diameter of the circle around the cross-section over the width of the field, 0–1.

    Returns
    -------
    (z, h, w) float32 array
        Share of each voxel inside the part.
    """
    depth, n = shape[:2]
    reach = 0.5 * fill * n
    shift = rng.uniform(-0.5, 0.5, 2) * max(0.0, 0.48 * n - reach)
    tilt = rng.uniform(-0.01, 0.01, 2)
    z = np.arange(depth, dtype=np.float32)[:, None, None]
    y = np.arange(n, dtype=np.float32)[None, :, None] - n // 2 - shift[0] - tilt[0] * z
    x = np.arange(n, dtype=np.float32)[None, None, :] - n // 2 - shift[1] - tilt[1] * z
    turn = rng.uniform(0.0, np.pi)
    around = np.arctan2(y, x)
    rough = smooth_noise(rng, (depth, 720), (1.2, 6.0)) * 0.7
    bumps = rough[np.arange(depth)[:, None, None], ((around + np.pi) / np.pi * 359.5).astype(int)]
    if outline == "cylinder":
        distance = np.sqrt(y**2 + x**2) - reach
    else:
        u = np.abs(np.cos(turn) * x + np.sin(turn) * y)
        v = np.abs(np.cos(turn) * y - np.sin(turn) * x)
        corner = 0.06 * reach
        half_u, half_v = 0.74 * reach - corner, 0.64 * reach - corner
        outside = np.hypot(np.maximum(u - half_u, 0.0), np.maximum(v - half_v, 0.0))
        distance = outside + np.minimum(np.maximum(u - half_u, v - half_v), 0.0) - corner
    return np.clip(0.5 - distance - bumps, 0.0, 1.0).astype(np.float32)


def fill_with_defects(
    rng: np.random.Generator, part: FloatArray, pores: DefectSizes, inclusions: DefectSizes
) -> Phantom:
    """Put pores and inclusions into a part, apart from one another.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    part : (z, h, w) float32 array
        From `make_part`.
    pores, inclusions : DefectSizes
        How much of each and how large.
    """
    room = ndimage.distance_transform_edt(np.pad(part >= 0.5, ((0, 0), (1, 1), (1, 1))))
    room = room[:, 1:-1, 1:-1].astype(np.float32)
    owner = np.zeros(part.shape, dtype=np.int32)
    filled = []
    counts: list[int] = []
    taken: list[NDArray[np.float64]] = []
    for sizes in (pores, inclusions):
        share = np.zeros(part.shape, dtype=np.float32)
        wanted = sizes.fraction * float(part.sum())
        number, volume, failures = 0, 0.0, 0
        while volume < wanted and failures < 400:
            radius = 0.5 * rng.lognormal(np.log(sizes.diameter), sizes.spread)
            radius = min(max(radius, 0.8), 0.12 * part.shape[1])
            left = ((wanted - volume) * 0.75 / np.pi) ** (1.0 / 3.0)
            radius = min(radius, max(1.15 * left, 1.0))
            is_flat = rng.uniform() < sizes.flat
            place = _free_place(rng, room, taken, radius * (1.7 if is_flat else 1.1))
            if place is None:
                failures += 1
                continue
            added = _add_defect(rng, share, place, radius, is_flat, owner, sum(counts) + number + 1)
            if added == 0:
                failures += 1
                continue
            volume += added
            number += 1
            taken.append(np.array([*place, radius * (1.7 if is_flat else 1.1)]))
        filled.append(share)
        counts.append(number)
    return Phantom(part, filled[0], filled[1], owner, counts[0], counts[1])


def _free_place(
    rng: np.random.Generator,
    room: FloatArray,
    taken: list[NDArray[np.float64]],
    radius: float,
) -> NDArray[np.float64] | None:
    """Find a centre where a sphere lies inside the part and clear of the others."""
    spheres = np.array(taken).reshape(-1, 4)
    for _ in range(50):
        place = rng.uniform(size=3) * (np.array(room.shape) - 1)
        z, y, x = np.rint(place).astype(int)
        if room[z, y, x] < radius + 2.0:
            continue
        gaps = np.linalg.norm(spheres[:, :3] - place, axis=1) - spheres[:, 3]
        if not (gaps < radius + 1.5).any():
            return place
    return None


def _add_defect(
    rng: np.random.Generator,
    share: FloatArray,
    place: NDArray[np.float64],
    radius: float,
    is_flat: bool,
    owner: NDArray[np.int32],
    number: int,
) -> float:
    """Add one defect to `share` and `owner`; return its volume inside the stack in voxels."""
    reach = int(np.ceil(2.2 * radius)) + 2
    low = np.maximum(np.floor(place).astype(int) - reach, 0)
    high = np.minimum(np.floor(place).astype(int) + reach + 1, share.shape)
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    axes = [np.arange(a, b, dtype=np.float64) - c for a, b, c in zip(low, high, place, strict=True)]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    inside = np.full(offsets.shape[:-1], -np.inf)
    for centre, matrix, size in _lumps(rng, radius, is_flat):
        scaled = np.linalg.norm((offsets - centre) @ matrix, axis=-1)
        inside = np.maximum(inside, (1.0 - scaled) * size)
    piece = np.clip(inside + 0.5, 0.0, 1.0).astype(np.float32)
    solid = (piece >= 0.5) & (owner[window] == 0)
    if not solid.any():
        return 0.0
    share[window] = np.maximum(share[window], piece)
    owner[window][solid] = number
    return float(piece.sum())


def _lumps(
    rng: np.random.Generator, radius: float, is_flat: bool
) -> list[tuple[NDArray[np.float64], NDArray[np.float64], float]]:
    """Ellipsoids of one defect: centre, matrix to the unit sphere, smallest half axis."""
    if not is_flat:
        halves = radius * np.clip(rng.normal(1.0, 0.10, 3), 0.75, 1.25)
        turn = random_rotation(rng)
        return [(np.zeros(3), (turn / halves) @ turn.T, float(halves.min()))]
    lumps = []
    for _ in range(rng.integers(3, 7)):
        spread = radius * np.array([0.12, 0.65, 0.65])
        halves = radius * np.array([0.36, 0.7, 0.7]) * rng.uniform(0.6, 1.15, 3)
        turn = random_rotation(rng) * 0.25 + np.eye(3)
        turn, _ = np.linalg.qr(turn)
        matrix = (turn / halves) @ turn.T
        lumps.append((rng.normal(0.0, 1.0, 3).clip(-1, 1) * spread, matrix, float(halves.min())))
    return lumps

"""Change training images the way other recordings of the same material would differ."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from phasesam.core.errors import InvalidSettingError

_SHOT_NOISE = 0.06
_STRONGEST_ELASTIC = 0.05
_CONTROL_NODES = 7
_WARP_CELLS = 24


@dataclass(frozen=True)
class AugmentationConfig:
    """What is changed at random in every view of a training image.

    Attributes
    ----------
    flips : bool
        Mirror left-right and top-bottom, each in half of the views.
    right_angles : bool
        Turn by 0, 90, 180 or 270 degrees.
    scale : (float, float)
        Range of the magnification; drawn evenly in its logarithm. 2 shows half as wide
        a field, twice as large.
    any_angle : bool
        Turn by any angle; what comes into view from beyond the border is mirrored image
        without labels.
    gamma : (float, float)
        Range of the exponent of the tone curve; drawn evenly in its logarithm.
    contrast : float
        Largest relative change of the contrast.
    brightness : float
        Largest change of the brightness, as a share of the full range.
    noise : float
        Largest standard deviation of the detector noise, as a share of the full range.
    poisson : bool
        Add shot noise, which grows with the brightness.
    blur : float
        Largest standard deviation of the blur in pixels.
    elastic : float
        Standard deviation of a smooth distortion, as a share of the longer side; 0.02
        is mild.

    Raises
    ------
    InvalidSettingError
        If a range is not positive and in order, or an amount is out of its range.
    """

    flips: bool = True
    right_angles: bool = True
    scale: tuple[float, float] = (0.75, 1.33)
    any_angle: bool = False
    gamma: tuple[float, float] = (0.7, 1.5)
    contrast: float = 0.2
    brightness: float = 0.1
    noise: float = 0.03
    poisson: bool = False
    blur: float = 1.0
    elastic: float = 0.0

    def __post_init__(self) -> None:
        for name in ("scale", "gamma"):
            low, high = getattr(self, name)
            if not (0 < low <= high < math.inf):
                raise InvalidSettingError(
                    f"{name} must be a range of positive numbers, low first, got ({low}, {high})"
                )
            object.__setattr__(self, name, (float(low), float(high)))
        limits = {
            "contrast": 1.0,
            "brightness": 1.0,
            "noise": 1.0,
            "blur": 50.0,
            "elastic": _STRONGEST_ELASTIC,
        }
        for name, most in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise InvalidSettingError(f"{name} must lie between 0 and {most:g}, got {value}")

    @classmethod
    def none(cls) -> AugmentationConfig:
        """Change nothing."""
        return cls(
            flips=False,
            right_angles=False,
            scale=(1.0, 1.0),
            gamma=(1.0, 1.0),
            contrast=0.0,
            brightness=0.0,
            noise=0.0,
            blur=0.0,
        )


def log_uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    """Draw a positive number evenly in its logarithm."""
    low, high = limits
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def change_intensities(
    image: NDArray[np.uint8], config: AugmentationConfig, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw and apply blur, tone curve and noise, in the order in which a microscope does.

    Parameters
    ----------
    image : (h, w) or (h, w, 3) uint8 array
        Grey or RGB; colours share the blur and the tone curve, each has its own noise.
    config : AugmentationConfig
        How much.
    rng : numpy.random.Generator
        Equal states give equal results.

    Returns
    -------
    array of the same shape, uint8
    """
    sigma = rng.uniform(0, config.blur)
    gamma, tilt = log_uniform(rng, config.gamma), rng.uniform(-1, 1) * config.contrast
    lift = rng.uniform(-1, 1) * config.brightness
    detector, shot = rng.uniform(0, config.noise), rng.uniform(0, _SHOT_NOISE) * config.poisson
    if sigma > 0.1:
        image = np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))
    if gamma != 1.0 or tilt != 0.0 or lift != 0.0:
        image = np.take(_tone_curve(image, gamma, tilt, lift), image)
    if detector > 0 or shot > 0:
        image = _add_noise(image, detector, shot, rng)
    return image


def _tone_curve(
    image: NDArray[np.uint8], gamma: float, tilt: float, lift: float
) -> NDArray[np.uint8]:
    """Table of the 256 new intensities; the contrast turns about the mean."""
    levels = np.linspace(0, 1, 256) ** gamma
    mean = float(levels[image[::4, ::4]].mean())
    levels = (levels - mean) * (1 + tilt) + mean + lift
    return np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint8)


def _add_noise(
    image: NDArray[np.uint8], detector: float, shot: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Add normal noise; the variance of shot noise is proportional to the intensity."""
    values = rng.standard_normal(image.shape[:2], dtype=np.float32)
    if image.ndim == 3:
        # Far-off parts of one draw serve as the noise of the other bands; drawing costs most.
        offsets = rng.integers(values.size, size=2)
        bands = [values, *(np.roll(values, int(offset)) for offset in offsets)]
        values = np.stack(bands, axis=-1)
    levels = np.linspace(0, 1, 256)
    deviation = (255 * np.sqrt(detector**2 + levels * shot**2)).astype(np.float32)
    values *= np.take(deviation, image) if shot > 0 else deviation[0]
    values += image
    values += np.float32(0.5)
    np.clip(values, 0, 255, out=values)
    return values.astype(np.uint8)


def draw_distortion(
    config: AugmentationConfig, rng: np.random.Generator
) -> tuple[float, NDArray[np.float32]]:
    """Draw an angle in radians and smooth displacements.

    Returns
    -------
    float
        Angle; 0 without `any_angle`.
    (n + 1, n + 1, 2) float32 array
        Displacement ``(y, x)`` at the corners of n × n cells, as a share of the longer
        side; zeros without `elastic`.
    """
    angle = float(rng.uniform(0, 2 * math.pi)) if config.any_angle else 0.0
    shifts = np.zeros((_WARP_CELLS + 1, _WARP_CELLS + 1, 2), np.float32)
    if config.elastic > 0:
        coarse = rng.standard_normal((_CONTROL_NODES, _CONTROL_NODES, 2)).clip(-2, 2)
        for axis in (0, 1):
            plane = Image.fromarray(coarse[..., axis].astype(np.float32))
            fine = plane.resize(shifts.shape[1::-1], Image.Resampling.BICUBIC)
            shifts[..., axis] = np.asarray(fine) * config.elastic
    return angle, shifts


def warp_mesh(
    source: tuple[int, int], target: tuple[int, int], angle: float, shifts: NDArray[np.float32]
) -> list[Any]:
    """Describe where each cell of a view comes from, for Pillow's mesh transform.

    Parameters
    ----------
    source, target : (int, int)
        Heights and widths; the centres lie on each other and the scale is the same.
    angle : float
        Turn in radians.
    shifts : (n + 1, n + 1, 2) float32 array
        See `draw_distortion`.

    Returns
    -------
    list
        ``(box, quadrilateral)`` of each cell in (x, y), as Pillow wants them.
    """
    cells = shifts.shape[0] - 1
    rows = np.rint(np.linspace(0, target[0], cells + 1)).astype(int)
    columns = np.rint(np.linspace(0, target[1], cells + 1)).astype(int)
    y, x = np.meshgrid(rows - target[0] / 2, columns - target[1] / 2, indexing="ij")
    moved = shifts * max(target)
    y, x = y + moved[..., 0], x + moved[..., 1]
    source_y = math.cos(angle) * y - math.sin(angle) * x + source[0] / 2
    source_x = math.sin(angle) * y + math.cos(angle) * x + source[1] / 2
    corners = np.stack([source_x, source_y], axis=-1)
    mesh = []
    for i in range(cells):
        for j in range(cells):
            box = (int(columns[j]), int(rows[i]), int(columns[j + 1]), int(rows[i + 1]))
            if box[0] < box[2] and box[1] < box[3]:
                # North-west, south-west, south-east, north-east.
                quad = (corners[i, j], corners[i + 1, j], corners[i + 1, j + 1], corners[i, j + 1])
                mesh.append((box, tuple(float(v) for corner in quad for v in corner)))
    return mesh

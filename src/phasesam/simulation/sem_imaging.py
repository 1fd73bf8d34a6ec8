"""From a surface to a secondary-electron image: contrast, charging, scanning, counting.

The contrast follows Reimer, *Scanning Electron Microscopy* (Springer, 1998), chapter 4:
the secondary yield grows with the tilt of the surface like ``1 / cos θ`` until the escape
depth limits it, fewer electrons leave hollows, and a detector at the side sees more of
the surfaces that face it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from phasesam.simulation.particle_surface import Surface, Texture
from phasesam.simulation.random_fields import rough_noise, shot_noise, smooth_noise

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class SemDetector:
    """Where the detector is and how strong each contrast is.

    Attributes
    ----------
    direction : float
        Azimuth of the detector in degrees, from the x axis towards the y axis (down).
    asymmetry : float
        Share of the signal that depends on facing the detector, 0–1.
    tilt_contrast : float
        Rise of the signal with tilt, in units of ``1 / cos θ - 1``.
    edge_limit : float
        Value of ``1 / cos θ - 1`` at which the escape depth begins to limit the rise.
    shadowing : float
        How strongly hollows are darkened; 0 for not at all.
    gradient : float
        Relative fall of the signal across the field, away from the detector.
    """

    direction: float = 25.0
    asymmetry: float = 0.17
    tilt_contrast: float = 0.78
    edge_limit: float = 1.0
    shadowing: float = 0.9
    gradient: float = 0.12


@dataclass(frozen=True)
class SemScan:
    """How the beam is scanned and what the electronics add.

    Attributes
    ----------
    dose : float
        Detected electrons per pixel where the signal is 1 (a flat, open surface).
    beam_diameter : float
        Full width at half maximum of the beam in µm.
    line_jitter : float
        Standard deviation of the horizontal displacement of a line, in pixels.
    line_noise : float
        Relative standard deviation of the brightness from line to line.
    charging_length : float
        Decay length of the tails behind charged regions in µm.
    """

    dose: float = 220.0
    beam_diameter: float = 0.4
    line_jitter: float = 0.12
    line_noise: float = 0.008
    charging_length: float = 14.0


def topographic_signal(
    surface: Surface, texture: Texture, pixel: float, detector: SemDetector
) -> FloatArray:
    """Signal of a surface of one material; 1 for a flat, open surface.

    Parameters
    ----------
    surface : Surface
        Height and normals.
    texture : Texture
        Relief and brightness of grains.
    pixel : float
        Edge length of a pixel in µm.
    detector : SemDetector
        Strength of each contrast.

    Returns
    -------
    (h, w) float32 array
    """
    azimuth = np.deg2rad(detector.direction)
    toward = (float(np.sin(azimuth)), float(np.cos(azimuth)))
    cosine = np.maximum(surface.normal[2], 0.02)
    steep = 1.0 / cosine - 1.0
    tilt = steep / np.sqrt(1.0 + (steep / detector.edge_limit) ** 2)
    facing = toward[0] * surface.normal[0] + toward[1] * surface.normal[1]
    signal_ = (1.0 + detector.tilt_contrast * tilt) * (1.0 + detector.asymmetry * facing)
    # The relief is lit from the detector's side: ridges get a bright and a dark flank.
    slope = np.gradient(ndimage.gaussian_filter(texture.ridge + 1.3 * texture.dome, 0.6))
    relief = -(toward[0] * slope[0] + toward[1] * slope[1])
    signal_ *= 1.0 + 0.6 * texture.ridge + 1.5 * relief + 0.08 * texture.facet
    # A steep flank lies below its own summit, yet nothing shields it.
    hollow = hollow_depth(surface.height, pixel) * surface.normal[2]
    signal_ *= np.exp(-detector.shadowing * hollow)
    return np.maximum(signal_, 0.02).astype(np.float32)


def hollow_depth(height: FloatArray, pixel: float) -> FloatArray:
    """How deep each place lies below its surroundings, relative to their distance.

    Parameters
    ----------
    height : (h, w) float32 array
        Height in µm.
    pixel : float
        Edge length of a pixel in µm.

    Returns
    -------
    (h, w) float32 array
        0 in the open, about 1 in a gap as deep as it is wide.
    """
    depth = np.zeros_like(height)
    for reach in (0.8, 2.5, 7.0, 18.0):
        around = _fast_blur(height, reach / pixel)
        depth += np.clip((around - height) / (1.6 * reach), 0.0, 1.5)
    return depth / 2.0


def _fast_blur(values: FloatArray, sigma: float) -> FloatArray:
    """Blur with a wide Gaussian on a coarser grid."""
    step = max(1, int(sigma / 4))
    coarse = ndimage.gaussian_filter(values[::step, ::step], sigma / step)
    if step == 1:
        return coarse
    rows = np.minimum(np.arange(values.shape[0]) / step, coarse.shape[0] - 1)
    columns = np.minimum(np.arange(values.shape[1]) / step, coarse.shape[1] - 1)
    return _bilinear(coarse, rows, columns)


def _bilinear(
    values: FloatArray, rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> FloatArray:
    """Interpolate on the grid spanned by `rows` and `columns`, one axis after the other."""
    for axis, where in enumerate((rows, columns)):
        low = np.minimum(where.astype(int), max(0, values.shape[axis] - 2))
        high = np.minimum(low + 1, values.shape[axis] - 1)
        weight = (where - low).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        values = np.take(values, low, axis) * (1 - weight) + np.take(values, high, axis) * weight
    return values


def carbon_tape(rng: np.random.Generator, shape: tuple[int, int], pixel: float) -> FloatArray:
    """Signal of the adhesive carbon tape below the powder: dark, blotchy, with a few marks.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : (int, int)
        Height and width in pixels.
    pixel : float
        Edge length of a pixel in µm.

    Returns
    -------
    (h, w) float32 array
        Around 0.1 where a flat metal surface has 1.
    """
    blotches = rough_noise(rng, shape, 30.0 / pixel, octaves=3)
    bubbles = smooth_noise(rng, shape, 4.0 / pixel)
    wrinkles = np.exp(-((smooth_noise(rng, shape, 18.0 / pixel) / 0.012) ** 2))
    veil = np.clip(smooth_noise(rng, shape, 40.0 / pixel) - 0.9, 0.0, None)
    tape = 0.15 + 0.018 * blotches + 0.05 * np.clip(bubbles - 2.3, 0.0, 1.0)
    return np.maximum(tape + 0.06 * wrinkles * veil, 0.03).astype(np.float32)


def charge(signal_: FloatArray, charged: FloatArray, pixel: float, length: float) -> FloatArray:
    """Let charged regions glow and leave tails along the fast scan direction (x).

    Parameters
    ----------
    signal_ : (h, w) float32 array
        Signal without charging.
    charged : (h, w) float32 array
        How strongly each place charges, 0–1.
    pixel : float
        Edge length of a pixel in µm.
    length : float
        Decay length of the tails in µm.
    """
    edges = np.clip(signal_ - 0.9, 0.0, None)
    excess = charged * (0.15 + 0.5 * edges)
    decay = float(np.exp(-pixel / length))
    tail = signal.lfilter([1.0 - decay], [1.0, -decay], excess, axis=1)
    # After the bright region the surface stays positive for a while and holds electrons back.
    dark = signal.lfilter([1.0 - decay**0.4], [1.0, -(decay**0.4)], excess, axis=1)
    glow = signal_ * (1.0 + excess) + 0.55 * tail - 0.9 * np.clip(dark - tail, 0.0, None) * signal_
    return np.maximum(glow, 0.02).astype(np.float32)


def scan_image(
    rng: np.random.Generator, signal_: FloatArray, pixel: float, scan: SemScan
) -> FloatArray:
    """Scan a signal line by line and count the electrons.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    signal_ : (h, w) float32 array
        Noise-free signal on the pixel grid.
    pixel : float
        Edge length of a pixel in µm.
    scan : SemScan
        Dose and disturbances.

    Returns
    -------
    (h, w) float32 array
        Counts divided by the dose, so that the mean is that of `signal_`.
    """
    blurred = ndimage.gaussian_filter(signal_, scan.beam_diameter / 2.355 / pixel)
    rows = np.arange(len(blurred))
    hum = 0.5 * scan.line_jitter * np.sin(2.0 * np.pi * rows / 7.3 + rng.uniform(0.0, 6.0))
    wander = signal.lfilter([1.0], [1.0, -0.6], rng.normal(0.0, 0.8, len(rows)))
    shift = np.clip(hum + scan.line_jitter * wander, -0.49, 0.49).astype(np.float32)[:, None]
    left, right = np.roll(blurred, 1, axis=1), np.roll(blurred, -1, axis=1)
    left[:, 0], right[:, -1] = blurred[:, 0], blurred[:, -1]
    moved = blurred + np.where(shift > 0, shift * (left - blurred), -shift * (right - blurred))
    slow = signal.lfilter([1.0], [1.0, -0.8], rng.normal(0.0, 0.5, len(rows)))
    gain = 1.0 + scan.line_noise * (0.7 * rng.standard_normal(len(rows)) + 0.5 * slow)
    counts = shot_noise(rng, moved * gain[:, None] * scan.dose) / np.float32(scan.dose)
    # The amplifier's bandwidth ties each pixel a little to the one before.
    return signal.lfilter([0.95], [1.0, -0.05], counts, axis=1).astype(np.float32)

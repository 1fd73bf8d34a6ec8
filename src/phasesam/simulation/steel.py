"""Simulated light-optical micrographs of a three-phase steel."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from phasesam.core.errors import InvalidSettingError
from phasesam.core.types import PixelSize
from phasesam.simulation.micrograph import Micrograph
from phasesam.simulation.random_fields import FloatArray, shot_noise, smooth_noise
from phasesam.simulation.steel_etching import etched_brightness, pits, scratches
from phasesam.simulation.steel_structure import grow_phases, tessellate

STEEL_CLASSES = ("unlabelled", "ferrite", "bainite", "martensite")


@dataclass(frozen=True)
class SteelConfig:
    """Settings of `simulate_steel`.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the image in pixels.
    pixel_size : float
        Edge length of a pixel in µm.
    grain_size : float
        Typical diameter of the grains in µm.
    grain_spread : float
        How much grains differ in size; 0 for nearly equal ones.
    bainite, martensite : float
        Area fractions, 0–1, met to the pixel; the rest is ferrite.
    etching : float
        Strength of the etching contrast; 1 is usual.
    illumination : float
        Relative fall of the light from the brightest place to the darkest corner, 0–1.
    defocus : float
        Standard deviation of the point-spread function in µm; 0.12 is a focused dry
        objective of numerical aperture 0.9.
    n_scratches, n_pits : int
        Flaws of the preparation.
    dose : float
        Photo-electrons per pixel at full brightness.
    read_noise : float
        Standard deviation of the camera's read-out in electrons.
    """

    shape: tuple[int, int] = (768, 1024)
    pixel_size: float = 0.1
    grain_size: float = 10.0
    grain_spread: float = 0.3
    bainite: float = 0.25
    martensite: float = 0.15
    etching: float = 1.0
    illumination: float = 0.16
    defocus: float = 0.12
    n_scratches: int = 7
    n_pits: int = 25
    dose: float = 3000.0
    read_noise: float = 12.0

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 16:
            raise InvalidSettingError(f"shape must be (h, w) of at least 16, got {self.shape}")
        if self.bainite < 0 or self.martensite < 0 or self.bainite + self.martensite > 1:
            raise InvalidSettingError(
                "bainite and martensite must be at least 0 and together at most 1, got "
                f"{self.bainite} and {self.martensite}"
            )
        for name, low, high in (
            ("pixel_size", 1e-4, 1e3),
            ("grain_size", 8.0 * self.pixel_size, 1e5),
            ("grain_spread", 0.0, 0.6),
            ("etching", 0.0, 3.0),
            ("illumination", 0.0, 1.0),
            ("defocus", 0.0, 1e3),
            ("n_scratches", 0, 1000),
            ("n_pits", 0, 10_000),
            ("dose", 1.0, 1e9),
            ("read_noise", 0.0, 1e6),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidSettingError(f"{name} must lie in {low}–{high}, got {value}")


def simulate_steel(config: SteelConfig | None = None, seed: int = 0) -> Micrograph:
    """Simulate a bright-field image of an etched steel of ferrite, bainite and martensite.

    Parameters
    ----------
    config : SteelConfig, optional
        Settings; the defaults when left out.
    seed : int
        Seed of everything random; the same seed gives the same image.

    Returns
    -------
    Micrograph
        uint8 image of shape (h, w). `classes` is the phase of every pixel (1 ferrite,
        2 bainite, 3 martensite; 0 does not occur), with exactly
        ``round(fraction * pixels)`` pixels of bainite and of martensite. `labels` numbers the
        ferrite grains, bainite grains and martensite islands.

    Raises
    ------
    InvalidSettingError
        If a setting is out of range.
    """
    config = config or SteelConfig()
    rng = np.random.default_rng(seed)
    diameter = config.grain_size / config.pixel_size
    grains = tessellate(rng, config.shape, diameter, spread=config.grain_spread)
    steel = grow_phases(rng, grains, diameter, config.bainite, config.martensite)
    light = etched_brightness(rng, steel, config.pixel_size, config.etching)
    light = light + scratches(rng, config.shape, config.pixel_size, config.n_scratches)
    light = light * (1.0 - pits(rng, config.shape, config.pixel_size, config.n_pits))
    image = photograph(rng, light, config)
    micrograph = Micrograph(
        image=image,
        labels=steel.labels,
        classes=steel.phase,
        pixel_size=PixelSize(config.pixel_size, config.pixel_size, "um"),
        class_names=STEEL_CLASSES,
        name="three_phase_steel",
    )
    return Micrograph(
        **{**vars(micrograph), "metadata": _facts(config, seed, micrograph)},
    )


def photograph(
    rng: np.random.Generator, light: FloatArray, config: SteelConfig
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Image a brightness map through the microscope: uneven light, blur, camera noise.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    light : (h, w) float32 array
        Brightness of the specimen, 0–1.
    config : SteelConfig
        Illumination, focus and dose.

    Returns
    -------
    (h, w) uint8 array
    """
    y = np.linspace(-1.0, 1.0, config.shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1.0, 1.0, config.shape[1], dtype=np.float32)[None, :]
    middle_y, middle_x = rng.uniform(-0.35, 0.35, 2)
    fall = ((y - middle_y) ** 2 + (x - middle_x) ** 2) / 3.6
    stain = 0.012 * smooth_noise(rng, config.shape, 12.0 / config.pixel_size)
    lit = np.clip(light, 0.0, 1.2) * (1.0 - config.illumination * fall + stain)
    blurred = ndimage.gaussian_filter(lit.astype(np.float32), config.defocus / config.pixel_size)
    counts = shot_noise(rng, blurred * config.dose)
    counts = counts + config.read_noise * rng.standard_normal(config.shape).astype(np.float32)
    return np.clip(np.rint(counts / config.dose * 255.0), 0, 255).astype(np.uint8)


def _facts(config: SteelConfig, seed: int, micrograph: Micrograph) -> dict[str, Any]:
    return {
        "made_by": "phasesam.simulation.simulate_steel",
        "seed": seed,
        "config": asdict(config),
        "phase_fractions": micrograph.class_fractions(),
        "n_grains": micrograph.n_objects,
    }

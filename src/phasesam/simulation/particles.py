"""Simulated scanning electron micrographs of metal powder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError
from phasesam.core.types import PixelSize
from phasesam.simulation.micrograph import Micrograph, number_objects
from phasesam.simulation.particle_shapes import (
    AGGLOMERATE,
    BODY,
    SATELLITE,
    Particle,
    ShapeMix,
    drop_particles,
    make_particle,
)
from phasesam.simulation.particle_surface import Surface, grain_texture, render_surface
from phasesam.simulation.random_fields import rough_noise
from phasesam.simulation.sem_imaging import (
    SemDetector,
    SemScan,
    carbon_tape,
    charge,
    scan_image,
    topographic_signal,
)

PARTICLE_CLASSES = ("background", "particle", "satellite", "agglomerate")


@dataclass(frozen=True)
class ParticleConfig:
    """Settings of `simulate_particles`.

    Attributes
    ----------
    shape : (int, int)
        Height and width of the image in pixels.
    pixel_size : float
        Edge length of a pixel in µm.
    median_diameter : float
        Median diameter by number in µm.
    diameter_spread : float
        Standard deviation of the natural logarithm of the diameter.
    smallest_diameter, largest_diameter : float
        Limits of the distribution in µm.
    coverage : float
        Area of all particles (seen or hidden) over the area of the field, 0–1.5.
    stacking : float
        Probability of resting on other particles where there is no room beside them, 0–1.
    mix : ShapeMix
        Shares of the shapes.
    cell_size : float
        Diameter of the solidification cells on the surface in µm.
    charging : float
        Share of the particles that charge, 0–1.
    mean_grey : float
        Grey value (0–255) of a flat, open surface.
    detector : SemDetector
        Contrast.
    scan : SemScan
        Dose and disturbances of the scan.
    """

    shape: tuple[int, int] = (768, 1024)
    pixel_size: float = 0.4
    median_diameter: float = 14.5
    diameter_spread: float = 0.78
    smallest_diameter: float = 4.0
    largest_diameter: float = 70.0
    coverage: float = 0.78
    stacking: float = 0.03
    mix: ShapeMix = field(default_factory=ShapeMix)
    cell_size: float = 3.4
    charging: float = 0.09
    mean_grey: float = 84.0
    detector: SemDetector = field(default_factory=SemDetector)
    scan: SemScan = field(default_factory=SemScan)

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 16:
            raise InvalidSettingError(f"shape must be (h, w) of at least 16, got {self.shape}")
        if not 0 < self.smallest_diameter < self.median_diameter < self.largest_diameter:
            raise InvalidSettingError(
                "expected 0 < smallest < median < largest diameter, got "
                f"{self.smallest_diameter}, {self.median_diameter}, {self.largest_diameter}"
            )
        for name, low, high in (
            ("pixel_size", 1e-4, 1e4),
            ("diameter_spread", 0.01, 2.0),
            ("coverage", 0.0, 1.5),
            ("stacking", 0.0, 1.0),
            ("charging", 0.0, 1.0),
            ("cell_size", 1e-4, 1e4),
            ("mean_grey", 1.0, 255.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidSettingError(f"{name} must lie in {low}–{high}, got {value}")
        if self.scan.dose <= 0:
            raise InvalidSettingError(f"dose must be positive, got {self.scan.dose}")


def simulate_particles(config: ParticleConfig | None = None, seed: int = 0) -> Micrograph:
    """Simulate a secondary-electron image of gas-atomised powder on carbon tape.

    Spheres, ellipsoids, teardrops with satellites, and a few lumps of debris lie on the
    tape and on one another; the same seed gives the same image.

    Parameters
    ----------
    config : ParticleConfig, optional
        Settings; the defaults when left out.
    seed : int
        Seed of everything random.

    Returns
    -------
    Micrograph
        uint8 image of shape (h, w). `labels` numbers the particles, satellites belonging to
        the particle they are welded to; a particle may be seen in several pieces. `classes`
        tells satellites and debris from plain particles.

    Raises
    ------
    InvalidSettingError
        If a setting is out of range.
    """
    config = config or ParticleConfig()
    rng = np.random.default_rng(seed)
    fine = config.pixel_size / 2
    fine_shape = (config.shape[0] * 2, config.shape[1] * 2)
    particles = _visible(_pile(rng, config), config)
    surface = render_surface(particles, fine_shape, fine)
    signal_ = _signal(rng, surface, particles, config)
    pooled = signal_.reshape(config.shape[0], 2, config.shape[1], 2).mean(axis=(1, 3))
    counted = scan_image(
        rng, _with_gradient(pooled, config.detector), config.pixel_size, config.scan
    )
    image = np.clip(np.rint(counted * config.mean_grey + 2.0), 0, 255).astype(np.uint8)
    owner = _most_common(surface.owner + 1)
    kind = _most_common(np.where(surface.owner < 0, 0, surface.kind).astype(np.int32))
    kind[owner == 0] = 0
    kind[(owner > 0) & (kind == 0)] = BODY
    labels = number_objects(owner)
    return Micrograph(
        image=image,
        labels=labels,
        classes=kind.astype(np.uint8),
        pixel_size=PixelSize(config.pixel_size, config.pixel_size, "um"),
        class_names=PARTICLE_CLASSES,
        name="particles_sem",
        metadata=_facts(config, seed, labels, particles),
    )


def _pile(rng: np.random.Generator, config: ParticleConfig) -> list[Particle]:
    """Draw sizes until their discs fill the wanted share, then drop the particles."""
    height, width = (length * config.pixel_size for length in config.shape)
    margin = 0.35 * config.median_diameter
    wanted = config.coverage * (height + 2 * margin) * (width + 2 * margin)
    particles = []
    total = 0.0
    while total < wanted:
        diameter = rng.lognormal(np.log(config.median_diameter), config.diameter_spread)
        if not config.smallest_diameter <= diameter <= config.largest_diameter:
            continue
        total += np.pi / 4.0 * diameter**2
        particles.append(make_particle(rng, diameter / 2, config.mix))
    return drop_particles(rng, particles, (height, width), config.stacking)


def _visible(particles: list[Particle], config: ParticleConfig) -> list[Particle]:
    """Take away particles of which next to nothing is seen.

    A sliver of three pixels is no object that anyone could find; without the particle the
    ground truth stays exact.
    """
    for _ in range(3):
        owner = render_surface(particles, config.shape, config.pixel_size).owner
        seen = np.bincount(owner.ravel() + 1, minlength=len(particles) + 1)[1:]
        whole = [np.pi * (particle.radius / config.pixel_size) ** 2 for particle in particles]
        kept = [
            particle
            for particle, pixels, area in zip(particles, seen, whole, strict=True)
            if pixels >= max(12.0, min(0.12 * area, 150.0))
        ]
        if len(kept) == len(particles):
            break
        particles = kept
    return particles


def _signal(
    rng: np.random.Generator, surface: Surface, particles: list[Particle], config: ParticleConfig
) -> NDArray[np.float32]:
    """Secondary-electron signal on the fine grid."""
    fine = config.pixel_size / 2
    texture = grain_texture(rng, surface, particles, fine, config.cell_size)
    signal_ = topographic_signal(surface, texture, fine, config.detector)
    rough = rough_noise(rng, surface.height.shape, 1.0 / fine, octaves=4, persistence=0.75)
    signal_ *= 1.0 + 0.085 * rough
    tops = np.array([p.position[2] + p.radius for p in particles] + [0.0])
    # The higher a particle reaches, the more of its electrons find the detector.
    level = 0.36 + 0.94 * (1.0 - np.exp(-tops / (1.5 * config.median_diameter)))
    level *= rng.lognormal(0.0, 0.09, len(tops))
    charged = np.where(rng.uniform(size=len(tops)) < config.charging, rng.uniform(0.3, 1.0), 0.0)
    level[-1], charged[-1] = 1.0, 0.0
    on_tape = surface.owner < 0
    signal_ *= level.astype(np.float32)[surface.owner]
    tape = carbon_tape(rng, surface.height.shape, fine)
    signal_ = np.where(on_tape, tape * (0.35 + 0.65 * signal_), signal_)
    glow = charged.astype(np.float32)[surface.owner]
    return charge(signal_.astype(np.float32), glow, fine, config.scan.charging_length)


def _with_gradient(signal_: NDArray[np.float32], detector: SemDetector) -> NDArray[np.float32]:
    azimuth = np.deg2rad(detector.direction)
    y = np.linspace(-0.5, 0.5, signal_.shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, signal_.shape[1], dtype=np.float32)[None, :]
    across = float(np.sin(azimuth)) * y + float(np.cos(azimuth)) * x
    return signal_ * (1.0 + np.float32(detector.gradient) * across)


def _most_common(fine: NDArray[np.int32]) -> NDArray[np.int32]:
    """Reduce each block of 2 × 2 pixels to its most frequent value, (h, w) from (2h, 2w)."""
    a, b = fine[0::2, 0::2], fine[0::2, 1::2]
    c, d = fine[1::2, 0::2], fine[1::2, 1::2]
    # Of four values, the first is a mode unless another pair agrees and it stands alone.
    alone = (a != b) & (a != c) & (a != d)
    pair = np.where((b == c) | (b == d), b, c)
    return np.where(alone & ((b == c) | (b == d) | (c == d)), pair, a).astype(np.int32)


def _facts(
    config: ParticleConfig, seed: int, labels: NDArray[np.int32], particles: list[Particle]
) -> dict[str, Any]:
    return {
        "made_by": "phasesam.simulation.simulate_particles",
        "seed": seed,
        "config": asdict(config),
        "n_particles": int(labels.max(initial=0)),
        "n_agglomerates": sum(particle.is_agglomerate for particle in particles),
        "covered_fraction": float(np.count_nonzero(labels) / labels.size),
        "class_ids": {"particle": BODY, "satellite": SATELLITE, "agglomerate": AGGLOMERATE},
    }

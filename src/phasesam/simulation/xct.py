"""Simulated X-ray computed tomography of a metal part with pores and inclusions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidSettingError
from phasesam.core.types import PixelSize, ProgressCallback, StopCallback
from phasesam.simulation.micrograph import Micrograph, number_objects
from phasesam.simulation.tomography import (
    Detector,
    measure_attenuation,
    project,
    reconstruct,
    titanium_with_steel,
)
from phasesam.simulation.xct_phantom import DefectSizes, Phantom, fill_with_defects, make_part

XCT_CLASSES = ("air", "matrix", "pore", "inclusion")


@dataclass(frozen=True)
class XctConfig:
    """Settings of `simulate_xct`.

    Attributes
    ----------
    shape : (int, int, int)
        Slices, height and width in voxels; height equals width.
    voxel_size : float
        Edge length of a voxel in µm.
    outline : {"cylinder", "rectangular"}
        Cross-section of the part.
    fill : float
        Diameter of the circle around the cross-section over the width of the field, 0–0.95.
    pore_fraction, inclusion_fraction : float
        Wanted share of the part's volume.
    pore_diameter, inclusion_diameter : float
        Median diameter by number in µm.
    pore_spread, inclusion_spread : float
        Standard deviation of the natural logarithm of the diameter.
    flat_pores : float
        Share of flat, ragged pores (lack of fusion) among the pores, 0–1.
    n_angles : int
        Projections over 180°.
    detector : Detector
        Dose and errors.
    """

    shape: tuple[int, int, int] = (64, 256, 256)
    voxel_size: float = 8.0
    outline: str = "cylinder"
    fill: float = 0.86
    pore_fraction: float = 0.02
    pore_diameter: float = 44.0
    pore_spread: float = 0.45
    flat_pores: float = 0.15
    inclusion_fraction: float = 0.0015
    inclusion_diameter: float = 42.0
    inclusion_spread: float = 0.4
    n_angles: int = 300
    detector: Detector = field(default_factory=Detector)

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or self.shape[1] != self.shape[2] or self.shape[1] < 32:
            raise InvalidSettingError(
                f"shape must be (slices, n, n) with n of at least 32, got {self.shape}"
            )
        if self.shape[0] < 1:
            raise InvalidSettingError(f"expected at least one slice, got {self.shape[0]}")
        if self.outline not in ("cylinder", "rectangular"):
            raise InvalidSettingError(
                f"outline must be 'cylinder' or 'rectangular', got {self.outline!r}"
            )
        for name, low, high in (
            ("voxel_size", 1e-4, 1e4),
            ("fill", 0.1, 0.95),
            ("pore_fraction", 0.0, 0.3),
            ("inclusion_fraction", 0.0, 0.1),
            ("pore_diameter", self.voxel_size, 1e5),
            ("inclusion_diameter", self.voxel_size, 1e5),
            ("pore_spread", 0.0, 1.5),
            ("inclusion_spread", 0.0, 1.5),
            ("flat_pores", 0.0, 1.0),
            ("n_angles", 8, 10_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidSettingError(f"{name} must lie in {low}–{high}, got {value}")
        if self.detector.photons <= 0:
            raise InvalidSettingError(f"photons must be positive, got {self.detector.photons}")


def simulate_xct(
    config: XctConfig | None = None,
    seed: int = 0,
    *,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> Micrograph:
    """Simulate the reconstructed slices of a titanium part with pores and steel inclusions.

    The part is projected, a polychromatic beam is counted with noise, scatter and gain
    errors, and the slices are reconstructed by filtered back-projection: cupping from beam
    hardening, rings and streaks arise as they do in a scanner.

    Parameters
    ----------
    config : XctConfig, optional
        Settings; the defaults when left out.
    seed : int
        Seed of everything random; the same seed gives the same stack.
    progress : callable, optional
        Called as ``progress(done, total)``.
    should_stop : callable, optional
        Asked for each projection; the work ends when it returns True.

    Returns
    -------
    Micrograph
        uint8 stack of shape (z, h, w). `classes` has 0 air, 1 matrix, 2 pore, 3 inclusion;
        `labels` numbers the pores first, then the inclusions.

    Raises
    ------
    InvalidSettingError
        If a setting is out of range.
    CancelledError
        If `should_stop` says so.
    """
    config = config or XctConfig()
    rng = np.random.default_rng(seed)
    phantom = _phantom(rng, config)
    angles = np.linspace(0.0, 180.0, config.n_angles, endpoint=False)
    steps = 2 * config.n_angles

    def second_half(done: int, _: int) -> None:
        if progress is not None:
            progress(config.n_angles + done, steps)

    def first_half(done: int, _: int) -> None:
        if progress is not None:
            progress(done, steps)

    solid = phantom.part - phantom.pore - phantom.inclusion
    both = np.concatenate([solid, phantom.inclusion]) * np.float32(config.voxel_size / 1000.0)
    matrix_path, inclusion_path = np.split(
        project(both, angles, first_half, should_stop), 2, axis=2
    )
    spectrum = titanium_with_steel()
    sinogram = measure_attenuation(rng, matrix_path, inclusion_path, spectrum, config.detector)
    slices = reconstruct(sinogram, angles, second_half, should_stop)
    classes = phantom.classes
    labels = number_objects(phantom.owner)
    return Micrograph(
        image=_to_grey(slices, classes),
        labels=labels,
        classes=classes,
        pixel_size=PixelSize(config.voxel_size, config.voxel_size, "um"),
        class_names=XCT_CLASSES,
        z_size=config.voxel_size,
        name="xct_pores",
        metadata=_facts(config, seed, phantom, classes),
    )


def _phantom(rng: np.random.Generator, config: XctConfig) -> Phantom:
    part = make_part(rng, config.shape, config.outline, config.fill)
    pores = DefectSizes(
        config.pore_fraction,
        config.pore_diameter / config.voxel_size,
        config.pore_spread,
        config.flat_pores,
    )
    inclusions = DefectSizes(
        config.inclusion_fraction,
        config.inclusion_diameter / config.voxel_size,
        config.inclusion_spread,
    )
    return fill_with_defects(rng, part, pores, inclusions)


def _to_grey(slices: NDArray[np.float32], classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale so that air is dark grey, the matrix light grey and inclusions are white."""
    inside = classes == 1
    level = float(slices[inside].mean()) if inside.any() else 1.0
    grey = 38.0 + slices * np.float32(104.0 / level)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _facts(
    config: XctConfig, seed: int, phantom: Phantom, classes: NDArray[np.uint8]
) -> dict[str, Any]:
    counts = np.bincount(classes.ravel(), minlength=len(XCT_CLASSES))
    in_part = int(counts[1:].sum())
    return {
        "made_by": "phasesam.simulation.simulate_xct",
        "seed": seed,
        "config": asdict(config),
        "n_pores": phantom.n_pores,
        "n_inclusions": phantom.n_inclusions,
        "porosity": float(counts[2] / max(1, in_part)),
        "inclusion_fraction": float(counts[3] / max(1, in_part)),
    }

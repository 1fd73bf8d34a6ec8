"""File > Open Sample > PhaseSAM: simulated micrographs with exact ground truth."""

from __future__ import annotations

from typing import Any

from phasesam.simulation.micrograph import Micrograph
from phasesam.simulation.samples import load_sample

LayerData = tuple[Any, dict[str, Any], str]

_AXES = ("z", "y", "x")


def particles() -> list[LayerData]:
    """Open the SEM image of metal powder."""
    return as_layers(load_sample("particles_sem"), "SEM particles")


def steel() -> list[LayerData]:
    """Open the light micrograph of three-phase steel."""
    return as_layers(load_sample("three_phase_steel"), "Three-phase steel")


def xct() -> list[LayerData]:
    """Open the X-ray CT stack with pores and inclusions."""
    return as_layers(load_sample("xct_pores"), "XCT with pores")


def as_layers(sample: Micrograph, title: str) -> list[LayerData]:
    """Turn a sample into an Image layer and a hidden Labels layer with the ground truth.

    Parameters
    ----------
    sample : Micrograph
        Image, labels and pixel size.
    title : str
        Name of the image layer.

    Returns
    -------
    list of (array, dict, str)
        Layer data, ground truth first so that the image is the active layer.
    """
    size = sample.pixel_size
    ndim = sample.labels.ndim
    z_size = size.x if sample.z_size is None else sample.z_size
    geometry = {
        "scale": (z_size, size.y, size.x)[-ndim:],
        "units": (size.unit,) * ndim,
        "axis_labels": _AXES[-ndim:],
    }
    truth = {"name": f"{title} (ground truth)", "visible": False, **geometry}
    image = {
        "name": title,
        "rgb": sample.image.ndim > ndim,
        "metadata": {"micrograph": dict(sample.metadata)},
        **geometry,
    }
    return [(sample.labels, truth, "labels"), (sample.image, image, "image")]

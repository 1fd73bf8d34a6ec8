"""Pixel sizes in TIFF files that do not come from a microscope vendor."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass

import tifffile

from phasesam.formats.lengths import to_micrometres

_COARSEST_PRINT = 10.0
"""µm; resolution tags above say how large to print (2540 dpi and less), not what was seen."""


@dataclass(frozen=True)
class Calibration:
    """Sizes in µm with their origin.

    Attributes
    ----------
    pixel_size_um : (float, float)
        Height and width of a pixel.
    z_size_um : float or None
        Distance of the planes.
    source : str
        Where this was written.
    """

    pixel_size_um: tuple[float, float]
    z_size_um: float | None
    source: str


def calibration(tif: tifffile.TiffFile) -> Calibration | None:
    """Read the pixel size from OME or ImageJ metadata."""
    return _from_ome(tif) or _from_imagej(tif)


def plain_calibration(tif: tifffile.TiffFile) -> Calibration | None:
    """Read the pixel size from resolution tags, if it can be no print resolution."""
    page = tif.pages.first
    units = {2: "inch", 3: "cm"}
    unit = units.get(int(page.tags.valueof(296, 2)))
    x, y = _pixel(page, 282, unit), _pixel(page, 283, unit)
    return plausible_calibration(y, x, "resolution tags")


def plausible_calibration(
    height: float | None, width: float | None, source: str
) -> Calibration | None:
    """Take sizes in µm from a print resolution, unless they are ones to print with."""
    if height is None or width is None or max(height, width) >= _COARSEST_PRINT:
        return None
    return Calibration((height, width), None, source)


def _from_ome(tif: tifffile.TiffFile) -> Calibration | None:
    text = tif.ome_metadata
    if not text:
        return None
    try:
        root = ET.fromstring(text)
    except ET.ParseError:
        return None
    pixels = next((el for el in root.iter() if el.tag.rsplit("}", 1)[-1] == "Pixels"), None)
    if pixels is None:
        return None
    sizes = {
        axis: to_micrometres(
            pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        )
        for axis in "XYZ"
    }
    x = sizes["X"] or sizes["Y"]
    y = sizes["Y"] or sizes["X"]
    if x is None or y is None:
        return None
    return Calibration((y, x), sizes["Z"], "OME metadata")


def _from_imagej(tif: tifffile.TiffFile) -> Calibration | None:
    entries = tif.imagej_metadata
    if not entries:
        return None
    unit = str(entries.get("unit", ""))
    x, y = _pixel(tif.pages.first, 282, unit), _pixel(tif.pages.first, 283, unit)
    if x is None or y is None:
        return None
    return Calibration((y, x), to_micrometres(entries.get("spacing"), unit), "ImageJ metadata")


def _pixel(page: tifffile.TiffPage, code: int, unit: str | None) -> float | None:
    """Length of a pixel in µm from a tag that says pixels per unit."""
    value = page.tags.valueof(code)
    if unit is None or not isinstance(value, tuple) or len(value) != 2 or 0 in value:
        return None
    return to_micrometres(value[1] / value[0], unit)

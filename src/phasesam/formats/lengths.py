"""Lengths with units, as they are written in microscope metadata."""

from __future__ import annotations

import math
import re

_MICROMETRES: dict[str, float] = {
    "m": 1e6,
    "meter": 1e6,
    "metre": 1e6,
    "cm": 1e4,
    "centimeter": 1e4,
    "inch": 25_400.0,
    "in": 25_400.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "millimetre": 1e3,
    "um": 1.0,
    "µm": 1.0,  # micro sign
    "μm": 1.0,  # Greek mu
    "\\u00b5m": 1.0,  # as ImageJ spells it
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "nanometre": 1e-3,
    "å": 1e-4,
    "angstrom": 1e-4,
    "a": 1e-4,
    "pm": 1e-6,
}
_LENGTH = re.compile(r"\s*([-+]?[0-9.]+(?:e[-+]?\d+)?)\s*([^\s\d]*)", re.IGNORECASE)

_SMALLEST, _LARGEST = 1e-6, 1e5


def micrometres_per(unit: str) -> float | None:
    """Length of a unit in µm; None when the unit is not known."""
    return _MICROMETRES.get(unit.strip().strip("\0").lower())


def to_micrometres(value: object, unit: str) -> float | None:
    """Convert a length to µm.

    Parameters
    ----------
    value : number or str
        The length.
    unit : str
        Its unit.

    Returns
    -------
    float or None
        None when it is no number, the unit is unknown, or it cannot be the size of a
        pixel (not positive, or outside 1 pm to 10 cm).
    """
    factor = micrometres_per(unit)
    try:
        length = abs(float(value)) * factor  # type: ignore[arg-type, operator]
    except (TypeError, ValueError):
        return None
    return length if math.isfinite(length) and _SMALLEST <= length <= _LARGEST else None


def parse_length(text: str) -> float | None:
    """Read ``"12.3 nm"`` or ``"1um"`` as a length in µm; None when it is not one."""
    match = _LENGTH.match(text)
    return to_micrometres(match.group(1), match.group(2)) if match else None

"""Pictures of a segmentation: coloured objects, outlines and a scale bar on the image."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.core.types import PixelSize
from phasesam.formats.atomic import atomic_file
from phasesam.formats.lengths import micrometres_per

# Okabe and Ito, "Color universal design" (2008), without black.
PALETTE: NDArray[np.uint8] = np.array(
    [
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
    ],
    dtype=np.uint8,
)
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class OverlayConfig:
    """How an overlay looks.

    Attributes
    ----------
    contour : bool
        Whether objects are outlined.
    opacity : float
        Of the colour on the objects, 0–1.
    scale_bar : bool
        Whether there is a scale bar, if the pixel size is physical.
    """

    contour: bool = True
    opacity: float = 0.4
    scale_bar: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise InvalidSettingError(f"opacity lies between 0 and 1, got {self.opacity}")


def save_overlay_png(
    path: str | os.PathLike[str],
    rgb: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    pixel_size: PixelSize | None = None,
    config: OverlayConfig | None = None,
) -> None:
    """Write the image with its objects in colour.

    Parameters
    ----------
    path : path-like
        PNG file to write; replaced in one piece.
    rgb : (h, w, 3) uint8 array
        The image, as `phasesam.core.images.to_rgb8` makes it.
    labels : (h, w) integer array
        0 is background.
    pixel_size : PixelSize, optional
        For the scale bar.
    config : OverlayConfig, optional
        How it looks.

    Raises
    ------
    InvalidMaskError
        If image and labels do not fit together.
    SaveError
        If it cannot be written; an older file is then intact.
    """
    config, pixel_size = config or OverlayConfig(), pixel_size or PixelSize()
    picture = Image.fromarray(render_overlay(rgb, labels, config))
    if config.scale_bar and pixel_size.is_physical:
        draw_scale_bar(picture, pixel_size)
    with atomic_file(path) as file:
        picture.save(file, "PNG", compress_level=4)


def render_overlay(
    rgb: NDArray[np.uint8], labels: NDArray[np.integer[Any]], config: OverlayConfig
) -> NDArray[np.uint8]:
    """Colour the objects of an image.

    Parameters
    ----------
    rgb, labels, config
        As for `save_overlay_png`, which also writes a scale bar.

    Returns
    -------
    (h, w, 3) uint8 array
        A copy of the image with coloured objects.

    Raises
    ------
    InvalidMaskError
        If the image is no (h, w, 3) uint8 array, or the labels do not fit it.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise InvalidMaskError(f"expected an (h, w, 3) uint8 image, got {rgb.shape} {rgb.dtype}")
    if labels.shape != rgb.shape[:2] or labels.dtype.kind not in "iu":
        raise InvalidMaskError(
            f"expected integer labels of shape {rgb.shape[:2]}, got {labels.shape} {labels.dtype}"
        )
    out = rgb.copy()
    edge = max(1, round(max(labels.shape) / 1500))
    for start in range(0, len(labels), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        inside = labels[rows] > 0
        colours = PALETTE[(labels[rows][inside] - 1) % len(PALETTE)]
        blended = out[rows][inside] * (1 - config.opacity) + colours * config.opacity
        out[rows][inside] = (blended + 0.5).astype(np.uint8)
        if config.contour:
            border = _border(labels, start, min(start + _ROWS_AT_ONCE, len(labels)), edge)
            out[rows][border] = PALETTE[(labels[rows][border] - 1) % len(PALETTE)]
    return out


def _border(
    labels: NDArray[np.integer[Any]], start: int, stop: int, width: int
) -> NDArray[np.bool_]:
    """Pixels of objects within ``width`` of something else, for some rows."""
    top = max(0, start - width)
    part = labels[top : stop + width]
    differs = np.zeros(part.shape, dtype=np.bool_)
    for step in range(1, width + 1):
        vertical = part[step:] != part[:-step]
        differs[step:] |= vertical
        differs[:-step] |= vertical
        horizontal = part[:, step:] != part[:, :-step]
        differs[:, step:] |= horizontal
        differs[:, :-step] |= horizontal
    return (differs & (part > 0))[start - top : start - top + stop - start]


def draw_scale_bar(picture: Image.Image, pixel_size: PixelSize) -> None:
    """Draw a scale bar of a round length at the lower right, in place.

    Parameters
    ----------
    picture : PIL image
        RGB image, changed in place. Images too small for a bar stay as they are.
    pixel_size : PixelSize
        Physical size of a pixel.

    Raises
    ------
    InvalidSettingError
        If the unit is unknown.
    """
    factor = micrometres_per(pixel_size.unit)
    if factor is None or not 0 < pixel_size.x < math.inf:
        raise InvalidSettingError(f"expected a positive length in a known unit, got {pixel_size}")
    width, height = picture.size
    text_size = max(10, round(min(width, height) / 34))
    if width < 12 * text_size or height < 4 * text_size:
        return
    length, text = round_length(0.2 * width * pixel_size.x * factor)
    bar = max(1, round(length / (pixel_size.x * factor)))
    thickness, margin = max(2, text_size // 5), text_size // 2
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=text_size)
    panel = max(bar, _text(draw, None, text, font)) + 2 * margin
    left, top = width - panel - margin, height - 2 * text_size - 2 * margin
    draw.rectangle((left, top, width - margin, height - margin), fill=(0, 0, 0))
    x = left + (panel - bar) // 2
    y = height - 2 * margin - thickness
    draw.rectangle((x, y, x + bar - 1, y + thickness - 1), fill=(255, 255, 255))
    start = left + (panel - _text(draw, None, text, font)) // 2
    _text(draw, (start, top + margin // 2), text, font)


def round_length(longest: float) -> tuple[float, str]:
    """Largest of 1, 2, 5, 10, 20 … below a length in µm, and how to write it.

    Parameters
    ----------
    longest : float
        Upper bound in µm.

    Returns
    -------
    float
        Length in µm.
    str
        The same with its unit, such as ``"500 nm"``.
    """
    decade = 10 ** math.floor(math.log10(longest))
    length = max(step * decade for step in (1, 2, 5) if step * decade <= longest * 1.000001)
    for unit, size in (("mm", 1e3), ("µm", 1.0), ("nm", 1e-3)):
        if length >= 0.999 * size:
            return length, f"{length / size:g} {unit}"
    return length, f"{length * 1e3:g} nm"


def _text(
    draw: ImageDraw.ImageDraw,
    position: tuple[int, int] | None,
    text: str,
    font: Any,
) -> int:
    """Draw text and return its width; at no position, only measure.

    The font that comes with Pillow has no µ, so that a u gets a tail.
    """
    plain = text.replace("µ", "u")
    if position is not None:
        draw.text(position, plain, fill=(255, 255, 255), font=font)
        if "µ" in text:
            before = plain[: text.index("µ")]
            x0, _, _, y1 = font.getbbox("u")
            x = position[0] + font.getlength(before) + x0
            stroke = max(1, round(font.size / 10))
            y = position[1] + y1
            tail = (x, y - font.size * 0.4, x + stroke - 1, y + font.size * 0.18)
            draw.rectangle(tail, fill=(255, 255, 255))
    return math.ceil(font.getlength(plain))

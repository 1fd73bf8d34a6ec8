"""Line plots as SVG: small, sharp, without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from phasesam.formats.overlay import PALETTE

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 44
_MOST_TICKS = 6
# Of the palette: blue, vermilion, green, orange, purple; dashes tell them apart in grey, too.
_STYLES = ((4, ""), (5, "6 3"), (2, "2 2"), (0, "8 3 2 3"), (6, "1 3"))


@dataclass(frozen=True, eq=False)
class Curve:
    """A line.

    Attributes
    ----------
    x, y : (n,) float array
        Its points; NaN in y breaks it.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]


def draw_curves(
    curves: Mapping[str, Curve], x_label: str, y_label: str, y_range: tuple[float, float] | None
) -> str:
    """Draw lines with a legend.

    Parameters
    ----------
    curves : mapping of str to Curve
        At most five lines by name.
    x_label, y_label : str
        What the axes mean, with units.
    y_range : (float, float), optional
        Limits of the vertical axis; those of the lines when left out.

    Returns
    -------
    str
        An ``<svg>`` element.
    """
    x_low, x_high = _limits([c.x for c in curves.values()])
    y_low, y_high = y_range or _limits([c.y for c in curves.values()])
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (x - x_low) / (x_high - x_low) * width,
            _TOP + (1 - (y - y_low) / (y_high - y_low)) * height,
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="12" role="img">'
    ]
    for tick in _ticks(y_low, y_high):
        x, y = place(x_low, tick)
        parts.append(f'<path d="M{x:.1f} {y:.1f}h{width}" stroke="#ddd" fill="none"/>')
        parts.append(_text(x - 6, y + 4, f"{tick:g}", "end"))
    for tick in _ticks(x_low, x_high):
        x, y = place(tick, y_low)
        parts.append(f'<path d="M{x:.1f} {y:.1f}v4" stroke="#444" fill="none"/>')
        parts.append(_text(x, y + 17, f"{tick:g}", "middle"))
    parts.append(
        f'<path d="M{_LEFT} {_TOP}v{height}h{width}" stroke="#444" fill="none" stroke-width="1"/>'
    )
    parts.append(_text(_LEFT + width / 2, _HEIGHT - 8, x_label, "middle"))
    middle = _TOP + height / 2
    parts.append(
        f'<text x="14" y="{middle:.1f}" text-anchor="middle" fill="#222" '
        f'transform="rotate(-90 14 {middle:.1f})">{escape(y_label)}</text>'
    )
    for (name, curve), (colour, dashes) in zip(curves.items(), _STYLES, strict=False):
        points = [place(x, y) for x, y in zip(curve.x, curve.y, strict=True)]
        parts.append(_line(points, colour, dashes))
        row = list(curves).index(name)
        x, y = _LEFT + width - 118, _TOP + height - 12 - 17 * (len(curves) - 1 - row)
        parts.append(_line([(x, y - 4), (x + 26, y - 4)], colour, dashes))
        parts.append(_text(x + 32, y, name, "start"))
    return "".join([*parts, "</svg>"])


def _line(points: Sequence[tuple[float, float]], colour: int, dashes: str) -> str:
    path, pen = [], "M"
    for x, y in points:
        if np.isnan(y):
            pen = "M"
            continue
        path.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    red, green, blue = PALETTE[colour]
    style = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<path d="{"".join(path)}" fill="none" stroke="rgb({red},{green},{blue})" '
        f'stroke-width="2"{style}/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#222">{escape(text)}</text>'


def _limits(values: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Smallest and largest value, a little apart if they are equal or absent."""
    flat = np.concatenate([np.asarray(v, np.float64).reshape(-1) for v in values] or [np.zeros(0)])
    flat = flat[np.isfinite(flat)]
    if len(flat) == 0:
        return 0.0, 1.0
    low, high = float(flat.min()), float(flat.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within limits: steps of 1, 2 or 5 times a power of ten."""
    span = (high - low) / _MOST_TICKS
    decade = 10 ** np.floor(np.log10(span))
    step = float(next(s * decade for s in (1, 2, 5, 10) if s * decade >= span * 0.999999))
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return [round(i * step, 10) for i in range(first, last + 1)]

"""The contact sheet: all layers of an encoder on one page, as pixels or as SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from phasesam.core.errors import InvalidSettingError
from phasesam.engines.features import LayerView
from phasesam.formats.atomic import atomic_file
from phasesam.formats.overlay import PALETTE

FORMATS = (".png", ".svg")

_CELL = 168
_GAP = 8
_MARGIN = 16
_SIDE = 26
_HEADING = 22
_BELOW = 16
_FONT = 13
_MARK = 12
_SMALL = 11
_INK, _FAINT = (34, 34, 34), (110, 110, 110)
_MOST_PER_ROW = 9


@dataclass(frozen=True)
class SheetTexts:
    """What is written on a sheet.

    Attributes
    ----------
    models : tuple of str
        Name of each model, beside its row.
    columns : int
        Pictures in a row; more go to further rows.
    """

    models: tuple[str, ...]
    columns: int = _MOST_PER_ROW


@dataclass(frozen=True, eq=False)
class Target:
    """Labels of the picture, in colours.

    Attributes
    ----------
    rgb : (H, W, 3) uint8 array
        White where nothing is known.
    legend : tuple of (str, (int, int, int))
        Name and colour of each class.
    """

    rgb: NDArray[np.uint8]
    legend: tuple[tuple[str, tuple[int, int, int]], ...]

    @classmethod
    def of(cls, labels: NDArray[np.integer], names: Sequence[str]) -> Self:
        """Colour classes (H, W), from 0, negative where unknown; only those there are."""
        rgb = PALETTE[labels % len(PALETTE)]
        rgb[labels < 0] = 255
        present = [k for k in np.unique(labels).tolist() if 0 <= k < len(names)]
        legend = [(names[k], tuple(PALETTE[k % len(PALETTE)].tolist())) for k in present]
        return cls(rgb, tuple(legend))


@dataclass(frozen=True)
class _Mark:
    """A square of one colour, before the name of a class."""

    x: int
    y: int
    colour: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class _Cell:
    x: int
    y: int
    rgb: NDArray[np.uint8]
    is_tokens: bool


@dataclass(frozen=True)
class _Caption:
    """Text centred at a place; turned by a quarter to the left if it is upright."""

    x: int
    y: int
    text: str
    size: int = _FONT
    faint: bool = False
    upright: bool = False


@dataclass(frozen=True, eq=False)
class ContactSheet:
    """Where everything is on a sheet.

    Attributes
    ----------
    width, height : int
        Of the sheet in pixels.
    cell : (int, int)
        Width and height of a picture on it.
    cells, captions, marks : tuple
        What is on it.
    """

    width: int
    height: int
    cell: tuple[int, int]
    cells: tuple[_Cell, ...]
    captions: tuple[_Caption, ...]
    marks: tuple[_Mark, ...] = ()

    def to_rgb(self) -> NDArray[np.uint8]:
        """Draw it, (height, width, 3), white where there is nothing."""
        page = Image.new("RGB", (self.width, self.height), "white")
        for cell in self.cells:
            page.paste(_scaled(cell, self.cell), (cell.x, cell.y))
        draw = ImageDraw.Draw(page)
        for mark in self.marks:
            end = mark.x + _MARK - 1, mark.y + _MARK - 1
            draw.rectangle((mark.x, mark.y, *end), fill=mark.colour)
        for caption in self.captions:
            colour, font = _FAINT if caption.faint else _INK, ImageFont.load_default(caption.size)
            if not caption.upright:
                draw.text((caption.x, caption.y), caption.text, colour, font, "mm")
                continue
            left, top, right, bottom = font.getbbox(caption.text)
            size = int(right - left) + 4, int(bottom - top) + 4
            strip = Image.new("RGB", size, "white")
            ImageDraw.Draw(strip).text((2 - left, 2 - top), caption.text, colour, font)
            turned = strip.rotate(90, expand=True)
            page.paste(turned, (caption.x - turned.width // 2, caption.y - turned.height // 2))
        return np.asarray(page)

    def to_svg(self) -> str:
        """Write it as SVG: sharp text, and each picture in its own pixels."""
        width, height = self.cell
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" font-family="sans-serif">'
            f'<rect width="{self.width}" height="{self.height}" fill="white"/>'
        ]
        for cell in self.cells:
            rgb = cell.rgb if cell.is_tokens else np.asarray(_scaled(cell, (2 * width, 2 * height)))
            style = ' style="image-rendering:pixelated"' if cell.is_tokens else ""
            parts.append(
                f'<image x="{cell.x}" y="{cell.y}" width="{width}" height="{height}"{style} '
                f'preserveAspectRatio="none" href="data:image/png;base64,{_png(rgb)}"/>'
            )
        for mark in self.marks:
            parts.append(
                f'<rect x="{mark.x}" y="{mark.y}" width="{_MARK}" height="{_MARK}" '
                f'fill="rgb{mark.colour}"/>'
            )
        for c in self.captions:
            red, green, blue = _FAINT if c.faint else _INK
            turn = f' transform="rotate(-90 {c.x} {c.y})"' if c.upright else ""
            parts.append(
                f'<text x="{c.x}" y="{c.y}" font-size="{c.size}" text-anchor="middle" '
                f'dominant-baseline="central" fill="rgb({red},{green},{blue})"{turn}>'
                f"{escape(c.text)}</text>"
            )
        return "".join([*parts, "</svg>\n"])

    def save(self, path: Path) -> None:
        """Write it; the ending says as what.

        Raises
        ------
        InvalidSettingError
            If the ending is none of `FORMATS`.
        SaveError
            If the file cannot be written.
        """
        if path.suffix.lower() not in FORMATS:
            raise InvalidSettingError(
                f"expected a file that ends in {' or '.join(FORMATS)}, got {path.name}"
            )
        if path.suffix.lower() == ".svg":
            content = self.to_svg().encode()
        else:
            buffer = io.BytesIO()
            Image.fromarray(self.to_rgb()).save(buffer, "PNG", optimize=True)
            content = buffer.getvalue()
        with atomic_file(path) as file:
            file.write(content)


def contact_sheet(
    views: Sequence[LayerView],
    image: NDArray[np.uint8] | None,
    texts: SheetTexts,
    *,
    target: Target | None = None,
    index: int = 0,
) -> ContactSheet:
    """Arrange the layers of one picture: the first model above the second.

    Parameters
    ----------
    views : sequence of LayerView
        From `phasesam.engines.features.compare_layers`.
    image : (H, W, 3) uint8 array or None
        The picture, without its data bar; None leaves it out.
    texts : SheetTexts
        What is written beside.
    target : Target, optional
        Its labels; the names of their colours are below.
    index : int
        Which of the pictures.

    Returns
    -------
    ContactSheet
    """
    shape = (views[-1].pictures[0][index] if image is None else image).shape
    scale = _CELL / max(shape[:2])
    cell = max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))
    first = [
        *([] if image is None else [("input", image)]),
        *([("target", target.rgb)] if target is not None else []),
    ]
    columns = min(texts.columns, len(first) + len(views))
    n_models = len(views[0].pictures)
    step = cell[0] + _GAP, cell[1] + _GAP + _BELOW
    cells: list[_Cell] = []
    captions: list[_Caption] = []
    y = _MARGIN
    places: list[tuple[str, NDArray[np.uint8]] | LayerView] = [*first, *views]
    for row in (places[i : i + columns] for i in range(0, len(places), columns)):
        for column, item in enumerate(row):
            place = _MARGIN + _SIDE + column * step[0], y
            title = item.name if isinstance(item, LayerView) else item[0]
            captions.append(_Caption(place[0] + cell[0] // 2, y + _HEADING // 2, title))
            if isinstance(item, LayerView):
                below = _column(item, index, place, cell)
                cells += below[0]
                captions += below[1]
            else:
                cells.append(_Cell(place[0], y + _HEADING, item[1], False))
        for model, name in enumerate(texts.models):
            middle = y + _HEADING + model * step[1] + cell[1] // 2
            captions.append(
                _Caption(_MARGIN + _SIDE // 2 - 4, middle, _fitted(name, cell[1]), upright=True)
            )
        y += _HEADING + n_models * step[1] + _GAP
    width = 2 * _MARGIN + _SIDE + columns * step[0] - _GAP
    marks, names, y = _legend(() if target is None else target.legend, y, width - _MARGIN)
    height = y - _GAP + _MARGIN
    return ContactSheet(width, height, cell, tuple(cells), (*captions, *names), marks)


def _column(
    view: LayerView, index: int, place: tuple[int, int], cell: tuple[int, int]
) -> tuple[list[_Cell], list[_Caption]]:
    """Place what each model makes of a layer, one below the other."""
    x, y = place
    cells, captions = [], []
    for model, pictures in enumerate(view.pictures):
        top = y + _HEADING + model * (cell[1] + _GAP + _BELOW)
        cells.append(_Cell(x, top, pictures[index], True))
        words = _words(view, model)
        if words:
            below = x + cell[0] // 2, top + cell[1] + _BELOW // 2
            captions.append(_Caption(*below, words, _SMALL, faint=True))
    return cells, captions


def _legend(
    legend: Sequence[tuple[str, tuple[int, int, int]]], y: int, right: int
) -> tuple[tuple[_Mark, ...], tuple[_Caption, ...], int]:
    """Place marks and names in lines from a height on; also where that ends."""
    font = ImageFont.load_default(_FONT)
    x = left = _MARGIN + _SIDE
    marks, names = [], []
    for name, colour in legend:
        length = round(font.getlength(name))
        if x > left and x + 2 * _MARK + length > right:
            x, y = left, y + _HEADING
        marks.append(_Mark(x, y + (_HEADING - _MARK) // 2, colour))
        names.append(_Caption(x + _MARK + _GAP + length // 2, y + _HEADING // 2, name))
        x += 2 * _MARK + _GAP + length + _GAP
    return tuple(marks), tuple(names), y + (_HEADING if legend else 0)


def _words(view: LayerView, model: int) -> str:
    """Say how well a linear probe tells the classes in a layer, if that is known."""
    means = view.figures.probe_means
    return f"probe {means[model]:.2f}" if means else ""


def _fitted(text: str, length: int) -> str:
    """Shorten a text to about a length in pixels."""
    most = max(3, int(length / (0.55 * _FONT)))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _scaled(cell: _Cell, size: tuple[int, int]) -> Image.Image:
    kind = Image.Resampling.NEAREST if cell.is_tokens else Image.Resampling.LANCZOS
    return Image.fromarray(np.ascontiguousarray(cell.rgb)).resize(size, kind)


def _png(rgb: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")

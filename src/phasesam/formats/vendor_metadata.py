"""Pixel sizes and data bars from what electron microscopes write into or beside their images.

One small parser per vendor; the tables at the end list them. Parsers return None when
the metadata is not theirs, and leave out what they cannot make sense of.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tifffile

from phasesam.formats.lengths import parse_length, to_micrometres

_FEI_XML = 34683
_TESCAN = 50431
_LARGEST_SIDECAR = 1_000_000
_TALLEST_WITH_BAR = 1.25


@dataclass(frozen=True)
class VendorMetadata:
    """What a vendor says about an image.

    Attributes
    ----------
    vendor : str
        Name for people to read.
    pixel_size_um : (float, float) or None
        Height and width of a pixel in µm.
    image_shape : (int, int) or None
        Height and width in pixels of the image that was recorded, if they are named.
    data_bar_height : int or None
        Height of the data bar in pixels, if it is named; 0 where there is none.
    fields : mapping of str to str
        All entries, as they were written.
    """

    vendor: str
    pixel_size_um: tuple[float, float] | None = None
    image_shape: tuple[int, int] | None = None
    data_bar_height: int | None = None
    fields: Mapping[str, str] = field(default_factory=dict)

    def fit_to(self, height: int, width: int) -> tuple[tuple[float, float] | None, int | None]:
        """Apply what was recorded to the image that is there now.

        Parameters
        ----------
        height, width : int
            Shape of the image in the file.

        Returns
        -------
        (float, float) or None
            Height and width of a pixel in µm. Images that were scaled after recording
            have other pixels; for images of other proportions there is none.
        int or None
            First row of the data bar. Where shape and height of the bar are both recorded,
            it is named only if the image is as tall as the two together.
        """
        factor, rows = 1.0, None
        if self.image_shape is not None:
            factor = self.image_shape[1] / width
            rows = round(self.image_shape[0] / factor)
            if factor != 1.0 and not 0.98 < height / rows < _TALLEST_WITH_BAR:
                return None, None
        if self.data_bar_height is not None:
            bar = round(self.data_bar_height / factor)
            if rows is None:
                rows = height - bar
            elif abs(height - rows - bar) > (factor != 1.0):
                # The bar was not stored, or cut off, or rows are missing: nothing is certain.
                rows = None
        if rows is not None and not height / 2 < rows < height:
            rows = None
        if self.pixel_size_um is None:
            return None, rows
        return (self.pixel_size_um[0] * factor, self.pixel_size_um[1] * factor), rows


def embedded_metadata(tif: tifffile.TiffFile) -> VendorMetadata | None:
    """Read what the vendor wrote into a TIFF file."""
    for parser in _EMBEDDED:
        found = parser(tif)
        if found is not None:
            return found
    return None


def sidecar_metadata(path: Path) -> VendorMetadata | None:
    """Read what the vendor wrote into a text file beside the image ``path``."""
    for pattern, parser in _SIDECARS:
        sidecar = path.with_name(
            pattern.format(stem=path.stem, name=path.name, suffix=path.suffix[1:])
        )
        text = _read_text(sidecar)
        found = parser(text) if text else None
        if found is not None:
            return found
    return None


# --- written into the TIFF -------------------------------------------------------------------


def _thermo(tif: tifffile.TiffFile) -> VendorMetadata | None:
    """FEI and Thermo Fisher: sections of ``key=value``, lengths in metres."""
    sections = tif.fei_metadata
    if not sections:
        return None
    entries = {
        f"{section}.{key}": value
        for section, values in sections.items()
        if isinstance(values, dict)
        for key, value in values.items()
    }
    return VendorMetadata(
        "FEI / Thermo Fisher",
        _pair(_last(entries, "PixelHeight"), _last(entries, "PixelWidth"), "m"),
        image_shape=_counts(entries.get("Image.ResolutionY"), entries.get("Image.ResolutionX")),
        data_bar_height=_count(_last(entries, "DatabarHeight"), least=0),
        fields=_texts(entries),
    )


def _thermo_xml(tif: tifffile.TiffFile) -> VendorMetadata | None:
    """Phenom and newer Thermo Fisher instruments: XML, each length with its unit."""
    text = _tag_text(tif, _FEI_XML)
    try:
        root = ET.fromstring(text[text.index("<") :].rstrip("\0 \r\n"))
    except (ET.ParseError, ValueError):
        return None
    leaves = {el.tag.rsplit("}", 1)[-1]: el for el in root.iter() if el.text and el.text.strip()}
    size = root.find(".//PixelSize")
    width = leaves.get("pixelWidth") if size is None else size.find("X")
    height = leaves.get("pixelHeight") if size is None else size.find("Y")
    pair = None
    if width is not None and height is not None:
        pair = _pair(height.text, width.text, str(width.get("unit", "m")))
    entries = {name: (el.text or "").strip() for name, el in leaves.items()}
    return VendorMetadata(
        "Thermo Fisher",
        pair,
        data_bar_height=_count(entries.get("databarHeight"), least=0),
        fields=entries,
    )


def _zeiss(tif: tifffile.TiffFile) -> VendorMetadata | None:
    """Zeiss SmartSEM: parameter name, label, value and unit."""
    entries = tif.sem_metadata
    if not entries:
        return None
    fields = {
        f"{key} {value[0]}": " ".join(str(part) for part in value[1:])
        for key, value in entries.items()
        if key and isinstance(value, tuple) and value
    }
    size = None
    stated = entries.get("ap_image_pixel_size")
    if stated:
        length = parse_length(" ".join(str(part) for part in stated[1:]))
        size = None if length is None else (length, length)
    store = entries.get("dp_image_store") or entries.get("ap_image_store") or ()
    shape = _shape(" ".join(str(part) for part in store[1:]))
    unnamed = entries.get("", ())
    if size is None and len(unnamed) > 3:
        # Old files state the size in metres for an image 1024 pixels wide.
        metres, width = unnamed[3], shape[1] if shape else tif.pages.first.imagewidth
        if isinstance(metres, float) and width:
            size = _pair(metres * 1024 / width, metres * 1024 / width, "m")
    return VendorMetadata("Zeiss SmartSEM", size, image_shape=shape, fields=fields)


def _tescan_tag(tif: tifffile.TiffFile) -> VendorMetadata | None:
    """TESCAN: blocks of ``key=value`` between binary ones."""
    return _tescan(_tag_text(tif, _TESCAN))


# --- written beside the image ----------------------------------------------------------------


def _tescan(text: str) -> VendorMetadata | None:
    """TESCAN: ``key=value``, lengths in metres."""
    entries = _entries(text, r"^[\W\d_]*([A-Za-z]\w*)\s*=\s*(.*?)\s*$")
    if "PixelSizeX" not in entries:
        return None
    return VendorMetadata(
        "TESCAN",
        _pair(entries.get("PixelSizeY", entries["PixelSizeX"]), entries["PixelSizeX"], "m"),
        data_bar_height=_count(entries.get("ImageStripSize")),
        fields=entries,
    )


def _jeol(text: str) -> VendorMetadata | None:
    """JEOL: ``$KEY value``; the scale bar in pixels and its length."""
    entries = _entries(text, r"^(\${1,2}\w+)[ \t]+(.*?)\s*$")
    if not any(key.startswith("$CM_") for key in entries):
        return None
    length = parse_length(entries.get("$$SM_MICRON_MARKER", ""))
    pixels = _count(entries.get("$$SM_MICRON_BAR"))
    size = None
    if length and pixels:
        size = _pair(length / pixels, length / pixels, "um")
    shape = _shape(entries.get("$CM_FULL_SIZE"))
    return VendorMetadata("JEOL", size, image_shape=shape, fields=entries)


def _hitachi(text: str) -> VendorMetadata | None:
    """Hitachi: ``Key=value`` below ``[SemImageFile]``, the pixel size in nanometres."""
    if "[SemImageFile]" not in text:
        return None
    entries = _entries(text, r"^(\w+)\s*=\s*(.*?)\s*$")
    size = _pair(entries.get("PixelSize"), entries.get("PixelSize"), "nm")
    return VendorMetadata(
        "Hitachi", size, image_shape=_shape(entries.get("DataSize")), fields=entries
    )


_EMBEDDED: tuple[Callable[[tifffile.TiffFile], VendorMetadata | None], ...] = (
    _thermo,
    _thermo_xml,
    _zeiss,
    _tescan_tag,
)
_SIDECARS: tuple[tuple[str, Callable[[str], VendorMetadata | None]], ...] = (
    ("{stem}.hdr", _tescan),
    ("{stem}-{suffix}.hdr", _tescan),
    ("{name}.hdr", _tescan),
    ("{stem}.txt", _jeol),
    ("{stem}.TXT", _jeol),
    ("{stem}.txt", _hitachi),
    ("{stem}.TXT", _hitachi),
)


# --- reading entries -------------------------------------------------------------------------


def _tag_text(tif: tifffile.TiffFile, code: int) -> str:
    value = tif.pages.first.tags.valueof(code)
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, tuple):
        # Some writers declare the text as numbers of one byte, signed or not.
        return bytes(int(number) & 0xFF for number in value).decode("latin-1")
    return value if isinstance(value, str) else ""


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_SIDECAR:
            return ""
        raw = path.read_bytes()
    except OSError:
        return ""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _entries(text: str, pattern: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in re.split(r"[\r\n\0]+", text):
        match = re.match(pattern, line)
        if match:
            found.setdefault(match.group(1), match.group(2))
    return found


def _last(entries: Mapping[str, Any], name: str) -> Any:
    """Entry of this name in whichever section has it."""
    return next((v for key, v in entries.items() if key.rsplit(".", 1)[-1] == name), None)


def _texts(entries: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in entries.items()}


def _pair(height: Any, width: Any, unit: str) -> tuple[float, float] | None:
    y, x = to_micrometres(height, unit), to_micrometres(width, unit)
    return None if y is None or x is None else (y, x)


def _count(value: Any, least: int = 1) -> int | None:
    try:
        number = int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number >= least else None


def _counts(height: Any, width: Any) -> tuple[int, int] | None:
    y, x = _count(height), _count(width)
    return None if y is None or x is None else (y, x)


def _shape(text: str | None) -> tuple[int, int] | None:
    """Read ``"1280x960"``, ``"1280 * 960"`` or ``"1280 960"`` as height and width."""
    numbers = [int(number) for number in re.findall(r"\d+", text or "")]
    return (numbers[1], numbers[0]) if len(numbers) == 2 and min(numbers) > 0 else None

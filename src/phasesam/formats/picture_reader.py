"""PNG, JPEG and BMP files, and numpy arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin

from phasesam.core.errors import FileFormatError
from phasesam.formats.lengths import to_micrometres
from phasesam.formats.micrograph_file import MicrographFile, calibrated
from phasesam.formats.tiff_calibration import plausible_calibration
from phasesam.formats.vendor_metadata import sidecar_metadata

# The classes themselves, not Image.open: that refuses images of 20 000 pixels a side.
_READERS: dict[str, type[Image.Image]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
_LARGEST = 4_000_000_000
_GREY_OR_COLOUR = ("L", "RGB", "RGBA", "I;16", "I", "F")


def read_picture(path: Path, name: str, kind: str) -> MicrographFile:
    """Read a PNG, JPEG or BMP file.

    Errors are those of Pillow; `read_image` turns them into one kind.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        What to call it.
    kind : {"PNG", "JPEG", "BMP"}
        What it is.
    """
    with path.open("rb") as file, _READERS[kind](file) as picture:  # type: ignore[call-arg]
        if picture.width * picture.height > _LARGEST:
            raise FileFormatError(f"{picture.width} × {picture.height} pixels are too many")
        dpi = picture.info.get("dpi")
        data = _deep_png(path) if kind == "PNG" else None
        if data is None:
            data = _pixels(picture)
    metadata: dict[str, Any] = {"format": kind}
    size, data_bar = None, None
    vendor = sidecar_metadata(path)
    if vendor is not None:
        size, data_bar = vendor.fit_to(data.shape[0], data.shape[1])
        metadata.update(vendor=vendor.vendor, fields=vendor.fields)
    if size is not None:
        metadata["pixel_size_source"] = metadata["vendor"]
    elif isinstance(dpi, tuple) and len(dpi) == 2 and min(dpi) > 0:
        x, y = (to_micrometres(1 / float(n), "inch") for n in dpi)
        printed = plausible_calibration(y, x, "resolution")
        if printed is not None:
            size = printed.pixel_size_um
            metadata["pixel_size_source"] = printed.source
    return MicrographFile(
        data=data,
        name=name,
        path=path,
        is_rgb=data.ndim == 3,
        pixel_size=calibrated(size),
        data_bar=data_bar,
        metadata=metadata,
    )


def picture_shape(path: Path, kind: str) -> tuple[int, int]:
    """Height and width of a PNG, JPEG or BMP file, from its header."""
    with path.open("rb") as file, _READERS[kind](file) as picture:  # type: ignore[call-arg]
        return picture.height, picture.width


def _pixels(picture: Image.Image) -> NDArray[Any]:
    """Decode, and bring rare modes to grey, RGB or RGBA."""
    picture.load()
    if picture.mode == "1":
        return np.array(picture.convert("L"))
    if picture.mode in ("LA", "La"):
        return np.array(picture.getchannel(0))
    if picture.mode == "P":
        rgb = np.array(picture.convert("RGB"))
        grey = rgb[..., 0]
        same = (grey == rgb[..., 1]).all() and (grey == rgb[..., 2]).all()
        return np.ascontiguousarray(grey) if same else rgb
    if picture.mode not in _GREY_OR_COLOUR:
        return np.array(picture.convert("RGB"))
    return np.array(picture)


def _deep_png(path: Path) -> NDArray[Any] | None:
    """Decode 16-bit colours, which Pillow would cut to 8 bits; None for other files."""
    with path.open("rb") as file:
        head = file.read(26)
        if len(head) < 26 or head[24] != 16 or head[25] not in (2, 6):
            return None
        raw = head + file.read()
    from imagecodecs import png_decode

    return np.array(png_decode(raw))


def read_npy(path: Path, name: str) -> MicrographFile:
    """Read a numpy array; stacks stay on disk. Pickled objects are refused.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        What to call it.
    """
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    if mapped.ndim < 2 or mapped.size == 0:
        raise FileFormatError(f"expected an image or a stack, got an array of {mapped.shape}")
    is_rgb = mapped.ndim >= 3 and mapped.shape[-1] in (3, 4)
    n_plane_axes = 3 if is_rgb else 2
    data: Any = np.array(mapped) if mapped.ndim == n_plane_axes else _lazy(mapped, n_plane_axes)
    return MicrographFile(data, name, path, is_rgb, metadata={"format": "NPY"})


def _lazy(mapped: NDArray[Any], n_plane_axes: int) -> Any:
    import dask.array as da

    planes = mapped.ndim - n_plane_axes
    return da.from_array(mapped, chunks=(*((1,) * planes), *mapped.shape[planes:]))

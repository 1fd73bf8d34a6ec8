"""Where the pixels of training images and labels come from; nothing is read before it is needed."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
import xxhash
from numpy.typing import NDArray
from PIL import BmpImagePlugin, PngImagePlugin

from phasesam.core.data_bar import detect_data_bar
from phasesam.core.errors import FileFormatError, InvalidImageError, TrainingDataError
from phasesam.core.mask_set import MaskSet
from phasesam.core.types import PixelSize
from phasesam.formats.micrograph_file import MicrographFile
from phasesam.formats.readers import read_image
from phasesam.formats.signatures import image_format
from phasesam.formats.tiff_reader import BROKEN
from phasesam.training.label_values import UNLABELLED

_MINISWHITE, _PALETTE = 0, 3
Plane = tuple[int, ...]


class ImageSource(Protocol):
    """One plane of intensities."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def load(self) -> tuple[NDArray[Any], PixelSize]:
        """Read the plane, (h, w) or (h, w, 3 or 4), and the size of its pixels."""


class LabelSource(Protocol):
    """One plane of labels, with the values they have in the file."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    def read(self) -> NDArray[Any]:
        """Read the plane, (h, w)."""


@dataclass(frozen=True)
class ImageFile:
    """A plane of an image file, or the whole of it when it is one plane.

    Attributes
    ----------
    path : Path
        File, or folder of slices.
    plane : tuple of int
        Position on the axes before the plane.
    """

    path: Path
    plane: Plane = ()

    @property
    def name(self) -> str:
        """Name of the file, with the plane in brackets."""
        return plane_name(self.path.name, self.plane)

    def load(self) -> tuple[NDArray[Any], PixelSize]:
        """Read the plane and the size of its pixels.

        Raises
        ------
        FileFormatError
            If the file cannot be read.
        """
        file = open_image(self.path) if self.plane else read_image(self.path)
        return file.plane(self.plane), file.pixel_size


@dataclass(frozen=True)
class LabelFile:
    """A plane of a label file; palettes are taken as numbers, not as colours.

    Attributes
    ----------
    path : Path
        File, or folder of slices.
    plane : tuple of int
        Position on the axes before the plane.
    """

    path: Path
    plane: Plane = ()

    @property
    def name(self) -> str:
        """Name of the file, with the plane in brackets."""
        return plane_name(self.path.name, self.plane)

    def read(self) -> NDArray[Any]:
        """Read the plane.

        Raises
        ------
        FileFormatError
            If the file cannot be read.
        TrainingDataError
            If it is a JPEG, whose compression changes labels.
        """
        kind = image_format(self.path)
        if kind == "JPEG":
            raise TrainingDataError(
                f"{self.path.name}: expected labels in a lossless format, got JPEG, which changes "
                "values along edges; save the labels as PNG or TIFF"
            )
        indices = _palette_indices(self.path, kind)
        if indices is not None:
            return indices[self.plane]
        file = open_image(self.path) if self.plane else read_image(self.path)
        return file.plane(self.plane)


@dataclass(frozen=True, eq=False)
class ArrayImage:
    """A plane in memory, or of a lazy array.

    Attributes
    ----------
    name : str
        What to call it in messages.
    array : (h, w) or (h, w, 3 or 4) array
        numpy, dask or anything else that numpy can read.
    pixel_size : PixelSize
        Size of its pixels.
    """

    name: str
    array: Any
    pixel_size: PixelSize = field(default_factory=PixelSize)

    def load(self) -> tuple[NDArray[Any], PixelSize]:
        """Return the plane and the size of its pixels."""
        return np.asarray(self.array), self.pixel_size


@dataclass(frozen=True, eq=False)
class ArrayLabels:
    """Labels in memory, or of a lazy array.

    Attributes
    ----------
    name : str
        What to call them in messages.
    array : (h, w) array
        Labels; -1 where nothing is labelled.
    """

    name: str
    array: Any

    def read(self) -> NDArray[Any]:
        """Return the plane."""
        return np.asarray(self.array)


@dataclass(frozen=True, eq=False)
class MaskLabels:
    """Masks that are drawn into a label image, larger ones first.

    Attributes
    ----------
    name : str
        What to call them in messages.
    masks : MaskSet
        The n masks.
    values : (n,) int array
        Value of each mask in the label image; negative ones are drawn beneath all others.
    """

    name: str
    masks: MaskSet
    values: NDArray[np.int64]

    def read(self) -> NDArray[np.int32]:
        """Draw the labels, (h, w); 0 where there is no mask."""
        labels = np.zeros(self.masks.shape, np.int32)
        areas = np.array([crop.area for crop in self.masks.crops], np.int64)
        for index in np.lexsort((-areas, self.values >= 0)):
            crop = self.masks.crops[index]
            value = UNLABELLED if self.values[index] < 0 else self.values[index]
            labels[crop.slices][crop.array()] = value
        return labels


def unlabelled_bar(
    image: NDArray[Any], labels: LabelSource, unlabelled: int | None = None
) -> int | None:
    """Find an SEM data bar in which nothing is labelled.

    Parameters
    ----------
    image : (h, w) or (h, w, 3 or 4) array
        With the bar below.
    labels : LabelSource
        Read if there is a bar. Who labels on it wants it learnt.
    unlabelled : int or None
        Value that means nothing, besides 0 and -1.

    Returns
    -------
    int or None
        First row of the bar.
    """
    try:
        bar = detect_data_bar(image)
    except InvalidImageError:
        return None  # whoever needs the image says what is wrong with it
    if bar is None:
        return None
    values = np.asarray(labels.read())
    fits = values.shape == image.shape[:2]
    nothing = [value for value in (0, UNLABELLED, unlabelled) if value is not None]
    return bar if fits and bool(np.isin(values[bar:], nothing).all()) else None


def plane_name(name: str, plane: Plane) -> str:
    """Name one plane of a stack, such as ``cement.tif[12]``."""
    return f"{name}[{','.join(str(i) for i in plane)}]" if plane else name


def stack_shape(path: Path) -> tuple[int, ...]:
    """Find the lengths of the axes before the plane without decoding pixels where possible.

    Raises
    ------
    FileFormatError
        If the file cannot be read.
    """
    kind = image_format(path)
    if kind in ("PNG", "JPEG", "BMP"):
        return ()
    if kind == "TIFF":
        try:
            with tifffile.TiffFile(path) as tif:
                if len(tif.pages) == 1 and tif.pages.first.ndim == 2:
                    return ()
        except (OSError, ValueError, tifffile.TiffFileError) as error:
            raise FileFormatError(f"{path.name}: cannot be read as TIFF: {error}") from error
    return open_image(path).stack_shape


def open_image(path: Path) -> MicrographFile:
    """Open an image file; stacks stay open, as finding their planes takes a while.

    Raises
    ------
    FileFormatError
        If the file cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise FileFormatError(f"{path.name}: cannot be opened: {error.strerror}") from error
    return _opened(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _opened(path: Path, _changed: int, _size: int) -> MicrographFile:
    return read_image(path)


def _is_mask(values: NDArray[Any]) -> bool:
    """Whether there is nothing but 0 and the highest value of the data type."""
    if values.dtype.kind == "b":
        return True
    highest = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 0
    return bool(highest) and bool(np.isin(values, (0, highest)).all())


def _palette_indices(path: Path, kind: str | None) -> NDArray[Any] | None:
    """Read the numbers behind a palette or an inverted grey; None for files without one."""
    if kind not in ("PNG", "BMP", "TIFF"):
        return None
    try:
        if kind != "TIFF":
            reader = PngImagePlugin.PngImageFile if kind == "PNG" else BmpImagePlugin.BmpImageFile
            with path.open("rb") as file:
                picture = reader(file)
                return np.array(picture) if picture.mode == "P" else None
        with tifffile.TiffFile(path) as tif:
            shown_as = tif.pages.first.photometric
            if shown_as not in (_PALETTE, _MINISWHITE) or tif.is_imagej:
                return None
            values = tif.series[0].asarray()
            # Of a mask, what is meant is what is shown.
            return None if shown_as == _MINISWHITE and _is_mask(values) else values
    except BROKEN:
        pass  # The general reader says what is wrong with the file.
    return None


def array_hash(*arrays: NDArray[Any]) -> str:
    """Hash what arrays hold, their shapes and their dtypes."""
    digest = xxhash.xxh3_128()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

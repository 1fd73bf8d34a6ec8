"""What a file gives: intensities, pixel size and metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.types import PixelSize

if TYPE_CHECKING:
    import dask.array as da


@dataclass(frozen=True, eq=False)
class MicrographFile:
    """An image or stack as it was read.

    Attributes
    ----------
    data : array, (..., h, w) or (..., h, w, 3 or 4)
        numpy array for a single plane, dask array with one chunk per plane for a stack.
    name : str
        Name of the file or folder without its ending.
    path : Path
        Where it was read from.
    is_rgb : bool
        Whether the last axis holds colours.
    pixel_size : PixelSize
        In µm if the file says so, else in pixels.
    z_size : float or None
        Distance of the planes in µm, if the file says so.
    data_bar : int or None
        First row of the data bar, if the metadata name it; None says nothing about
        whether there is one (see `phasesam.core.data_bar`).
    metadata : mapping
        ``format`` and, where known, ``vendor``, ``pixel_size_source`` and what else the
        file says.
    """

    data: NDArray[Any] | da.Array
    name: str
    path: Path
    is_rgb: bool = False
    pixel_size: PixelSize = field(default_factory=PixelSize)
    z_size: float | None = None
    data_bar: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def plane_shape(self) -> tuple[int, int]:
        """Height and width of a plane in pixels."""
        shape = self.data.shape[:-1] if self.is_rgb else self.data.shape
        return int(shape[-2]), int(shape[-1])

    @property
    def stack_shape(self) -> tuple[int, ...]:
        """Lengths of the axes before the plane; empty for a single plane."""
        return tuple(int(n) for n in self.data.shape[: -3 if self.is_rgb else -2])

    @property
    def is_stack(self) -> bool:
        """Whether there are axes before the plane."""
        return len(self.stack_shape) > 0

    def plane(self, index: tuple[int, ...] = ()) -> NDArray[Any]:
        """Load one plane, (h, w) or (h, w, 3 or 4).

        Parameters
        ----------
        index : tuple of int
            Position on the axes before the plane.
        """
        return np.asarray(self.data[index])


def calibrated(pixel_size_um: tuple[float, float] | None) -> PixelSize:
    """Make a pixel size of a height and width in µm; plain pixels when there is none."""
    if pixel_size_um is None:
        return PixelSize()
    return PixelSize(float(pixel_size_um[0]), float(pixel_size_um[1]), "um")

"""A simulated image together with everything that is known about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.errors import InvalidImageError
from phasesam.core.types import PixelSize


@dataclass(frozen=True)
class Micrograph:
    """An image with its exact ground truth.

    Attributes
    ----------
    image : (h, w) or (z, h, w) uint8 or uint16 array
        Grey values as the instrument would store them.
    labels : int32 array, shaped like `image`
        Objects, numbered 1 to ``n_objects`` without gaps; 0 where there is none.
    classes : uint8 array, shaped like `image`
        Index into `class_names` for every pixel.
    pixel_size : PixelSize
        Edge lengths of a pixel in µm.
    class_names : tuple of str
        Name of each class.
    z_size : float or None
        Distance between slices in µm; None for a single image.
    name : str
        Short name, fit for a layer or a file.
    metadata : mapping
        Plain values: what made the image, its settings, its seed and the true figures.
    """

    image: NDArray[Any]
    labels: NDArray[np.int32]
    classes: NDArray[np.uint8]
    pixel_size: PixelSize
    class_names: tuple[str, ...]
    z_size: float | None = None
    name: str = ""
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        shapes = {self.image.shape, self.labels.shape, self.classes.shape}
        if len(shapes) != 1:
            raise InvalidImageError(
                "image, labels and classes must have one shape, got "
                f"{self.image.shape}, {self.labels.shape} and {self.classes.shape}"
            )

    @property
    def n_objects(self) -> int:
        """Number of objects in `labels`."""
        return int(self.labels.max(initial=0))

    def class_fractions(self) -> dict[str, float]:
        """Share of the pixels that each class holds, 0–1."""
        counts = np.bincount(self.classes.ravel(), minlength=len(self.class_names))
        return {
            name: float(count) / self.classes.size
            for name, count in zip(self.class_names, counts, strict=True)
        }


def number_objects(keys: NDArray[Any]) -> NDArray[np.int32]:
    """Renumber integer keys to 1 … n in ascending order, keeping 0 for "no object".

    Parameters
    ----------
    keys : integer array of any shape
        0 where there is no object.

    Returns
    -------
    int32 array, shaped like `keys`
    """
    values, inverse = np.unique(keys, return_inverse=True)
    numbers = np.cumsum(values != 0) * (values != 0)
    return numbers.astype(np.int32)[inverse].reshape(keys.shape)

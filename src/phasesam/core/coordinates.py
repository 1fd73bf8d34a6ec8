"""Between napari's (y, x) in image pixels and SAM's (x, y) in the resized image.

This is the only place where axes turn. The numbers equal those of
``segment_anything.utils.transforms.ResizeLongestSide``; only sides that would vanish
(one pixel beside several thousands) keep one pixel here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from phasesam.core.errors import InvalidImageError, InvalidPromptError

MODEL_SIDE = 1024

# Pillow stores RGB in four bytes per pixel; beyond this size the bands go one by one.
_BANDWISE_PIXELS = 32_000_000


def resize_longest_side(height: int, width: int, size: int = MODEL_SIDE) -> tuple[int, int]:
    """Find the shape of an image scaled so that its longer side is ``size``.

    Parameters
    ----------
    height, width : int
        Shape of the image in pixels.
    size : int
        Wanted length of the longer side in pixels.

    Returns
    -------
    (int, int)
        Height and width, each at least 1.

    Raises
    ------
    InvalidImageError
        If a side is not positive.
    """
    if height < 1 or width < 1 or size < 1:
        raise InvalidImageError(
            f"expected sides of at least one pixel, got {height} x {width} to be scaled to {size}"
        )
    scale = size * 1.0 / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize_image_longest_side(rgb: NDArray[np.uint8], size: int = MODEL_SIDE) -> NDArray[np.uint8]:
    """Scale an image so that its longer side is ``size``, as SAM does (antialiased bilinear).

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        Image.
    size : int
        Wanted length of the longer side in pixels.

    Returns
    -------
    (h', w', 3) uint8 array
        C-contiguous.

    Raises
    ------
    InvalidImageError
        If it is not 8-bit RGB.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise InvalidImageError(f"expected (h, w, 3) uint8, got {rgb.shape} {rgb.dtype}")
    height, width = resize_longest_side(rgb.shape[0], rgb.shape[1], size)
    if (height, width) == rgb.shape[:2]:
        return np.ascontiguousarray(rgb)
    if rgb.shape[0] * rgb.shape[1] <= _BANDWISE_PIXELS:
        return _resize(rgb, height, width)
    return np.stack([_resize(rgb[..., band], height, width) for band in range(3)], axis=-1)


def _resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))


def points_to_model(
    points: ArrayLike, shape: tuple[int, int], size: int = MODEL_SIDE
) -> NDArray[np.float64]:
    """Turn image positions into the model's.

    Parameters
    ----------
    points : (n, 2) array-like
        ``(y, x)`` in image pixels.
    shape : (int, int)
        Height and width of the image.
    size : int
        Longer side of the resized image.

    Returns
    -------
    (n, 2) float64 array
        ``(x, y)`` in pixels of the resized image.

    Raises
    ------
    InvalidPromptError
        If the points have another shape.
    """
    scale_y, scale_x = _scales(shape, size)
    return _columns(points, 2)[:, ::-1] * (scale_x, scale_y)


def points_from_model(
    points: ArrayLike, shape: tuple[int, int], size: int = MODEL_SIDE
) -> NDArray[np.float64]:
    """Turn the model's positions, (n, 2) ``(x, y)``, back into ``(y, x)`` in image pixels.

    The inverse of `points_to_model`, with the same parameters and errors.
    """
    scale_y, scale_x = _scales(shape, size)
    return (_columns(points, 2) / (scale_x, scale_y))[:, ::-1]


def boxes_to_model(
    boxes: ArrayLike, shape: tuple[int, int], size: int = MODEL_SIDE
) -> NDArray[np.float64]:
    """Turn image boxes into the model's.

    Parameters
    ----------
    boxes : (m, 4) array-like
        ``(y0, x0, y1, x1)`` in image pixels.
    shape : (int, int)
        Height and width of the image.
    size : int
        Longer side of the resized image.

    Returns
    -------
    (m, 4) float64 array
        ``(x0, y0, x1, y1)`` in pixels of the resized image.

    Raises
    ------
    InvalidPromptError
        If the boxes have another shape.
    """
    scale_y, scale_x = _scales(shape, size)
    return _columns(boxes, 4)[:, [1, 0, 3, 2]] * (scale_x, scale_y, scale_x, scale_y)


def boxes_from_model(
    boxes: ArrayLike, shape: tuple[int, int], size: int = MODEL_SIDE
) -> NDArray[np.float64]:
    """Turn the model's boxes, (m, 4) ``(x0, y0, x1, y1)``, back into ``(y0, x0, y1, x1)``.

    The inverse of `boxes_to_model`, with the same parameters and errors.
    """
    scale_y, scale_x = _scales(shape, size)
    return (_columns(boxes, 4) / (scale_x, scale_y, scale_x, scale_y))[:, [1, 0, 3, 2]]


def _scales(shape: tuple[int, int], size: int) -> tuple[float, float]:
    """Scale along y and x; they differ a little because sides are whole pixels."""
    height, width = resize_longest_side(shape[0], shape[1], size)
    return height / shape[0], width / shape[1]


def _columns(values: ArrayLike, count: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, count), dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != count:
        raise InvalidPromptError(f"expected shape (n, {count}), got {array.shape}")
    return array

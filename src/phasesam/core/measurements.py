"""Size, shape and position of every object in a label image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from phasesam.core.errors import InvalidMaskError, InvalidSettingError
from phasesam.core.types import PixelSize

_MICROMETRES = {"um": 1.0, "µm": 1.0, "μm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_DIRECTIONS = 90
_LARGEST_TABLE = 1 << 24
_STRIP_PIXELS = 1 << 20


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """Measurements as named columns, one row per object.

    Attributes
    ----------
    columns : mapping of str to (n,) array
        All of the same length; ``table["area_px"]`` is short for one of them.
    pixel_size : PixelSize
        What the physical columns were computed with.
    """

    columns: Mapping[str, NDArray[Any]]
    pixel_size: PixelSize = field(default_factory=PixelSize)

    def __post_init__(self) -> None:
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise InvalidMaskError(f"columns must have the same length, got {lengths}")
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def select(self, rows: ArrayLike) -> ObjectTable:
        """Return the rows of an index or bool array."""
        index = np.asarray(rows)
        index = index if index.dtype == np.bool_ else index.astype(np.int64)
        return ObjectTable({k: v[index] for k, v in self.columns.items()}, self.pixel_size)

    def with_columns(self, columns: Mapping[str, NDArray[Any]]) -> ObjectTable:
        """Return a table with further columns at the end."""
        return ObjectTable({**self.columns, **columns}, self.pixel_size)

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict of plain Python values per object, for CSV and JSON."""
        names = list(self.columns)
        values = [self.columns[name].tolist() for name in names]
        return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def join_tables(tables: Sequence[ObjectTable]) -> ObjectTable:
    """Put tables with the same columns below one another."""
    if not tables:
        raise InvalidMaskError("expected at least one table, got none")
    names = list(tables[0].columns)
    if any(list(table.columns) != names for table in tables):
        raise InvalidMaskError(f"tables must have the same columns, expected {names}")
    columns = {name: np.concatenate([table[name] for table in tables]) for name in names}
    return ObjectTable(columns, tables[0].pixel_size)


def measure(
    labels: NDArray[np.integer[Any]],
    pixel_size: PixelSize | None = None,
    scores: Mapping[int, float] | Sequence[float] | None = None,
    classes: Mapping[int, str] | Sequence[str] | None = None,
    ids: Sequence[int] | None = None,
    field_of_view: tuple[int, int, int, int] | None = None,
) -> ObjectTable:
    """Measure every object of a label image.

    Lengths are given in pixels and, when the pixel size is physical, in micrometres. The
    descriptors of shape use the true proportions of the pixels. They are computed for
    all objects at once: bincounts for areas and moments, border crossings along four
    directions for the perimeter, projections on 90 directions for the Feret diameter.

    Parameters
    ----------
    labels : (h, w) integer array
        0 is background.
    pixel_size : PixelSize, optional
        Edge lengths of a pixel; the two may differ.
    scores, classes : mapping from id, or sequence in the order of the rows; optional
        Columns to add; NaN and ``""`` when left out.
    ids : sequence of int, optional
        Labels to measure, in this order; all, ascending, when left out.
    field_of_view : (int, int, int, int), optional
        Half-open box ``(y0, x0, y1, x1)``: objects that reach its sides touch the edge.
        The whole image when left out.

    Returns
    -------
    ObjectTable
        ``id``, ``class``, ``score``; ``area_px`` (pixels), ``area_um2``;
        ``equivalent_diameter_*`` of the circle of the same area; ``perimeter_*`` by the
        Crofton formula with four directions [1]_ (that of scikit-image for square
        pixels); ``feret_*``, the largest caliper width through the middles of the outer
        pixel sides, exact to 0.02 %; ``aspect_ratio``, major to minor axis of the ellipse
        with the same second moments, 1 and more; ``circularity``, 4π area / perimeter²,
        not above 1; ``orientation_deg`` of the major axis, counter-clockwise from the
        horizontal as seen on screen, -90 to 90; ``centroid_y``, ``centroid_x``,
        ``y0``, ``x0``, ``y1``, ``x1`` (half-open box) in pixels; ``touches_edge``.
        Columns in µm exist only for physical pixel sizes.

    Raises
    ------
    InvalidMaskError
        If ``labels`` is not two-dimensional and integer, or an id is not in it.
    InvalidSettingError
        If the unit of the pixel size is unknown or a length is not positive.

    References
    ----------
    .. [1] S. Rivollier, "Analyse d'image géométrique et morphométrique par diagrammes de
       forme et voisinages adaptatifs généraux", thesis, ENSM Saint-Étienne, 2010.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise InvalidMaskError(
            f"expected integer labels of shape (h, w), got {labels.shape} {labels.dtype}"
        )
    size = pixel_size if pixel_size is not None else PixelSize()
    spacing = _micrometres(size) if size.is_physical else (size.y, size.x)
    if not (0 < spacing[0] < np.inf and 0 < spacing[1] < np.inf):
        raise InvalidSettingError(f"pixels must have a positive size, got {size}")
    compact, wanted = _compact(labels, ids)
    n = len(wanted)
    boxes = _boxes(compact, n)
    view = (0, 0, *labels.shape) if field_of_view is None else field_of_view
    cut = (boxes[:, :2] <= view[:2]) | (boxes[:, 2:] >= view[2:])
    columns: dict[str, NDArray[Any]] = {
        "id": wanted,
        "class": _column(classes, wanted, "", str),
        "score": _column(scores, wanted, np.nan, float),
        **_sizes_and_shapes(compact, n, spacing, size.is_physical),
        **{name: boxes[:, i] for i, name in enumerate(("y0", "x0", "y1", "x1"))},
        "touches_edge": np.asarray(cut.any(axis=1)),
    }
    return ObjectTable(columns, size)


def _micrometres(size: PixelSize) -> tuple[float, float]:
    if size.unit not in _MICROMETRES:
        raise InvalidSettingError(
            f"expected a pixel size in one of {', '.join(_MICROMETRES)}, got {size.unit!r}"
        )
    return size.y * _MICROMETRES[size.unit], size.x * _MICROMETRES[size.unit]


def _compact(
    labels: NDArray[np.integer[Any]], ids: Sequence[int] | None
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Give the wanted labels the numbers 1, 2, ... in their order and all others 0."""
    if labels.size == 0:
        return np.zeros(labels.shape, np.int32), np.zeros(0, np.int64)
    top = int(labels.max())
    small = int(labels.min()) >= 0 and top < _LARGEST_TABLE
    if small:
        present = np.flatnonzero(np.bincount(labels.ravel().astype(np.int64, copy=False)))
    else:
        present = np.unique(labels).astype(np.int64)
    present = present[present != 0]
    wanted = present if ids is None else np.asarray(ids, dtype=np.int64).reshape(-1)
    missing = np.setdiff1d(wanted, present)
    if len(missing) or len(np.unique(wanted)) != len(wanted):
        raise InvalidMaskError(f"every id must be in the labels once, got {missing[:5].tolist()}")
    if small:
        table = np.zeros(top + 1, dtype=np.int32)
        table[wanted] = np.arange(1, len(wanted) + 1)
        return table[labels], wanted
    table = np.zeros(len(present), dtype=np.int32)
    table[np.searchsorted(present, wanted)] = np.arange(1, len(wanted) + 1)
    position = np.searchsorted(present, labels).clip(max=max(len(present) - 1, 0))
    return np.where(labels == 0, 0, table[position]).astype(np.int32), wanted


def _boxes(compact: NDArray[np.int32], n: int) -> NDArray[np.int64]:
    found = ndimage.find_objects(compact, max_label=n) if n else []
    rows = [(y.start, x.start, y.stop, x.stop) for y, x in found]
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def _column(values: Any, ids: NDArray[np.int64], default: Any, kind: type) -> NDArray[Any]:
    if values is None:
        values = [default] * len(ids)
    elif isinstance(values, Mapping):
        values = [values.get(i, default) for i in ids.tolist()]
    if len(values) != len(ids):
        raise InvalidMaskError(f"expected {len(ids)} scores or classes, got {len(values)}")
    return np.array(list(values), dtype=object if kind is str else np.float64)


def _sizes_and_shapes(
    compact: NDArray[np.int32], n: int, spacing: tuple[float, float], physical: bool
) -> dict[str, NDArray[Any]]:
    area, sums = np.zeros(n, dtype=np.int64), np.zeros((2, n))
    for index, y, x in _pixels(compact):
        area += np.bincount(index, minlength=n)
        sums += [np.bincount(index, values, minlength=n) for values in (y, x)]
    centre_y, centre_x = sums / area
    squares = np.zeros((3, n))
    for index, y, x in _pixels(compact):
        off_y, off_x = y - centre_y[index], x - centre_x[index]
        products = (off_y**2, off_x**2, off_y * off_x)
        squares += [np.bincount(index, values, minlength=n) for values in products]
    squares /= area
    # A pixel is a square, not a point: its own second moment is a twelfth of its side squared.
    moments = np.stack(
        [
            spacing[0] ** 2 * (squares[0] + 1 / 12),
            spacing[1] ** 2 * (squares[1] + 1 / 12),
            spacing[0] * spacing[1] * squares[2],
        ]
    )
    aspect, orientation = _ellipse(moments)
    crossings = _crossings(compact, n)
    perimeter = _perimeter(crossings, spacing)
    true_area = area * (spacing[0] * spacing[1])
    columns: dict[str, NDArray[Any]] = {"area_px": area}
    if physical:
        columns["area_um2"] = true_area
    columns["equivalent_diameter_px"] = np.sqrt(4 * area / np.pi)
    if physical:
        columns["equivalent_diameter_um"] = np.sqrt(4 * true_area / np.pi)
    columns["perimeter_px"] = _perimeter(crossings, (1.0, 1.0))
    if physical:
        columns["perimeter_um"] = perimeter
    columns["feret_px"] = _feret(compact, n, (1.0, 1.0))
    if physical and spacing[0] == spacing[1]:
        columns["feret_um"] = columns["feret_px"] * spacing[0]
    elif physical:
        columns["feret_um"] = _feret(compact, n, spacing)
    columns["aspect_ratio"] = aspect
    columns["circularity"] = np.minimum(4 * np.pi * true_area / perimeter**2, 1.0)
    columns["orientation_deg"] = orientation
    columns["centroid_y"], columns["centroid_x"] = centre_y, centre_x
    return columns


def _pixels(
    compact: NDArray[np.int32],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Index of the object, row and column of every pixel, strip by strip.

    The positions of all pixels of a large image would take many times its memory, and
    counting them at one go would hold up every other thread.
    """
    rows = max(1, _STRIP_PIXELS // max(1, compact.shape[1]))
    for top in range(0, compact.shape[0], rows):
        strip = compact[top : top + rows]
        y, x = np.nonzero(strip)
        yield strip[y, x].astype(np.int64) - 1, y + top, x


def _ellipse(
    moments: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ratio of the axes and direction of the longer one, from (yy, xx, yx) moments."""
    yy, xx, yx = moments
    half_sum, half_difference = (yy + xx) / 2, (xx - yy) / 2
    radius = np.hypot(half_difference, yx)
    minor = np.maximum(half_sum - radius, 1e-12 * half_sum)
    # Rows count downwards, angles on screen upwards. A round object has no direction.
    angle = np.where(radius > 1e-9 * half_sum, -0.5 * np.arctan2(yx, half_difference), 0.0)
    return np.sqrt((half_sum + radius) / minor), np.rad2deg(angle)


def _neighbours() -> tuple[tuple[Any, Any], ...]:
    """Slices of a padded image that pair every pixel with the next along four directions."""
    return (
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[1:, :], np.s_[:-1, :]),
        (np.s_[1:, 1:], np.s_[:-1, :-1]),
        (np.s_[1:, :-1], np.s_[:-1, 1:]),
    )


def _crossings(compact: NDArray[np.int32], n: int) -> NDArray[np.float64]:
    """How often lines along x, y and the two diagonals cross each outline, (4, n)."""
    padded = np.pad(compact, 1)
    counts = np.zeros((4, n + 1))
    for row, (here, there) in zip(counts, _neighbours(), strict=True):
        a, b = padded[here], padded[there]
        border = a != b
        row += np.bincount(a[border], minlength=n + 1) + np.bincount(b[border], minlength=n + 1)
    return counts[:, 1:]


def _perimeter(crossings: NDArray[np.float64], spacing: tuple[float, float]) -> NDArray[np.float64]:
    """Crofton formula: half the sum of crossings × line distance × share of the half turn."""
    dy, dx = spacing
    diagonal = dy * dx / np.hypot(dy, dx)
    slope = np.arctan2(dy, dx)
    angles = np.array([slope, np.pi / 2 - slope, np.pi / 4, np.pi / 4])
    distances = np.array([dy, dx, diagonal, diagonal])
    return 0.5 * (angles * distances) @ crossings


def _feret(compact: NDArray[np.int32], n: int, spacing: tuple[float, float]) -> NDArray[np.float64]:
    """Largest caliper width of each object, over a fan of directions."""
    padded = np.pad(compact, 1)
    inner = padded[1:-1, 1:-1]
    border = np.zeros(compact.shape, dtype=np.bool_)
    for around in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        border |= inner != around
    y, x = np.nonzero(border & (inner > 0))
    index = inner[y, x]
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(1, n + 1))
    up, right = y[order] * spacing[0], x[order] * spacing[1]
    widest = np.zeros(n)
    if n == 0:
        return widest
    for angle in np.arange(_DIRECTIONS) * (np.pi / _DIRECTIONS):
        sine, cosine = np.sin(angle), np.cos(angle)
        along = up * sine + right * cosine
        width = np.maximum.reduceat(along, starts) - np.minimum.reduceat(along, starts)
        # Outlines run through the middles of the pixel sides: half a pixel at either end.
        reach = max(abs(sine) * spacing[0], abs(cosine) * spacing[1])
        np.maximum(widest, width + reach, out=widest)
    return widest

"""File > Save for Labels layers: TIFF with pixel size, COCO annotations, table of measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.mask_set import MaskSet
from phasesam.core.measurements import ObjectTable, join_tables, measure
from phasesam.core.types import PixelSize
from phasesam.formats.coco import CocoImage, save_coco
from phasesam.formats.label_tiff import save_labels_tiff
from phasesam.formats.tables import save_table_csv
from phasesam.napari_widgets.committed_labels import session_behind
from phasesam.napari_widgets.layers import axis_lengths

if TYPE_CHECKING:
    from phasesam.session import SegmentationSession


def write_labels_tiff(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a Labels layer as a TIFF that carries the pixel size.

    Parameters
    ----------
    path : str
        File to write; replaced in one piece.
    data : (..., h, w) integer array
        The labels.
    attributes : dict
        The layer's attributes, as napari passes them to writers.

    Returns
    -------
    list of str
        The file that was written.

    Raises
    ------
    SaveError
        If it cannot be written; an older file is then intact.
    """
    size, z_size = _sizes(attributes)
    save_labels_tiff(path, _labels(data), size, z_size)
    return [path]


def write_coco(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a Labels layer as COCO annotations, one image per plane that has objects.

    Scores and classes are written for objects that were made with PhaseSAM. Parameters,
    result and errors as for `write_labels_tiff`.
    """
    labels = _labels(data)
    size, _ = _sizes(attributes)
    session = _session(attributes, labels)
    name = str(attributes.get("name", "labels"))
    images = []
    for plane in np.ndindex(labels.shape[:-2]):
        masks, classes = _masks(labels[plane], session)
        if len(masks) or not plane:
            file_name = name if not plane else f"{name}_{'_'.join(map(str, plane))}"
            images.append(CocoImage(masks, file_name, classes, size))
    save_coco(path, images)
    return [path]


def write_csv(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Measure the objects of a Labels layer and write the table.

    Lengths are in pixels, and in micrometres if the layer has a length unit. Parameters,
    result and errors as for `write_labels_tiff`.
    """
    labels = _labels(data)
    size, _ = _sizes(attributes)
    session = _session(attributes, labels)
    table = session.table() if session is not None else _measure(labels, size)
    save_table_csv(path, table.columns)
    return [path]


def _labels(data: Any) -> NDArray[Any]:
    # A multiscale layer is a list, largest level first.
    level = data if hasattr(data, "shape") else data[0]
    return np.asarray(level)


def _sizes(attributes: dict[str, Any]) -> tuple[PixelSize, float | None]:
    """Pixel size and distance of the planes, from a layer's scale and units."""
    scale, units = attributes.get("scale"), attributes.get("units")
    if scale is None or units is None or len(units) < 2:
        return PixelSize(), None
    lengths = axis_lengths(scale, units)
    y, x = lengths[-2:]
    if y is None or x is None:
        return PixelSize(), None
    return PixelSize(y=y, x=x, unit="um"), lengths[-3] if len(lengths) > 2 else None


def _session(attributes: dict[str, Any], labels: NDArray[Any]) -> SegmentationSession | None:
    """Find the session behind the layer, if it still says the same as the layer."""
    session = session_behind(attributes.get("metadata") or {})
    if session is None or not np.array_equal(session.labels, labels):
        return None
    return session


def _masks(
    labels: NDArray[Any], session: SegmentationSession | None
) -> tuple[MaskSet, tuple[str, ...]]:
    masks = MaskSet.from_labels(labels)
    if session is None:
        return masks, ()
    ids = np.unique(labels)
    records = [session.record(int(i)) for i in ids[ids > 0]]
    scored = MaskSet.from_crops(masks.shape, masks.crops, [record.score for record in records])
    return scored, tuple(record.class_name for record in records)


def _measure(labels: NDArray[Any], size: PixelSize) -> ObjectTable:
    leading = labels.ndim - 2
    if not leading:
        return measure(labels, size)
    tables = []
    for plane in np.ndindex(labels.shape[:-2]):
        table = measure(labels[plane], size)
        place = {f"plane_{axis}": np.full(len(table), plane[axis]) for axis in range(leading)}
        tables.append(table.with_columns(place))
    return join_tables(tables)

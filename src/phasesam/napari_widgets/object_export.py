"""Writes the objects of the *Objects* dock to files, in the background."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtWidgets import QFileDialog

from phasesam.core.mask_set import MaskSet
from phasesam.formats.coco import CocoImage, save_coco
from phasesam.formats.label_tiff import save_labels_tiff
from phasesam.formats.tables import save_table_csv

if TYPE_CHECKING:
    from napari.layers import Layer

    from phasesam.core.measurements import ObjectTable
    from phasesam.napari_widgets.dock import Dock
    from phasesam.session import ObjectRecord, SegmentationSession
    from phasesam.session.objects import Plane

_KINDS = {
    "csv": ("Export table", "objects.csv", "Table (*.csv)"),
    "coco": ("Export masks", "coco.json", "COCO annotations (*.json)"),
    "tiff": ("Export label image", "labels.tif", "TIFF (*.tif *.tiff)"),
}


class Exporter:
    """Asks for a file name and writes; errors are said in the dock, the old file stays intact.

    Parameters
    ----------
    dock : Dock
        Parent of the file dialog; runs the writing.
    """

    def __init__(self, dock: Dock) -> None:
        self._dock = dock
        self._folder = ""

    def ask(
        self, kind: str, session: SegmentationSession, table: ObjectTable, plane: Plane | None
    ) -> None:
        """Let the user choose a file, then write it.

        Parameters
        ----------
        kind : {"csv", "coco", "tiff"}
            What to write.
        session : SegmentationSession
            Whose objects.
        table : ObjectTable
            The rows shown; CSV and COCO get these objects only.
        plane : tuple of int or None
            The plane shown, None for all.
        """
        title, ending, kinds = _KINDS[kind]
        name = f"{_file_stem(session.name)}_{ending}"
        suggestion = str(Path(self._folder) / name) if self._folder else name
        path, _ = QFileDialog.getSaveFileName(self._dock, title, suggestion, kinds)
        if not path:
            return
        self._folder = str(Path(path).parent)
        self.write(kind, Path(path), session, table, plane)

    def write(
        self,
        kind: str,
        path: Path,
        session: SegmentationSession,
        table: ObjectTable,
        plane: Plane | None,
    ) -> None:
        """Write a file in the background; see `ask`."""
        if not path.suffix:
            path = path.with_name(f"{path.name}{Path(_KINDS[kind][1]).suffix}")
        # What is written is fixed here, on the GUI thread: editing may go on.
        if kind == "csv":
            job = _csv_job(path, table)
        elif kind == "coco":
            job = _coco_job(path, session, table)
        else:
            job = _tiff_job(path, session, plane, _z_size(self._dock.state.image_layer))
        self._dock.start(
            lambda _progress, _stop: job(),
            title=f"Saving {path.name}",
            on_done=lambda _: self._dock.show_result(f"Saved {path}."),
            must_finish=True,
        )


def _csv_job(path: Path, table: ObjectTable) -> Callable[[], None]:
    return lambda: save_table_csv(path, table.columns)


def _coco_job(path: Path, session: SegmentationSession, table: ObjectTable) -> Callable[[], None]:
    """Make one COCO image of each plane that has objects."""
    planes: dict[Plane, list[ObjectRecord]] = {}
    for object_id in np.sort(table["id"]):
        record = session.record(int(object_id))
        planes.setdefault(record.plane, []).append(record)
    height, width = session.shape[-2:]
    images = [
        CocoImage(
            MaskSet.from_crops(
                (height, width),
                [session.object_mask(record.id) for record in records],
                [record.score for record in records],
            ),
            file_name=f"{session.name}[{', '.join(map(str, plane))}]" if plane else session.name,
            categories=tuple(record.class_name for record in records),
            pixel_size=session.pixel_size,
        )
        for plane, records in sorted(planes.items())
    ]
    return lambda: save_coco(path, images)


def _tiff_job(
    path: Path, session: SegmentationSession, plane: Plane | None, z_size: float | None
) -> Callable[[], None]:
    labels = np.array(session.labels if plane is None else session.labels[plane])
    pixel_size = session.pixel_size
    z_size = z_size if labels.ndim == 3 and pixel_size.is_physical else None
    return lambda: save_labels_tiff(path, labels, pixel_size, z_size)


def _z_size(layer: Layer | None) -> float | None:
    """Distance of the planes of a stack in µm, None if it is not known."""
    if layer is None or layer.ndim < 3 or not layer.units[-3].is_compatible_with("um"):
        return None
    return float(abs(layer.scale[-3])) * float((1 * layer.units[-3]).to("um").magnitude)


def _file_stem(name: str) -> str:
    """Make a file name of a layer's name."""
    kept = "".join(c if c.isalnum() or c in "-_ " else "_" for c in name).strip()
    return kept or "image"

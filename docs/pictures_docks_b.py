"""Draw the pictures of the Automatic masks and Objects docks.

Run ``xvfb-run python docs/pictures_docks_b.py [FOLDER OF SAMPLES]``: opens napari on the
bundled SEM sample, finds masks with the bundled model, and saves
docs/pictures/automatic_masks.png and docs/pictures/objects.png.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

# Keep the reader's own napari settings out of the pictures.
os.environ.setdefault("NAPARI_CONFIG", str(Path(tempfile.mkdtemp()) / "settings.yaml"))

import napari
from napari._app_model import get_app_model
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from phasesam.napari_widgets.sample_data import as_layers
from phasesam.simulation.samples import load_sample

PICTURES = Path(__file__).parent / "pictures"
SIZE = (1400, 900)
PATIENCE = 1200.0


def pump(seconds: float) -> None:
    """Let Qt work."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


def wait_for(condition) -> None:
    """Let Qt work until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the picture did not come about")
        pump(0.05)


def open_viewer(folder: Path | None):
    """Open a viewer on the SEM sample."""
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    sample = load_sample("particles_sem", folder)
    for data, options, kind in as_layers(sample, "SEM particles"):
        if kind == "image":
            getattr(viewer, f"add_{kind}")(data, **options)
    return viewer


def dock_of(viewer, command: str, title: str):
    """Open a dock as the Plugins menu does, wide enough to be read."""
    get_app_model().commands.execute_command(f"napari-phasesam.{command}")
    pump(0.5)
    dock = viewer.window.dock_widgets[f"{title} (PhaseSAM)"]
    holder = dock.parentWidget()
    viewer.window._qt_window.resizeDocks([holder], [465], Qt.Orientation.Horizontal)
    pump(0.5)
    return dock


def save(viewer, name: str) -> None:
    """Save the whole window."""
    pump(0.5)
    PICTURES.mkdir(exist_ok=True)
    viewer.screenshot(str(PICTURES / name), canvas_only=False, flash=False)


def picture_automatic(viewer) -> None:
    """Candidates of the particle preset, with the thresholds moved a little."""
    dock = dock_of(viewer, "automatic", "Automatic masks")
    dock.search.presets.setCurrentIndex(dock.search.presets.findData("particles"))
    dock.search.presets.activated.emit(dock.search.presets.currentIndex())
    dock.search.points.setValue(40)
    dock.find_masks()
    wait_for(lambda: not dock.running)
    viewer.reset_view()
    viewer.scene.camera.zoom *= 1.15
    save(viewer, "automatic_masks.png")
    dock.keep_as_labels()
    pump(0.5)


def picture_objects(viewer) -> None:
    """The objects that were kept, three of them selected."""
    dock = dock_of(viewer, "objects", "Objects")
    dock.table.sortByColumn(3, Qt.SortOrder.DescendingOrder)
    dock.filter_box.setText("area > 20 and not edge")
    ids = dock.table.table.ids
    dock.select([int(ids[row]) for row in (1, 2, 4)])
    viewer.reset_view()
    viewer.scene.camera.zoom *= 1.15
    save(viewer, "objects.png")


def main() -> None:
    """Draw both pictures."""
    viewer = open_viewer(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    picture_automatic(viewer)
    viewer.window.remove_dock_widget("all")
    pump(0.3)
    picture_objects(viewer)
    viewer.close()


if __name__ == "__main__":
    main()

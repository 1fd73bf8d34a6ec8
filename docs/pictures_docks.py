"""Draw the pictures of the docks: ``xvfb-run python docs/pictures_docks.py [FOLDER OF SAMPLES]``.

Opens napari on the samples, works with the bundled model as a user would, and saves prompt.png,
models.png, automatic_masks.png, objects.png, phase_ratio.png, fine_tune.png, training.png,
phases.png and encoder_features.png to docs/pictures. The last four need a training of some minutes;
``-k phases`` draws only those, ``-k ratio`` only that of the phase ratio, ``-k objects`` only the
others.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

# Keep the reader's own napari settings and interrupted sessions out of the pictures.
os.environ["NAPARI_CONFIG"] = str(Path(tempfile.mkdtemp()) / "settings.yaml")
os.environ["PHASESAM_CACHE"] = tempfile.mkdtemp()

import napari
import numpy as np
from napari._app_model import get_app_model
from napari.utils.colormaps import DirectLabelColormap
from PIL import Image as Picture
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from phasesam.formats.overlay import PALETTE
from phasesam.napari_widgets.class_colours import class_features
from phasesam.napari_widgets.sample_data import as_layers
from phasesam.simulation.samples import load_sample
from phasesam.simulation.steel import simulate_steel

PICTURES = Path(__file__).parent / "pictures"
SIZE = (1400, 900)
DOCK_WIDTH = 465
PATIENCE = 1800.0
EPOCHS, VIEWS = 12, 16
KINDS = ("objects", "ratio", "phases")


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


def open_viewer(sample):
    """Open a viewer on the image of a sample."""
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    for data, options, kind in as_layers(sample, "SEM particles"):
        if kind == "image":
            viewer.add_image(data, **options)
    return viewer


def dock_of(viewer, command: str, title: str):
    """Open a dock as the Plugins menu does, alone and wide enough to be read."""
    viewer.window.remove_dock_widget("all")
    pump(0.3)
    get_app_model().commands.execute_command(f"napari-phasesam.{command}")
    pump(0.5)
    dock = viewer.window.dock_widgets[f"{title} (PhaseSAM)"]
    holder = dock.parentWidget()
    viewer.window._qt_window.resizeDocks([holder], [DOCK_WIDTH], Qt.Orientation.Horizontal)
    pump(0.5)
    return dock


def save(viewer, name: str) -> None:
    """Save the whole window."""
    viewer.reset_view()
    viewer.scene.camera.zoom *= 1.15
    pump(0.5)
    PICTURES.mkdir(exist_ok=True)
    pixels = viewer.screenshot(canvas_only=False, flash=False)
    Picture.fromarray(pixels[..., :3]).save(PICTURES / name, optimize=True)


def centres(sample) -> list[np.ndarray]:
    """Centres of the largest whole particles, (y, x) in pixels, nearest to the middle first."""
    found = []
    counts = np.bincount(sample.labels.ravel())
    counts[0] = 0
    for label in np.argsort(-counts)[:40]:
        y, x = np.nonzero(sample.labels == label)
        inside = min(y.min(), x.min()) > 4 and y.max() < sample.labels.shape[0] - 5
        if inside and x.max() < sample.labels.shape[1] - 5:
            found.append(np.array([np.median(y), np.median(x)]))
    middle = np.array(sample.labels.shape) / 2
    return sorted(found, key=lambda point: float(np.abs(point - middle).sum()))


def click(dock, point: np.ndarray, positive: bool = True) -> None:
    """Add a prompt and wait for the mask."""
    dock.tools.use("+" if positive else "-")
    image = dock.state.image_layer
    before = dock.controller.present().prompts.count
    dock.controller.layers(image).points.add(dock.state.plane(image).at(point))
    wait_for(lambda: dock.controller.present().prompts.count > before)
    wait_for(lambda: dock.controller.present().answer is not None)


def picture_prompt(viewer, sample) -> None:
    """Objects already added, one more in the making, with both kinds of points."""
    dock = dock_of(viewer, "prompt", "Prompt")
    targets = centres(sample)
    dock.class_combo.setCurrentText("particle")
    for point in targets[1:9]:
        click(dock, point)
        dock.maker.add()
    click(dock, targets[0])
    click(dock, targets[0] + (0, 150), positive=False)
    dock.tools.use("+")
    save(viewer, "prompt.png")


def picture_models(viewer) -> None:
    """The table of models with one in memory."""
    dock = dock_of(viewer, "models", "Models")
    dock._select("mobile_sam")
    save(viewer, "models.png")


def picture_automatic(viewer) -> None:
    """Candidates of the particle preset, with the thresholds moved a little."""
    dock = dock_of(viewer, "automatic", "Automatic masks")
    dock.search.presets.setCurrentIndex(dock.search.presets.findData("particles"))
    dock.search.presets.activated.emit(dock.search.presets.currentIndex())
    dock.search.points.setValue(40)
    dock.find_masks()
    wait_for(lambda: not dock.running)
    save(viewer, "automatic_masks.png")
    dock.keep_as_labels()


def picture_objects(viewer) -> None:
    """The objects that were kept, three of them selected."""
    dock = dock_of(viewer, "objects", "Objects")
    dock.table.sortByColumn(3, Qt.SortOrder.DescendingOrder)
    dock.filter_box.setText("area > 20 and not edge")
    ids = dock.table.table.ids
    dock.select([int(ids[row]) for row in (1, 2, 4)])
    save(viewer, "objects.png")


def add_steel(viewer, sample, name: str, place: int, labelled: bool = True) -> None:
    """Add a micrograph of steel and, as somebody painted them, its phases."""
    size = sample.pixel_size
    width = sample.image.shape[1]
    geometry = {
        "scale": (size.y, size.x),
        "units": (size.unit,) * 2,
        "translate": (0.0, 1.05 * place * width * size.x),
    }
    viewer.add_image(sample.image, name=name, **geometry)
    if labelled:
        values = range(1, len(sample.class_names))
        colours = {v: PALETTE[v - 1] / 255 for v in values}
        viewer.add_labels(
            sample.classes.astype(np.int32),
            name=f"{name} painted",
            opacity=0.45,
            colormap=DirectLabelColormap(
                color_dict={None: "transparent", 0: "transparent", **colours}
            ),
            features=class_features({v: sample.class_names[v] for v in values}),
            **geometry,
        )


def picture_finetune(viewer) -> None:
    """Two labelled micrographs, and what will be learnt from them; then the training."""
    dock = dock_of(viewer, "finetune", "Fine-tune")
    dock.data.use_task("semantic")
    wait_for(dock.start_button.isEnabled)
    wait_for(dock.memory.text)
    save(viewer, "fine_tune.png")
    dock.recipe.epochs.setValue(EPOCHS)
    dock.recipe.views.setValue(VIEWS)
    wait_for(dock.start_button.isEnabled)
    dock.train()
    wait_for(lambda: len(dock.page.panel.score.points) > EPOCHS // 2)
    save(viewer, "training.png")
    wait_for(dock.page.panel.result.isVisible)
    dock.page.use("steel-phases")
    wait_for(lambda: dock.state.adapter == "steel-phases")


def picture_phases(viewer) -> None:
    """The adapter on a micrograph that it has not seen."""
    viewer.layers.clear()
    add_steel(viewer, simulate_steel(seed=7), "New steel", 0, labelled=False)
    dock = dock_of(viewer, "phases", "Phases")
    dock.choose("steel-phases")
    dock.segment()
    wait_for(lambda: not dock.running)
    wait_for(lambda: dock.classes.rows()[0][2][0])
    save(viewer, "phases.png")


def picture_features(viewer) -> None:
    """What the last layers make of it, without and with the adapter."""
    viewer.layers.clear()
    add_steel(viewer, simulate_steel(seed=7), "New steel", 0)
    dock = dock_of(viewer, "features", "Encoder features")
    dock.models.second.setCurrentIndex(dock.models.second.findData("steel-phases"))
    dock.models.labels.setCurrentIndex(dock.models.labels.findText("New steel painted"))
    dock.look()
    wait_for(lambda: dock.seen is not None and not dock.running)
    viewer.layers["New steel painted"].opacity = 1
    dock.grid.setChecked(True)
    dock.layers.go_to(len(dock.seen.layers) - 2)
    viewer.reset_view()
    save(viewer, "encoder_features.png")


def draw_phases() -> None:
    """Draw the pictures that need a training."""
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    for place, seed in enumerate((0, 3)):
        add_steel(viewer, simulate_steel(seed=seed), f"Steel {place + 1}", place)
    picture_finetune(viewer)
    picture_phases(viewer)
    picture_features(viewer)
    viewer.close()


def picture_ratio() -> None:
    """The shipped adapter on steel, with more martensite wanted than the model sees."""
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    add_steel(viewer, load_sample("three_phase_steel"), "Three-phase steel", 0, labelled=False)
    dock = dock_of(viewer, "ratio", "Phase ratio")
    dock.choose("steel_phases")
    dock.map_phases()
    wait_for(lambda: dock.mapped is not None and not dock.running)
    wait_for(lambda: not dock._lane.busy)
    martensite = next(i for i, n in enumerate(dock.mapped.card.classes) if n == "martensite")
    rows = dock.rows.rows
    rows[(martensite + 1) % len(rows)].lock.setChecked(True)
    rows[martensite].spin.setValue(rows[martensite].spin.value() + 2)
    wait_for(lambda: not dock._lane.busy)
    save(viewer, "phase_ratio.png")
    viewer.close()


def main() -> None:
    """Draw the pictures that were asked for."""
    parser = argparse.ArgumentParser(description="Draw the pictures of the docks.")
    parser.add_argument("folder", nargs="?", type=Path, help="folder of samples")
    parser.add_argument("-k", "--kind", choices=KINDS, help="only these")
    options = parser.parse_args()
    wanted = (options.kind,) if options.kind else KINDS
    if "objects" in wanted:
        draw_objects(options.folder)
    if "ratio" in wanted:
        picture_ratio()
    if "phases" in wanted:
        draw_phases()


def draw_objects(folder: Path | None) -> None:
    """Draw the pictures of docks for objects; the two pairs each on a viewer of its own."""
    sample = load_sample("particles_sem", folder)
    viewer = open_viewer(sample)
    picture_prompt(viewer, sample)
    picture_models(viewer)
    viewer.close()
    viewer = open_viewer(sample)
    picture_automatic(viewer)
    picture_objects(viewer)
    viewer.close()


if __name__ == "__main__":
    main()

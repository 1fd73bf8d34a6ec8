"""The Encoder features dock in a real viewer, with real mouse events."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapter_store import import_adapter
from phasesam.napari_widgets.features import FeaturesDock
from phasesam.napari_widgets.prompts import PromptDock
from phasesam.napari_widgets.reopening import find_dock

pytestmark = pytest.mark.gui


def test_look_walk_point_click_prompt_and_save(
    make_napari_viewer, make_adapter, qtbot, until, click, hover, disc_image, tmp_path
):
    config = AdapterConfig(blocks="all", rank=2, decoder_rank=2)
    import_adapter(make_adapter(tmp_path / "powder.safetensors", config=config), "powder")
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1300, 900)
    viewer.add_image(disc_image, name="SEM", scale=(0.5, 0.5), units=("um", "um"))
    dock = FeaturesDock(viewer)
    viewer.window.add_dock_widget(dock, name="Encoder features")
    dock.state.choose_model("tiny", "powder")
    qtbot.wait(100)
    # The adapter in use is offered beside the model alone.
    assert dock.models.adapters == (None, "powder")
    qtbot.mouseClick(dock.look_button, Qt.MouseButton.LeftButton)
    until(lambda: not dock.running, timeout=120_000)
    assert len(dock.layers.stacks) == 2

    # Walk with the viewer's own slider.
    slider = viewer.window._qt_viewer.dims.slider_widgets[0].slider
    slider.setValue(0)
    assert "block1" in dock.where.text()
    slider.setValue(2)
    assert "neck" in dock.where.text()
    # A click at a curve walks, too.
    qtbot.mouseClick(dock.likeness, Qt.MouseButton.LeftButton, pos=dock.likeness.rect().center())
    assert dock.layers.index == 1

    # Similarity follows the mouse.
    dock.tokens.follow.click()

    def most_similar():
        data = viewer.layers["SEM similarity"].data
        return np.unravel_index(data.argmax(), data.shape)

    hover(viewer, (0.0, 15.0, 20.0))
    until(lambda: "SEM similarity" in viewer.layers)
    similarity = viewer.layers["SEM similarity"]
    for place in ((15, 20), (30, 45)):
        # The window may still be laying out its docks, so that the image moves.
        qtbot.wait(200)
        hover(viewer, (0.0, *map(float, place)))
        until(lambda place=place: most_similar() == place)

    # A click holds a token; the mouse does not move it any more.
    click(viewer, (0.0, 15.0, 20.0))
    until(lambda: dock.picker.point is not None)
    hover(viewer, (0.0, 30.0, 45.0))
    QApplication.processEvents()
    assert similarity.data[15, 20] == pytest.approx(1, abs=1e-5)

    # Its region becomes prompts in the Prompt dock, which opens.
    dock.tokens.least.setValue(50)
    qtbot.mouseClick(dock.tokens.prompt_button, Qt.MouseButton.LeftButton)
    until(lambda: not dock.running)
    prompt = find_dock(dock, PromptDock)
    assert prompt is not None
    present = prompt.controller.present()
    assert present.prompts.count >= 1
    assert (present.prompts.labels == 1).all()
    until(lambda: present.answer is not None, timeout=60_000)

    dock.saving.save_sheet(str(tmp_path / "sheet.svg"))
    until(lambda: not dock.running)
    assert (tmp_path / "sheet.svg").read_text().startswith("<svg")

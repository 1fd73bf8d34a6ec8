"""The Phase ratio dock in a real viewer, with the real network and real mouse and key events."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication, QStyle, QStyleOptionSlider

from phasesam.models.adapter_store import import_adapter
from phasesam.napari_widgets.ratio import RatioDock

pytestmark = pytest.mark.gui

SHAPE = (96, 128)
NAMES = ("ferrite", "bainite", "martensite")


@pytest.fixture(autouse=True)
def _adapter(tmp_path, make_adapter):
    import_adapter(make_adapter(tmp_path / "steel.safetensors", classes=NAMES), "steel")


def mouse(qtbot, widget):
    where = QPoint(8, widget.height() // 2) if widget.metaObject().className() == "QCheckBox" else (
        widget.rect().center()
    )  # fmt: skip
    qtbot.mouseClick(widget, Qt.MouseButton.LeftButton, pos=where)


def typed(qtbot, spin, text):
    qtbot.mouseClick(spin.lineEdit(), Qt.MouseButton.LeftButton)
    spin.selectAll()
    qtbot.keyClicks(spin.lineEdit(), text)
    qtbot.keyClick(spin.lineEdit(), Qt.Key.Key_Return)


def handle(slider):
    option = QStyleOptionSlider()
    slider.initStyleOption(option)
    control, part = QStyle.ComplexControl.CC_Slider, QStyle.SubControl.SC_SliderHandle
    return slider.style().subControlRect(control, option, part, slider).center()


def settled(dock, until):
    until(lambda: not dock.running and not dock._lane.busy, timeout=120_000)


def shares(viewer, name="SEM phase ratio"):
    data = viewer.layers[name].data
    return np.bincount(data.ravel(), minlength=4)[1:] / data.size


def test_ask_lock_paint_undo_compare_and_save(make_napari_viewer, qtbot, until, drag, tmp_path):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1300, 900)
    image = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
    viewer.add_image(image, name="SEM", scale=(0.2, 0.2), units=("um", "um"))
    dock = RatioDock(viewer)
    viewer.window.add_dock_widget(dock, name="Phase ratio")
    qtbot.wait(100)
    mouse(qtbot, dock.map_button)
    settled(dock, until)
    own = dock.rows.shares.values
    first, second, third = dock.rows.rows

    # Drag a slider: previews follow, the map obeys when it is let go.
    start = handle(first.slider)
    qtbot.mousePress(first.slider, Qt.MouseButton.LeftButton, pos=start)
    for step in range(1, 6):
        qtbot.mouseMove(first.slider, start - QPoint(20 * step, 0))
        QApplication.processEvents()
    assert dock.results.log == []
    qtbot.mouseRelease(first.slider, Qt.MouseButton.LeftButton, pos=start - QPoint(100, 0))
    settled(dock, until)
    asked = dock.rows.shares.values[0]
    assert asked < own[0] - 0.02
    assert shares(viewer)[0] == pytest.approx(asked, abs=1e-4)
    assert len(dock.results.log) == 1

    # Lock it, type another share, leave the third to the model.
    mouse(qtbot, first.lock)
    typed(qtbot, second.spin, "10")
    settled(dock, until)
    np.testing.assert_allclose(shares(viewer)[:2], (asked, 0.1), atol=1e-4)
    mouse(qtbot, third.unknown)
    settled(dock, until)
    assert dock.results.log[-1].wanted[2] is None

    # Paint a region; it gets shares of its own.
    mouse(qtbot, dock.regions.paint)
    regions = viewer.layers["SEM regions"]
    assert regions.mode == "paint"
    drag(viewer, (5, 5), (5, 15))
    until(lambda: dock.regions.current == 1)
    settled(dock, until)
    inside = regions.data == 1
    assert inside.sum() > 100
    typed(qtbot, first.spin, "75")
    settled(dock, until)
    data = viewer.layers["SEM phase ratio"].data
    assert (data[inside] == 1).mean() == pytest.approx(0.75, abs=1.5 / inside.sum())
    assert (data[~inside] == 2).mean() == pytest.approx(0.1, abs=1.5 / inside.sum())
    mouse(qtbot, dock.undo_button)
    settled(dock, until)
    assert (data[inside] == 1).mean() != pytest.approx(0.75, abs=0.01)
    mouse(qtbot, dock.redo_button)
    settled(dock, until)

    # Compare two requests, keep, export.
    mouse(qtbot, dock.results.compare_button)
    typed(qtbot, first.spin, "10")
    settled(dock, until)
    mouse(qtbot, dock.results.compare_button)
    assert viewer.canvas.grid.enabled
    kept = [layer for layer in viewer.layers if " region 1 " in layer.name]
    assert len(kept) == 2
    assert (kept[0].data != kept[1].data).any()
    dock.results.export(str(tmp_path / "log.csv"))
    assert (tmp_path / "log.csv").read_text().count("\n") == 1 + 3 * len(dock.results.log)

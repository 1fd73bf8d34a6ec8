"""How long it takes from a slider to the screen; ``pytest -m slow -s`` prints the figures."""

from __future__ import annotations

import time

import numpy as np
import pytest
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QApplication
from scipy.ndimage import gaussian_filter

from phasesam.engines.ratio_guidance import RatioGuide
from phasesam.engines.semantic import PhaseMap
from phasesam.models.adapter_store import import_adapter
from phasesam.napari_widgets.ratio import RatioDock
from phasesam.napari_widgets.ratio_run import RatioGuides

pytestmark = [pytest.mark.gui, pytest.mark.slow]

NAMES = ("ferrite", "bainite", "martensite")
PATIENCE = 30.0


def made_map(side):
    rng = np.random.default_rng(0)
    z = np.stack([gaussian_filter(rng.normal(size=(side, side)), 6) * 40 for _ in NAMES])
    z = np.exp(z + rng.normal(0, 0.3, z.shape))
    probabilities = (z / z.sum(axis=0)).astype(np.float32)
    return PhaseMap(probabilities.argmax(axis=0).astype(np.uint8), NAMES, probabilities)


@pytest.fixture(params=[256, 1024])
def side(request):
    return request.param


@pytest.fixture
def dock(make_napari_viewer, qtbot, until, monkeypatch, tmp_path, make_adapter, side):
    import_adapter(make_adapter(tmp_path / "steel.safetensors", classes=NAMES), "steel")
    found = made_map(side)

    def guide_job(run, config, hints=None):
        guide = RatioGuide(found, np.zeros((side, side)), config)
        return lambda progress, should_stop: RatioGuides(guide, guide)

    monkeypatch.setattr("phasesam.napari_widgets.ratio.guide_job", guide_job)
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1300, 900)
    viewer.add_image(np.zeros((side, side), np.uint8), name="SEM")
    dock = RatioDock(viewer)
    viewer.window.add_dock_widget(dock, name="Phase ratio")
    qtbot.wait(200)
    dock.map_button.click()
    until(lambda: not dock.running and not dock._lane.busy and dock._answer is not None)
    return dock


def until_drawn(dock, move):
    """Seconds from a movement to the first picture that shows what came of it."""
    canvas = dock.viewer.window._qt_viewer.canvas._scene_canvas
    before, drawn, loop = dock._answer, [], QEventLoop()

    def on_draw(event):
        if dock._answer is not before:
            drawn.append(time.perf_counter())
            loop.quit()

    canvas.events.draw.connect(on_draw)
    begin = time.perf_counter()
    # As the program waits: asking all the time would take the turn from the solver.
    QTimer.singleShot(0, move)
    QTimer.singleShot(int(1000 * PATIENCE), loop.quit)
    loop.exec()
    canvas.events.draw.disconnect(on_draw)
    idle(dock)
    return drawn[0] - begin


def idle(dock):
    while dock._lane.busy:
        QApplication.processEvents()
        time.sleep(0.002)


def test_from_the_slider_to_the_screen(dock, side):
    slider = dock.rows.rows[0].slider
    start = slider.value()
    slider.setSliderDown(True)
    dragged = [
        until_drawn(dock, lambda step=step: slider.setValue(start - 10 * step))
        for step in range(1, 16)
    ]
    released = []
    for step in range(5):
        slider.setSliderDown(True)
        slider.setValue(start - 10 * step)
        idle(dock)
        released.append(until_drawn(dock, lambda: slider.setSliderDown(False)))
    figures = {"dragged": np.median(dragged), "released": np.median(released)}
    text = ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in figures.items())
    print(f"\n{side} x {side}, 3 classes, median: {text}")  # noqa: T201
    # Three times what is promised for a machine that does nothing else.
    promised = 0.03 if side == 256 else 0.3
    assert max(figures.values()) < 3 * promised

"""A real viewer with real mouse and keyboard events; needs an X server (pytest-xvfb starts one)."""

from __future__ import annotations

import os
import pathlib
import tempfile

# Before napari.settings is imported: viewer tests reset the settings, so keep them off the
# developer's own file.
os.environ["NAPARI_CONFIG"] = str(pathlib.Path(tempfile.mkdtemp()) / "settings.yaml")

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

_PATIENCE_MS = 20_000


def _canvas_position(viewer, world):
    """Canvas (x, y) pixels of a world point (in the smallest unit of all layers)."""
    view = viewer.window._qt_viewer.canvas.view
    transform = view.transform * view.scene.transform
    shown = [world[axis - viewer.dims.ndim] for axis in viewer.dims.displayed][::-1]
    mapped = np.asarray(transform.map(shown))
    return mapped[:2] / (mapped[3] if len(mapped) > 3 and mapped[3] else 1)


def _qt_point(position):
    return QPoint(*(round(float(c)) for c in position))


def _move(native, position, buttons):
    # QTest.mouseMove carries no pressed buttons, so send the event ourselves.
    where = QPointF(position)
    QApplication.sendEvent(
        native,
        QMouseEvent(
            QEvent.Type.MouseMove,
            where,
            QPointF(native.mapToGlobal(position)),
            Qt.MouseButton.NoButton,
            buttons,
            Qt.KeyboardModifier.NoModifier,
        ),
    )


@pytest.fixture
def click(qtbot):
    """Click at a world position: ``click(viewer, (y, x))``."""

    def _click(viewer, world, button=Qt.MouseButton.LeftButton):
        native = viewer.window._qt_viewer.canvas.native
        position = _qt_point(_canvas_position(viewer, world))
        qtbot.mouseMove(native, position)
        qtbot.mouseClick(native, button, Qt.KeyboardModifier.NoModifier, position)
        return position

    return _click


@pytest.fixture
def hover(qtbot):
    """Move the mouse without pressing a button: ``hover(viewer, (y, x))``."""

    def _hover(viewer, world):
        native = viewer.window._qt_viewer.canvas.native
        position = _qt_point(_canvas_position(viewer, world))
        for step in (QPoint(3, 3), QPoint(0, 0)):
            qtbot.wait(15)  # vispy drops moves closer than 10 ms apart
            _move(native, position + step, Qt.MouseButton.NoButton)

    return _hover


@pytest.fixture
def drag(qtbot):
    """Press, move and release: ``drag(viewer, start, end)``."""

    def _drag(viewer, start, end, steps=6):
        native = viewer.window._qt_viewer.canvas.native
        a, b = _canvas_position(viewer, start), _canvas_position(viewer, end)
        points = [_qt_point(a + (b - a) * t) for t in np.linspace(0, 1, steps)]
        qtbot.mouseMove(native, points[0])
        qtbot.mousePress(native, Qt.MouseButton.LeftButton, pos=points[0])
        for position in points[1:]:
            qtbot.wait(15)
            _move(native, position, Qt.MouseButton.LeftButton)
        qtbot.mouseRelease(native, Qt.MouseButton.LeftButton, pos=points[-1])

    return _drag


@pytest.fixture
def key(qtbot):
    """Press a key on the canvas: ``key(viewer, Qt.Key.Key_N)``."""

    def _key(viewer, code, modifiers=Qt.KeyboardModifier.NoModifier):
        qtbot.keyClick(viewer.window._qt_viewer.canvas.native, code, modifiers)

    return _key


@pytest.fixture
def until(qtbot):
    """Wait until a condition holds, at most 20 s."""

    def _until(condition, timeout=_PATIENCE_MS):
        qtbot.waitUntil(lambda: bool(condition()), timeout=timeout)

    return _until


@pytest.fixture
def viewer_model():
    """A viewer without window or canvas."""
    return ViewerModel()


@pytest.fixture(autouse=True)
def _no_worker_left():
    """Let no thread outlive its test."""
    yield
    from superqt.utils import WorkerBase

    WorkerBase.await_workers(_PATIENCE_MS)
    app = QApplication.instance()
    if app is not None:
        app.processEvents()

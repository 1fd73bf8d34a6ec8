"""Keys pressed on the canvas and in the docks of a real viewer."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

from phasesam.napari_widgets.automatic import AutomaticMasksDock
from phasesam.napari_widgets.objects import ObjectsDock
from phasesam.napari_widgets.prompts import PromptDock
from phasesam.napari_widgets.viewer_state import state_of

pytestmark = pytest.mark.gui

CTRL = Qt.KeyboardModifier.ControlModifier
SHIFT = Qt.KeyboardModifier.ShiftModifier


@pytest.fixture
def viewer(make_napari_viewer, region_segmenter, disc_image):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1200, 900)
    image = viewer.add_image(disc_image, name="discs")
    state_of(viewer).labels_layer(image)
    for place in (2, 40, 80):
        mask = np.zeros(disc_image.shape, bool)
        mask[2:12, place : place + 10] = True
        session(viewer).commit(mask)
    return viewer


@pytest.fixture
def objects(viewer, qtbot):
    return opened(viewer, qtbot, ObjectsDock, "Objects")


def opened(viewer, qtbot, kind, name):
    dock = kind(viewer)
    viewer.window.add_dock_widget(dock, name=name)
    viewer.layers.selection.active = viewer.layers["discs"]
    qtbot.wait(50)
    return dock


def session(viewer):
    return state_of(viewer).session(viewer.layers["discs"])


def count(viewer):
    return len(session(viewer).objects)


@pytest.fixture(params=["canvas", "table"])
def press(request, viewer, objects, qtbot, until):
    """Press a key on the canvas or while the table has the focus."""

    def _press(code, modifiers=Qt.KeyboardModifier.NoModifier):
        if request.param == "canvas":
            target = viewer.window._qt_viewer.canvas.native
        else:
            target = objects.table
        # Shortcuts belong to the window and the widget that have the focus.
        viewer.window._qt_window.activateWindow()
        target.setFocus()
        until(target.hasFocus)
        qtbot.keyClick(target, code, modifiers)
        qtbot.wait(20)

    return _press


@pytest.mark.parametrize("with_prompt", [False, True])
def test_keys_of_the_objects(viewer, objects, press, qtbot, with_prompt):
    if with_prompt:
        opened(viewer, qtbot, PromptDock, "Prompt")
        viewer.layers.selection.active = viewer.layers["discs"]
        objects.parent().raise_()
        qtbot.wait(20)
    press(Qt.Key.Key_J)
    assert objects.table.selected_ids() == [1]
    press(Qt.Key.Key_J)
    assert objects.table.selected_ids() == [2]
    press(Qt.Key.Key_H)
    assert objects.table.selected_ids() == [1]
    press(Qt.Key.Key_Delete)
    assert objects.table.table.ids.tolist() == [2, 3]
    press(Qt.Key.Key_Z, CTRL)
    assert objects.table.table.ids.tolist() == [1, 2, 3]
    press(Qt.Key.Key_Z, CTRL | SHIFT)
    assert objects.table.table.ids.tolist() == [2, 3]


def test_u_opens_the_selected_object_in_the_prompt_dock(viewer, objects, press, qtbot):
    prompt = opened(viewer, qtbot, PromptDock, "Prompt")
    objects.parent().raise_()
    viewer.layers.selection.active = viewer.layers["discs"]
    press(Qt.Key.Key_J)
    press(Qt.Key.Key_U)
    assert prompt.controller.present().reopened.id == 1
    assert count(viewer) == 2
    press(Qt.Key.Key_K)  # a key of the Prompt dock works in the table too
    assert count(viewer) == 3


def test_g_changes_the_scale_wherever_it_is_pressed(viewer, objects, press, qtbot):
    prompt = opened(viewer, qtbot, PromptDock, "Prompt")
    objects.parent().raise_()
    qtbot.wait(20)
    press(Qt.Key.Key_G)
    assert prompt.scale.current == "part"


def test_closing_one_dock_leaves_the_keys_to_the_other(viewer, objects, key, qtbot):
    prompt = opened(viewer, qtbot, PromptDock, "Prompt")
    viewer.window.remove_dock_widget(prompt)
    qtbot.wait(50)
    viewer.layers.selection.active = viewer.layers["discs"]
    key(viewer, Qt.Key.Key_J)
    assert objects.table.selected_ids() == [1]
    key(viewer, Qt.Key.Key_Z, CTRL)
    assert count(viewer) == 2
    bound = len(viewer.keymap)
    viewer.window.remove_dock_widget(objects)
    qtbot.wait(50)
    assert len(viewer.keymap) < bound
    key(viewer, Qt.Key.Key_Z, CTRL)
    assert count(viewer) == 2, "nobody listens any more"


def test_letters_typed_into_the_filter_are_letters(viewer, objects, qtbot):
    objects.filter_box.setFocus()
    for code in (Qt.Key.Key_J, Qt.Key.Key_H, Qt.Key.Key_U, Qt.Key.Key_Delete):
        qtbot.keyClick(objects.filter_box, code)
    assert objects.filter_box.text() == "jhu"
    assert count(viewer) == 3


def test_undo_with_only_the_automatic_dock(viewer, qtbot, key):
    dock = opened(viewer, qtbot, AutomaticMasksDock, "Automatic masks")
    key(viewer, Qt.Key.Key_Z, CTRL)
    assert count(viewer) == 2
    assert dock.footer.result.text() == "Undid: Add object."
    qtbot.keyClick(dock.search.find_button, Qt.Key.Key_Z, CTRL | SHIFT)
    assert count(viewer) == 3

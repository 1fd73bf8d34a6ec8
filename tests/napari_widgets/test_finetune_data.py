"""Task, source, classes: what the upper part of *Fine-tune* asks for."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QLineEdit

from phasesam.core.errors import TrainingDataError
from phasesam.core.images import Normalisation
from phasesam.napari_widgets.finetune_data import DataPanel
from phasesam.napari_widgets.viewer_state import ImageSettings, state_of
from phasesam.training.data_checks import check
from phasesam.training.dataset import from_arrays
from phasesam.training.saving import save_training_folder

SHAPE = (16, 20)


@pytest.fixture
def panel(qtbot, viewer_model):
    panel = DataPanel(state_of(viewer_model))
    qtbot.addWidget(panel)
    return panel


@pytest.fixture
def settled(qtbot, panel):
    def wait():
        qtbot.wait(10)
        qtbot.waitUntil(lambda: not panel.waits and not panel.pairs._timer.isActive(), timeout=9000)

    return wait


@pytest.fixture
def painted(viewer_model, panel, settled):
    """An image with two kinds of strokes."""
    viewer_model.add_image(np.zeros(SHAPE), name="SEM", scale=(0.5, 0.5), units=("um", "um"))
    labels = np.zeros(SHAPE, np.int32)
    labels[2:5, 2:9], labels[9:13, 2:9] = 1, 3
    layer = viewer_model.add_labels(labels, name="strokes")
    settled()
    return layer


def test_nothing_is_asked_for_without_labels(panel):
    assert panel.request() is None
    assert not panel.hint.isHidden()
    assert panel.classes.isHidden()


def test_objects_of_a_layer(panel, painted):
    request = panel.request()
    assert (request.task, request.name, request.path) == ("promptable", "SEM", None)
    assert request.options.unlabelled is None
    assert request.options.classes is None
    (pair,) = request.pairs
    assert pair.pixel_size.x == 0.5
    assert pair.planes == ((),)
    assert panel.hint.isHidden()


def test_what_is_not_painted_is_unlabelled_for_classes_only(panel, painted):
    assert not panel.zero.isChecked()
    panel.use_task("semantic")
    assert panel.zero.isChecked()
    assert panel.request().options.unlabelled == 0
    assert panel.request().options.classes == {1: "class 1", 3: "class 3"}
    panel.zero.setChecked(False)
    assert panel.request().options.classes[0] == "background"
    panel.use_task("instance")
    assert not panel.zero.isChecked()
    panel.use_task("semantic")
    assert not panel.zero.isChecked(), "remembered"


def test_around_committed_objects_is_background(panel, viewer_model, settled):
    image = viewer_model.add_image(np.zeros(SHAPE), name="SEM")
    state = state_of(viewer_model)
    state.labels_layer(image)
    mask = np.zeros(SHAPE, bool)
    mask[2:5, 2:9] = True
    state.session(image).commit(mask, class_name="pore")
    panel.use_task("semantic")
    settled()
    panel.pairs.refresh()
    settled()
    assert panel.request().options.classes == {0: "background", 1: "pore"}
    assert panel.request().options.unlabelled is None


def test_names_of_classes(panel, painted, qtbot):
    panel.use_task("semantic")
    with qtbot.waitSignal(panel.changed):
        panel.classes.edit_name(3, "pore")
    assert panel.request().options.classes == {1: "class 1", 3: "pore"}
    panel.classes.edit_name(3, "")
    assert panel.request().options.classes[3] == "class 3", "no name is no name"
    assert set(panel.colours()) == {1, 3}


def test_a_name_holds_for_the_layer_it_was_typed_for(panel, painted, viewer_model, settled):
    other = viewer_model.add_labels(
        np.asarray(painted.data),
        name="again",
        features={"index": [1, 3], "class": ["ferrite", "pore"]},
    )
    panel.use_task("semantic")
    settled()
    panel.pairs.tick(other, False)
    panel.classes.edit_name(1, "void")
    assert panel.request().options.classes == {1: "void", 3: "class 3"}
    panel.pairs.tick(painted, False)
    panel.pairs.tick(other)
    settled()
    assert panel.request().options.classes == {1: "ferrite", 3: "pore"}
    panel.pairs.tick(painted)
    settled()
    request = panel.request()
    assert request.options.classes == {1: "ferrite", 3: "pore", 4: "void"}
    assert [pair.class_of_value for pair in request.pairs] == [None, {1: 4, 3: 3}]
    panel.classes.edit_name(4, "")
    assert panel.request().options.classes == {1: "ferrite", 3: "pore"}


def test_layers_that_number_their_classes_otherwise(panel, painted, viewer_model, settled):
    names = {"index": [1, 3], "class": ["ferrite", "pore"]}
    painted.features = {**names, "class": ["pore", "ferrite"]}
    viewer_model.add_image(np.zeros((18, 20)), name="far", scale=(0.5, 0.5), units=("um", "um"))
    taller = np.pad(np.asarray(painted.data), ((0, 2), (0, 0)))
    viewer_model.add_labels(taller, name="again", features=names, scale=(0.5, 0.5))
    panel.use_task("semantic")
    settled()
    data = panel.request().read()
    assert data.classes == ("ferrite", "pore")
    top, below = (image.label_array() for image in data.images)
    assert (top[3, 3], top[10, 3]) == (0, 1)
    assert (below[3, 3], below[10, 3]) == (1, 0)


def test_labels_of_no_image_are_told_with_their_size(panel, painted, viewer_model, settled):
    viewer_model.layers["strokes"].data = np.ones((15, 20), np.int32)
    settled()
    assert panel.request() is None
    assert panel.hint.text().startswith("Labels 'strokes' is 15 × 20; its image 'SEM' is 16 × 20.")
    assert "Paint a Labels layer" in panel.hint.text()
    for number in range(4):
        viewer_model.add_labels(np.ones((9, 20 + number), np.int32), name=f"L{number}")
    settled()
    assert panel.hint.text().splitlines()[3] == "And 2 more do not fit."


def test_labels_elsewhere_are_warned_of(panel, painted):
    assert panel.request().warnings == ()
    painted.scale = (-1, 1)
    assert panel.request().warnings == (
        "the labels 'strokes' do not lie on the image 'SEM' in the viewer; they are learnt pixel "
        "by pixel as those of 'SEM'",
    )


def test_two_layers_of_one_image_are_one_picture(panel, painted, viewer_model, settled):
    labels = np.zeros(SHAPE, np.int32)
    labels[2:5, 12:18], labels[3, 3] = 2, 2
    other = viewer_model.add_labels(labels, name="again")
    settled()
    panel.pairs.tick(other)
    settled()
    panel.task.buttons["semantic"].click()
    settled()
    data = panel.request().read()
    assert [image.name for image in data.images] == ["SEM"]
    assert data.class_values == (1, 2, 3)
    found = data.images[0].label_array()
    assert (found[2, 2], found[2, 12], found[3, 3], found[9, 2]) == (0, 1, 1, 2)
    assert any(
        "2 layers of labels lie on 'SEM': they are learnt as one" in w for w in data.warnings
    )


def test_more_values_than_classes_are_called_objects(panel, painted, viewer_model, settled):
    many = np.arange(SHAPE[0] * SHAPE[1], dtype=np.int32).reshape(SHAPE) % 90
    painted.data = many
    settled()
    panel.task.buttons["semantic"].click()
    settled()
    with pytest.raises(TrainingDataError, match="are these objects"):
        panel.request().read()


def test_images_as_the_other_docks_see_them(panel, painted, viewer_model):
    image, shown = viewer_model.layers["SEM"], Normalisation("range", 3.0, 9.0)
    state_of(viewer_model).set_settings(image, ImageSettings(shown, exclude_data_bar=False))
    assert panel.request().pairs[0].normalisation == shown


@pytest.fixture
def folder(tmp_path):
    labels = np.zeros(SHAPE, np.int32)
    labels[3:9] = 2
    images = [(name, np.full(SHAPE, 7, np.uint8), labels, None) for name in "ab"]
    return save_training_folder(from_arrays(images, "semantic"), tmp_path / "steel")


def test_a_folder(panel, folder, qtbot):
    with qtbot.waitSignal(panel.changed):
        panel.use_folder(folder)
    request = panel.request()
    assert (request.path, request.name, request.pairs) == (folder, "steel", ())
    assert not panel.waits


def test_a_folder_is_browsed_for(panel, folder, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a, **k: str(folder))
    panel._browse(True)
    assert panel.request().path == folder
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a, **k: ("", ""))
    panel._browse(False)
    assert panel.request().path == folder, "cancelled"


def test_classes_of_a_folder_can_be_renamed(panel, folder):
    panel.use_task("semantic")
    panel.use_folder(folder)
    assert panel.request().options.classes is None, "not known yet"
    panel.show_found(panel.request().read())
    assert panel.request().options.classes == {0: "class 0", 2: "class 2"}
    panel.classes.edit_name(2, "pore")
    data = panel.request().read()
    assert data.classes == ("class 0", "pore")
    panel.show_found(data)
    panel.path.setText(str(folder / "images"))
    panel.path.editingFinished.emit()
    assert panel.request().options.classes is None, "another folder has classes of its own"


def test_a_folder_that_is_typed_again_is_the_same(panel, folder, qtbot):
    panel.use_folder(folder)
    with qtbot.assertNotEmitted(panel.changed):
        panel.path.editingFinished.emit()


def test_an_experiment_of_a_table(panel, folder, qtbot):
    panel.use_folder(folder)
    panel.experiment.setText("Super1")
    with qtbot.waitSignal(panel.changed):
        panel.experiment.editingFinished.emit()
    assert panel.request().options.experiment == "Super1"


def test_parts_can_be_objects_but_not_classes(panel, painted, qtbot):
    with qtbot.waitSignal(panel.changed):
        panel.parts.setChecked(True)
    assert panel.request().options.components
    panel.use_task("semantic")
    assert not panel.request().options.components
    assert panel.parts.isHidden()


def test_images_keep_their_own_pixel_sizes(panel, painted, viewer_model, settled):
    viewer_model.add_image(np.zeros((10, 12)), name="far", scale=(2, 2), units=("um", "um"))
    viewer_model.add_labels(np.ones((10, 12), int), name="far labels", scale=(2, 2))
    settled()
    data = panel.request().read()
    sizes = {image.name: image.image.load()[1].x for image in data.images}
    assert sizes == {"SEM": 0.5, "far": 2.0}
    assert any("pixel sizes differ" in warning for warning in check(data).warnings)


def names_of(panel):
    return [name for _, name, _ in panel.classes.rows()]


def type_into(panel, qtbot, row, text):
    """Open the editor of a name and type, without Enter."""
    table = panel.classes
    table.editItem(table.topLevelItem(row), 1)
    (editor,) = [e for e in table.findChildren(QLineEdit) if e.isVisible()]
    editor.setText(text)
    return editor


def test_a_name_being_typed_is_not_lost(panel, folder, qtbot):
    panel.use_task("semantic")
    panel.use_folder(folder)
    panel.show()
    panel.show_found(panel.request().read())
    before = names_of(panel)
    editor = type_into(panel, qtbot, 0, "pore")
    panel.show_found(panel.request().read())
    assert editor.isVisible()
    assert editor.text() == "pore"
    qtbot.keyClick(editor, Qt.Key.Key_Return)
    qtbot.wait(20)
    assert names_of(panel) == ["pore", *before[1:]], "not what was found before it was typed"
    editor = type_into(panel, qtbot, 1, "nonsense")
    panel.show_found(panel.request().read())
    qtbot.keyClick(editor, Qt.Key.Key_Escape)
    qtbot.wait(20)
    assert names_of(panel) == ["pore", *before[1:]]


def test_names_of_a_folder_outlive_a_change_of_what_0_means(panel, folder, qtbot):
    panel.use_task("semantic")
    panel.use_folder(folder)
    panel.show_found(panel.request().read())
    value = panel.classes.rows()[-1][0]
    panel.classes.edit_name(value, "matrix")
    panel.zero.click()
    assert panel.classes.rows() == []
    with qtbot.waitSignal(panel.changed):
        panel.show_found(panel.request().read())
    assert names_of(panel)[-1] == "matrix"
    panel.show_found(panel.request().read())
    assert panel.request().options.classes[value] == "matrix"


def test_only_names_can_be_edited(panel, painted, qtbot):
    panel.use_task("semantic")
    panel.show()
    table = panel.classes
    table.editItem(table.topLevelItem(0), 0)
    assert not [e for e in table.findChildren(QLineEdit) if e.isVisible()]


def test_a_blank_name_is_none(panel, folder):
    panel.use_task("semantic")
    panel.use_folder(folder)
    panel.show_found(panel.request().read())
    value = panel.classes.rows()[0][0]
    panel.classes.edit_name(value, "  ")
    assert panel.request().read().classes[0] == f"class {value}"


def test_a_class_painted_while_a_name_is_typed_is_known(panel, painted, qtbot, settled):
    panel.use_task("semantic")
    panel.show()
    editor = type_into(panel, qtbot, 0, "por")
    painted.data[12:14, 12:18] = 5
    painted.events.paint(value=[])
    settled()
    assert editor.isVisible()
    assert set(panel.request().options.classes) == {1, 3, 5}

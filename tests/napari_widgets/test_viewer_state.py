"""Sessions follow their images: removed, added again, given other data."""

import numpy as np
import pytest

from phasesam.napari_widgets.adopting import AdoptRow
from phasesam.napari_widgets.autosaving import autosaver_of
from phasesam.napari_widgets.prompts import PromptDock
from phasesam.session import SegmentationSession


@pytest.fixture
def image(viewer_model, disc_image):
    return viewer_model.add_image(disc_image, name="discs", scale=(0.5, 0.5), units="um")


@pytest.fixture
def dock(qtbot, viewer_model, region_segmenter, image):
    dock = PromptDock(viewer_model)
    qtbot.addWidget(dock)
    dock.show()
    return dock


@pytest.fixture
def session(dock, until, image):
    """A session with an object for each disc."""
    session = dock.state.session(image)
    dock.state.labels_layer(image)
    for y, x in ((30, 40), (60, 90)):
        mask = np.zeros((96, 128), bool)
        mask[y - 5 : y + 5, x - 5 : x + 5] = True
        session.commit(mask, class_name="disc")
    until(lambda: session.image_key)
    return session


def names(viewer):
    return [layer.name for layer in viewer.layers if layer.name.endswith("objects")]


def test_objects_come_back_with_an_image_that_is_opened_again(
    dock, until, viewer_model, session, image, disc_image
):
    viewer_model.layers.remove(image)
    assert names(viewer_model) == ["discs objects"]
    again = viewer_model.add_image(disc_image.copy(), name="again", scale=(2, 2), units="um")
    until(lambda: dock.state.session(again) is session)
    assert [record.class_name for record in session.objects] == ["disc", "disc"]
    assert session.pixel_size.y == 2
    assert names(viewer_model) == ["again objects"]
    labels = dock.state.labels_layer(again)
    np.testing.assert_array_equal(labels.data, session.labels)
    np.testing.assert_array_equal(labels.scale, again.scale)
    assert dock.footer.result.text() == "Back with this image: 2 objects."
    dock.maker.undo()
    assert len(session.objects) == 1
    assert labels.data.max() == 1


def test_objects_come_back_with_the_very_same_layer(dock, viewer_model, session, image):
    labels = dock.state.labels_layer(image)
    viewer_model.layers.remove(image)
    viewer_model.layers.insert(0, image)
    assert dock.state.session(image) is session
    assert dock.state.labels_layer(image) is labels
    session.undo()
    assert labels.data.max() == 1


def test_another_image_does_not_get_the_objects(dock, until, viewer_model, session, image):
    viewer_model.layers.remove(image)
    other = viewer_model.add_image(np.random.default_rng(0).random((96, 128)))
    until(lambda: dock.state.session(other).image_key)
    assert dock.state.session(other).objects == ()
    assert len(session.objects) == 2


def test_an_image_with_objects_of_its_own_keeps_them(
    dock, until, viewer_model, session, image, disc_image
):
    viewer_model.layers.remove(image)
    again = viewer_model.add_image(disc_image.copy())
    own = dock.state.session(again)
    own.commit(np.eye(96, 128, dtype=bool))
    until(lambda: own.image_key)
    assert dock.state.session(again) is own
    # The others can still be taken over.
    row = dock.findChild(AdoptRow)
    assert [row.combo.itemText(i) for i in range(row.combo.count())] == ["discs objects"]
    row.button.click()
    assert len(own.objects) == 2


def test_own_labels_of_an_image_that_is_there_are_not_offered(dock, session):
    assert not dock.findChild(AdoptRow).button.isEnabled()


def test_an_open_object_is_put_back_when_its_image_is_removed(dock, viewer_model, session, image):
    assert dock.maker.reopen(1)
    viewer_model.layers.remove(image)
    assert [record.id for record in session.objects] == [1, 2]
    viewer_model.layers.insert(0, image)
    dock.state.image_layer = image
    assert dock.controller.present().is_empty


def test_removing_an_image_saves_its_objects(dock, viewer_model, session, image):
    assert not session.autosave_path.exists()
    viewer_model.layers.remove(image)
    assert len(SegmentationSession.load(session.autosave_path).objects) == 2


def test_removed_images_are_still_saved(dock, viewer_model, session, image):
    viewer_model.layers.remove(image)
    session.undo()
    autosaver_of(dock.state).save_now()
    assert len(SegmentationSession.load(session.autosave_path).objects) == 1


def say(dock, until, y, x):
    dock.tools.use("+")
    dock.controller.layers(dock.state.image_layer).points.add([[y, x]])
    until(lambda: dock.controller.present().answer is not None)


def test_data_of_another_size_part_the_image_from_its_objects(
    dock, until, viewer_model, session, image, disc_image
):
    assert dock.maker.reopen(1)
    before = dock.state.labels_layer(image)
    image.data = disc_image[:80, :100].copy()
    assert dock.state.session(image).shape == (80, 100)
    assert dock.state.session(image).objects == ()
    assert dock.footer.result.text().startswith("'discs' has another size now. Left in the old")
    assert [record.id for record in session.objects] == [1, 2]
    np.testing.assert_array_equal(before.data, session.labels)
    assert dock.controller.present().is_empty
    say(dock, until, 30, 40)
    dock.maker.add()
    assert [record.area for record in dock.state.session(image).objects] == [613]
    assert dock.state.labels_layer(image).data.shape == (80, 100)
    assert len(session.objects) == 2
    assert session in dock.state.sessions()


def test_data_that_become_a_stack_can_be_prompted(dock, until, viewer_model, session, image):
    image.data = np.stack([image.data] * 3)
    session = dock.state.session(image)
    assert session.shape == (3, 96, 128)
    plane = dock.state.plane(image)
    dock.tools.use("+")
    dock.controller.layers(image).points.add(plane.at(np.array([30, 40])))
    until(lambda: dock.controller.present().answer is not None)
    dock.maker.add()
    assert [record.plane for record in session.objects] == [plane.index]


def test_the_first_size_brings_the_objects_back(dock, until, session, image, disc_image):
    image.data = disc_image[:80, :100].copy()
    image.data = disc_image
    until(lambda: dock.state.session(image) is session)
    np.testing.assert_array_equal(dock.state.labels_layer(image).data, session.labels)


def test_other_data_of_the_same_size_are_asked_about_again(
    dock, until, viewer_model, session, image, disc_image
):
    say(dock, until, 30, 40)
    first = dock.controller.present().answer
    image.data = np.roll(disc_image, 3, axis=0)
    until(lambda: dock.controller.present().answer not in (None, first))
    assert dock.state.session(image) is session
    assert len(session.objects) == 2

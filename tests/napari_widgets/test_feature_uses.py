"""What layers are good for: a place to begin adapting, likeness to a phase, groups, slices."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose
from PIL import Image as Picture
from qtpy.QtCore import Qt

from phasesam.core.similar_region import class_similarity, unit_tokens
from phasesam.core.token_grid import token_labels
from phasesam.engines import features
from phasesam.formats.overlay import PALETTE
from phasesam.napari_widgets.feature_run import spread_planes
from phasesam.napari_widgets.features import FeaturesDock
from phasesam.napari_widgets.finetune import FineTuneDock
from phasesam.napari_widgets.planes import ShownPlane


@pytest.fixture
def dock(viewer_model, shown, disc_image):
    viewer_model.add_image(disc_image, name="SEM")
    viewer_model.add_labels(np.where(disc_image > 0.5, 2, 1), name="phases")
    dock = shown(FeaturesDock(viewer_model), (460, 800))
    dock.state.choose_model("tiny")
    dock.models.labels.setCurrentIndex(dock.models.labels.findText("phases"))
    return dock


def look(dock, until):
    dock.look()
    until(lambda: not dock.running, timeout=120_000)


def choose(dock, name):
    dock.tokens.towards.setCurrentIndex(dock.tokens.towards.findText(name))
    dock.tokens.towards.activated.emit(dock.tokens.towards.currentIndex())


def test_tokens_like_a_phase(dock, until, viewer_model):
    look(dock, until)
    assert dock.tokens.towards.isVisible()
    choose(dock, "class 2")
    layer = viewer_model.layers["SEM similarity"]
    units = unit_tokens(dock.seen.found.tokens[0][0].maps["neck"])
    members = token_labels(dock.seen.labels, units.shape[:2], dock.seen.side(2)) == 1
    assert_allclose(layer.data, class_similarity(units, members), atol=1e-6)
    assert dock.tokens.object_button.isEnabled()
    assert not dock.tokens.connected.isEnabled()
    before = layer.data.copy()
    dock.layers.go_to(0)
    assert (viewer_model.layers["SEM similarity"].data != before).any()
    dock.tokens.object_button.click()
    until(lambda: not dock.running)
    assert "Object 1 added" in dock.footer.result.text()
    # The mouse takes over again.
    dock.tokens.follow.setChecked(True)
    assert dock.tokens.towards.currentIndex() == 0
    assert dock.picker.class_index is None
    assert not dock.tokens.object_button.isEnabled()


def test_a_phase_that_is_most_of_no_token(dock, until, viewer_model):
    labels = viewer_model.layers["phases"]
    labels.data[0, 0] = 3
    look(dock, until)
    choose(dock, "class 3")
    assert "class 3: the class is most of no token" in dock.footer.result.text()
    assert "SEM similarity" not in viewer_model.layers
    assert not dock.tokens.object_button.isEnabled()
    dock.add_object()
    assert "most of no token" in dock.footer.result.text()
    choose(dock, "class 2")
    assert dock.tokens.object_button.isEnabled()


def test_combo_and_picker_say_the_same(dock, until, viewer_model):
    look(dock, until)
    choose(dock, "class 2")
    other = viewer_model.add_image(np.random.default_rng(0).random((40, 50)), name="other")
    viewer_model.layers.selection.active = other
    assert dock.tokens.towards.currentText() == "class 2"
    assert dock.picker.class_index == 1
    viewer_model.layers.selection.active = viewer_model.layers["SEM"]
    dock.look()
    dock.cancel()
    until(lambda: not dock.running)
    assert dock.tokens.towards.currentText() == "class 2"
    # Looking again begins anew.
    look(dock, until)
    assert dock.tokens.towards.currentIndex() == 0
    assert dock.picker.class_index is None
    assert not dock.tokens.object_button.isEnabled()
    choose(dock, "class 2")
    choose(dock, "the token under the mouse")
    assert dock.tokens.follow.isChecked()
    assert dock.picker.class_index is None


def test_nothing_is_compared_once_the_colours_are_gone(dock, until, viewer_model):
    look(dock, until)
    choose(dock, "class 2")
    viewer_model.layers.remove("SEM features A")
    assert not viewer_model.layers["SEM similarity"].visible
    assert not dock.tokens.object_button.isEnabled()


def test_nothing_is_suggested_that_is_not_known(dock, until, viewer_model):
    dock.settings.which.setText("block2, neck")
    look(dock, until)
    assert dock.probe.isVisible()
    assert not dock.begin.isVisible()
    dock.settings.which.setText("")
    # Labels in one band only: no probe can be judged.
    labels = viewer_model.layers["phases"]
    labels.data[:, 20:] = 0
    look(dock, until)
    assert not dock.begin.isVisible()


def test_without_labels_only_the_mouse(dock, until):
    dock.models.labels.setCurrentIndex(0)
    look(dock, until)
    assert not dock.tokens.towards.isVisible()
    assert not dock.begin.isVisible()


def test_where_to_begin_goes_to_the_recipe(dock, until, viewer_model, shown, monkeypatch):
    look(dock, until)
    assert dock.begin.isVisible()
    assert "adapt" in dock.begin.text.text()
    dock.begin.chosen.emit("block2")
    assert "Open the Fine-tune dock first" in dock.footer.result.text()
    other = shown(FineTuneDock(viewer_model), (460, 800))
    monkeypatch.setattr("phasesam.napari_widgets.features.raised_dock", lambda *_: other)
    dock.begin.chosen.emit("block2")
    assert other.recipe.blocks.currentText() == "from block2 on"
    assert other.recipe.recipe().adapter.blocks == "block2"
    # What runs goes on.
    with monkeypatch.context() as patch:
        left = []
        patch.setattr(FineTuneDock, "running", True)
        patch.setattr(FineTuneDock, "show_setup", lambda _dock: left.append(1))
        dock.begin.chosen.emit("all")
        assert not left
    assert other.recipe.recipe().adapter.blocks == "all"
    other.recipe.blocks.setEnabled(False)
    dock.begin.chosen.emit("block2")
    assert "leaves the encoder alone" in dock.footer.result.text()
    # A recipe that is chosen brings its own.
    other.recipe.select(other.recipe.recipes.currentData())
    assert other.recipe.recipe().adapter.blocks == "late"


def test_cancelling_half_way_leaves_what_was_there(dock, until, viewer_model, monkeypatch):
    look(dock, until)
    before, names = dock.seen, [layer.name for layer in viewer_model.layers]
    reached, original = threading.Event(), features.compare_layers

    def slowly(*args, progress, should_stop, **options):
        def tell(done, total):
            progress(done, total)
            if done == 2:
                reached.set()
                while not should_stop():
                    time.sleep(0.01)

        return original(*args, progress=tell, should_stop=should_stop, **options)

    monkeypatch.setattr(features, "compare_layers", slowly)
    dock.look()
    until(reached.is_set)
    dock.cancel()
    until(lambda: not dock.running)
    assert "cancelled" in dock.footer.result.text()
    assert dock.seen is before
    assert [layer.name for layer in viewer_model.layers] == names
    assert dock.look_button.isEnabled()


def test_groups_are_coloured(dock, until, viewer_model):
    dock.settings.space.set_current("groups")
    dock.settings.groups.setValue(3)
    look(dock, until)
    stack = viewer_model.layers["SEM features A"].data
    colours = {tuple(colour) for colour in stack.reshape(-1, 3).tolist()}
    assert colours <= {tuple(colour) for colour in PALETTE[:3].tolist()}
    assert len(colours) > 1


def test_directions_of_several_planes(viewer_model, shown, until, disc_image):
    planes = np.stack(
        [disc_image, np.flipud(disc_image), np.zeros_like(disc_image), 1 - disc_image]
    )
    viewer_model.add_image(planes, name="scan")
    truth = np.where(planes > 0.5, 2, 1)
    viewer_model.add_labels(truth, name="phases")
    viewer_model.dims.set_current_step(0, 1)
    dock = shown(FeaturesDock(viewer_model), (460, 800))
    dock.state.choose_model("tiny")
    dock.models.labels.setCurrentIndex(dock.models.labels.findText("phases"))
    look(dock, until)
    alone = viewer_model.layers["scan features A"].data.copy()
    dock.settings.planes.setValue(4)
    look(dock, until)
    assert dock.seen.plane.index == (1,)
    # The plane without contrast is left out.
    assert len(dock.seen.found.tokens[0]) == 3
    together = viewer_model.layers["scan features A"].data
    assert together.shape == alone.shape
    assert (together != alone).any()


@pytest.mark.parametrize("n", [1, 2, 5, 9])
@pytest.mark.parametrize("own", [0, 3, 6])
def test_planes_are_spread_around_the_one_shown(n, own):
    shown = ShownPlane((own,), (4, 5))
    found = spread_planes((7, 4, 5), shown, n)
    indices = [plane.index for plane in found]
    assert len(indices) == min(n, 7) - 1
    assert len({*indices}) == len(indices)
    if n >= 7:
        assert (own,) not in indices
    assert spread_planes((4, 5), ShownPlane((), (4, 5)), n) == ()


def tick(dock, name):
    items = [dock.settings.others.item(row) for row in range(dock.settings.others.count())]
    next(item for item in items if item.text() == name).setCheckState(Qt.CheckState.Checked)


def test_several_images_share_their_colours(dock, until, viewer_model, disc_image):
    viewer_model.add_image(np.fliplr(disc_image), name="turned", translate=(0, 200))
    viewer_model.add_image(np.flipud(disc_image), name="third")
    viewer_model.layers.selection.active = viewer_model.layers["SEM"]
    assert dock.settings.others.count() == 2
    tick(dock, "turned")
    look(dock, until)
    names = [layer.name for layer in viewer_model.layers if "features" in layer.name]
    assert names == ["SEM features A", "turned features A"]
    assert_allclose(viewer_model.layers["turned features A"].translate[1:], (0.5, 200.5))
    # The same in both, but for what the encoder makes of the other direction.
    assert dock.seen.found is dock._all[1][1].found
    assert len(dock.seen.layers[0].pictures[0]) == 2
    # Tokens, labels and results are those of the active image.
    assert dock.seen.labels is not None
    viewer_model.layers.selection.active = viewer_model.layers["turned"]
    assert dock.image.name == "turned"
    assert dock.seen.labels is None
    dock.tokens.follow.setChecked(True)
    dock.picker.show(np.array([30.0, 40.0]))
    assert "turned similarity" in viewer_model.layers
    viewer_model.layers.remove("turned")
    names = [layer.name for layer in viewer_model.layers if "features" in layer.name]
    assert names == ["SEM features A"]
    assert dock.image.name == "SEM"
    assert dock.tokens.towards.findText("class 2") > 0


def test_the_sheet_is_of_the_active_image(dock, until, viewer_model, disc_image, tmp_path):
    viewer_model.add_image(disc_image[:, :64], name="narrow")
    viewer_model.layers.selection.active = viewer_model.layers["SEM"]
    tick(dock, "narrow")
    look(dock, until)
    assert "64 x 48 tokens of 2 px" in dock.where.text()
    sizes = []
    for name in ("SEM", "narrow"):
        viewer_model.layers.selection.active = viewer_model.layers[name]
        dock.saving.save_sheet(str(tmp_path / f"{name}.png"))
        until(lambda: not dock.running)
        with Picture.open(tmp_path / f"{name}.png") as sheet:
            sizes.append(sheet.size)
    assert sizes[1][0] < sizes[0][0]
    assert "43 x 64 tokens of 1.5 px" in dock.where.text()


def test_ticks_stay_with_their_images(dock, viewer_model, disc_image):
    for name in ("one", "two"):
        viewer_model.add_image(disc_image, name=name)
    viewer_model.layers.selection.active = viewer_model.layers["SEM"]
    tick(dock, "two")
    viewer_model.layers.remove("one")
    assert [image.name for image in dock.settings.images] == ["two"]
    viewer_model.layers.selection.active = viewer_model.layers["two"]
    assert dock.settings.images == []

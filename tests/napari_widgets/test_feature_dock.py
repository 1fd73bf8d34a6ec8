"""The Encoder features dock without a canvas, with the seeded tiny model."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from napari.layers import Labels
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image as Picture

from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapter_store import import_adapter
from phasesam.napari_widgets.feature_curves import LayerCurve, LayerCurves
from phasesam.napari_widgets.features import FeaturesDock
from phasesam.napari_widgets.layers import world_to_data

SHAPE = (96, 128)
LAYERS = ("block1", "block2", "neck")


@pytest.fixture(autouse=True)
def _adapter(tmp_path, make_adapter):
    config = AdapterConfig(blocks="all", rank=2, decoder_rank=2)
    import_adapter(make_adapter(tmp_path / "powder.safetensors", config=config), "powder")


@pytest.fixture
def dock(viewer_model, shown, disc_image):
    viewer_model.add_image(disc_image, name="SEM", scale=(0.5, 0.5), units=("um", "um"))
    dock = shown(FeaturesDock(viewer_model), (460, 800))
    dock.state.choose_model("tiny")
    return dock


def look(dock, until):
    dock.look()
    until(lambda: not dock.running, timeout=120_000)


def paint_discs(viewer, disc_image):
    values = np.where(disc_image > 0.5, 2, 1)
    return viewer.add_labels(values, name="phases", scale=(0.5, 0.5), units=("um", "um"))


def test_two_models_are_shown_as_stacks_on_the_image(dock, until, viewer_model):
    dock.models.second.setCurrentIndex(dock.models.second.findData("powder"))
    look(dock, until)
    assert [layer.name for layer in dock.layers.stacks] == ["SEM features A", "SEM features B"]
    image = viewer_model.layers["SEM"]
    for stack in dock.layers.stacks:
        assert stack.data.shape == (3, 48, 64, 3)
        # Each token is 2 pixels wide: the centre of the first lies between the first two pixels.
        corner = world_to_data(viewer_model, image, stack.data_to_world((0, 0, 0)))
        assert_allclose(corner, (0.5, 0.5), atol=1e-9)
        corner = world_to_data(viewer_model, image, stack.data_to_world((0, 47, 63)))
        assert_allclose(corner, (94.5, 126.5), atol=1e-9)
    assert (dock.layers.stacks[0].data != dock.layers.stacks[1].data).any()
    assert dock.seen.layers[0].name == "block1"
    assert "neck" in dock.where.text()
    assert "likeness" in dock.where.text()
    # Looking again replaces them.
    look(dock, until)
    assert len([layer for layer in viewer_model.layers if "features" in layer.name]) == 2


def test_walking_says_where_one_is(dock, until, viewer_model):
    look(dock, until)
    for index, name in enumerate(LAYERS):
        dock.layers.go_to(index)
        assert dock.layers.index == index
        assert f"<b>{name}</b> · {index + 1} of 3" in dock.where.text()
    assert not dock.likeness.isVisible()
    viewer_model.dims.set_current_step(0, 0)
    assert dock.layers.index == 0


def test_labels_give_figures(dock, until, viewer_model, disc_image):
    labels = paint_discs(viewer_model, disc_image)
    assert dock.models.labels.findText("phases") > 0
    dock.models.labels.setCurrentIndex(dock.models.labels.findText("phases"))
    assert dock.models.labels_layer is labels
    look(dock, until)
    assert "probe A" in dock.where.text()
    assert dock.seen.classes == ("class 1", "class 2")
    assert [curve.name for curve in dock.probe.curves] == ["A"]
    dock.probe.chosen.emit(1)
    assert dock.probe.here == 1
    viewer_model.layers.remove(labels)
    assert dock.models.labels_layer is None


def test_labels_of_another_shape_are_refused(dock, until, viewer_model):
    viewer_model.add_labels(np.ones((5, 7), int), name="other")
    dock.models.labels.setCurrentIndex(dock.models.labels.findText("other"))
    dock.look()
    assert "(5, 7)" in dock.footer.result.text()
    assert not dock.running


def test_an_unknown_layer_is_told(dock, until):
    dock.settings.which.setText("block1, block9")
    look(dock, until)
    assert "block1, block2, neck" in dock.footer.result.text()
    dock.settings.which.setText("neck, block1")
    look(dock, until)
    assert [view.name for view in dock.seen.layers] == ["block1", "neck"]


def test_a_constant_image_is_told(viewer_model, shown, until):
    viewer_model.add_image(np.ones(SHAPE, np.float32), name="flat")
    dock = shown(FeaturesDock(viewer_model), (460, 800))
    dock.state.choose_model("tiny")
    look(dock, until)
    assert "are equal" in dock.footer.result.text()
    assert dock.look_button.isEnabled()


def test_a_token_becomes_an_object(dock, until, viewer_model):
    look(dock, until)
    dock.tokens.follow.setChecked(True)
    assert dock.picker.show(np.array([30.0, 40.0]))
    layer = viewer_model.layers["SEM similarity"]
    assert layer.data.shape == (48, 64)
    assert layer.data[15, 20] == pytest.approx(1, abs=1e-5)
    dock.picker._point = np.array([30.0, 40.0])
    dock.picker.picked.emit()
    assert dock.tokens.object_button.isEnabled()
    dock.tokens.least.setValue(70)
    dock.tokens.object_button.click()
    until(lambda: not dock.running)
    labels = dock.state.existing_labels_layer(viewer_model.layers["SEM"])
    expected = dock.picker.region(0.7, connected=True)()
    assert_array_equal(np.asarray(labels.data) > 0, expected)
    assert expected[30, 40]
    # Walking on shows the same place in another layer.
    before = layer.data.copy()
    dock.layers.go_to(0)
    assert (viewer_model.layers["SEM similarity"].data != before).any()
    dock.tokens.follow.setChecked(False)
    assert not viewer_model.layers["SEM similarity"].visible
    assert dock.picker.point is None


def test_sheet_and_table_are_written(dock, until, tmp_path):
    dock.models.second.setCurrentIndex(dock.models.second.findData("powder"))
    look(dock, until)
    dock.saving.save_sheet(str(tmp_path / "sheet.png"))
    until(lambda: not dock.running)
    with Picture.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 4 * 160
    dock.saving.save_table(str(tmp_path / "table.csv"))
    with (tmp_path / "table.csv").open(newline="") as file:
        assert [row["layer"] for row in csv.DictReader(file)] == list(LAYERS)
    dock.saving.save_sheet(str(tmp_path / "sheet.gif"))
    until(lambda: not dock.running)
    assert ".png or .svg" in dock.footer.result.text()


def test_the_plane_in_view_of_a_stack(viewer_model, shown, until, disc_image):
    stack = np.stack([disc_image * (1 + k) for k in range(4)])
    viewer_model.add_image(stack, name="scan", scale=(3.0, 0.5, 0.5))
    viewer_model.dims.set_current_step(0, 2)
    dock = shown(FeaturesDock(viewer_model), (460, 800))
    dock.state.choose_model("tiny")
    look(dock, until)
    layer = dock.layers.stacks[0]
    assert layer.data.shape == (3, 1, 48, 64, 3)
    assert dock.seen.plane.index == (2,)
    place = world_to_data(
        viewer_model, viewer_model.layers["scan"], layer.data_to_world((0, 0, 0, 0))
    )
    assert_allclose(place, (2, 0.5, 0.5), atol=1e-9)
    # The slider of the layers is not that of the planes.
    dock.layers.go_to(1)
    assert dock.layers.index == 1
    assert dock.state.plane(viewer_model.layers["scan"]).index == (2,)


def test_what_was_clicked_stays_on_its_plane(viewer_model, shown, until, disc_image):
    viewer_model.add_image(np.stack([disc_image] * 4), name="scan")
    viewer_model.dims.set_current_step(0, 1)
    dock = shown(FeaturesDock(viewer_model), (460, 800))
    dock.state.choose_model("tiny")
    look(dock, until)
    dock.picker._point = np.array([30.0, 40.0])
    dock.picker.refresh()
    assert viewer_model.layers["scan similarity"].visible
    viewer_model.dims.set_current_step(1, 3)
    assert not viewer_model.layers["scan similarity"].visible
    dock.prompt()
    assert "Go back to the plane" in dock.footer.result.text()


def test_labels_beside_the_image_and_objects_are_refused(dock, until, viewer_model, disc_image):
    many = np.arange(96 * 128).reshape(96, 128)
    options = {"scale": (0.5, 0.5), "units": ("um", "um")}
    viewer_model.add_labels(many, name="objects", **options)
    viewer_model.add_labels((disc_image > 0.5) + 1, name="moved", translate=(9, 9), **options)
    viewer_model.add_labels((disc_image > 0.5).astype(int), name="one", **options)
    for name, words in (
        ("objects", "at most 50 phases"),
        ("moved", "lie beside the image"),
        ("one", "no figures"),
    ):
        dock.models.labels.setCurrentIndex(dock.models.labels.findText(name))
        look(dock, until)
        assert words in dock.footer.result.text()


def test_an_adapter_that_leaves_the_encoder_is_told(
    dock, until, viewer_model, make_adapter, tmp_path
):
    config = AdapterConfig(encoder=(), decoder_rank=2)
    import_adapter(make_adapter(tmp_path / "decoder.safetensors", config=config), "decoder")
    dock.refresh()
    dock.models.second.setCurrentIndex(dock.models.second.findData("decoder"))
    look(dock, until)
    assert "the encoder of A" in dock.footer.result.text()


def test_layers_leave_with_the_image(dock, until, viewer_model):
    look(dock, until)
    viewer_model.layers.remove("SEM")
    assert dock.seen is None
    assert not any("features" in layer.name for layer in viewer_model.layers)
    assert not dock.saving.sheet_button.isEnabled()


def test_cancelling_leaves_nothing(dock, until, viewer_model):
    dock.look()
    dock.cancel()
    until(lambda: not dock.running)
    assert dock.seen is None
    assert len(viewer_model.layers) == 1
    look(dock, until)
    assert dock.seen is not None


def test_curves_know_their_layers(shown, qtbot):
    curves = LayerCurves("Probe", "tip")
    curves.set_curves([LayerCurve("A", (0.2, float("nan"), 0.9), 4)], LAYERS)
    shown(curves, (300, 130))
    assert [curves.index_at(x) for x in (0, 149, 299)] == [0, 1, 2]
    curves.mark(1)
    assert not curves.grab().isNull()
    curves.set_curves([], ())
    assert curves.index_at(10) is None


def test_prompts_need_a_window(dock, until):
    look(dock, until)
    dock.picker._point = np.array([30.0, 40.0])
    dock.tokens.least.setValue(0)
    dock.prompt()
    until(lambda: not dock.running)
    assert "Prompt dock" in dock.footer.result.text()


def test_only_labels_are_offered(dock, viewer_model, disc_image):
    paint_discs(viewer_model, disc_image)
    viewer_model.add_points([[1, 2]])
    texts = [dock.models.labels.itemText(i) for i in range(dock.models.labels.count())]
    assert texts == ["none", "phases"]
    assert isinstance(viewer_model.layers["phases"], Labels)

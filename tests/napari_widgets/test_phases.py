"""The Phases dock without a canvas, with the real engine on the tiny model."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
import torch

from phasesam.core.errors import CancelledError
from phasesam.core.images import Normalisation
from phasesam.core.phase_fraction import phase_fraction
from phasesam.core.types import PixelSize
from phasesam.engines.semantic import PhaseMap, PhaseMapConfig
from phasesam.models.adapter_store import get_adapter, import_adapter
from phasesam.models.manager import get_manager
from phasesam.models.registry import forget, import_checkpoint
from phasesam.models.sam import build_model
from phasesam.napari_widgets import phase_run
from phasesam.napari_widgets.class_colours import class_colour, layer_class_names, layer_colour
from phasesam.napari_widgets.phase_run import PlaneMap
from phasesam.napari_widgets.phase_shares import ShareQuestion
from phasesam.napari_widgets.phases import PhasesDock
from phasesam.napari_widgets.training_layers import is_learnable

SHAPE = (24, 32)
NAMES = ("ferrite", "bainite", "martensite")
RUN_MS = 60_000


def stripes(plane=()):
    """Three classes side by side, shifted from plane to plane."""
    shift = plane[0] if plane else 0
    return (np.arange(SHAPE[1])[None] + shift + np.zeros((SHAPE[0], 1), int)) // 8 % 3


@pytest.fixture
def adapter(tmp_path, make_adapter):
    path = make_adapter(
        tmp_path / "steel.safetensors",
        classes=NAMES,
        class_colours=["#ff0000", "#00ff00", "#0000ff"],
    )
    return import_adapter(path, "steel")


@pytest.fixture
def dock(viewer_model, adapter, shown):
    return shown(PhasesDock(viewer_model), (420, 700))


@pytest.fixture
def engine(monkeypatch):
    """Map stripes instead of asking a model; `gate` holds it up."""
    gate = threading.Event()
    gate.set()
    asked = []

    def mapping_job(run, send):
        asked.append(run)

        def job(progress, should_stop):
            for number, plane in enumerate(run.planes):
                while not gate.wait(0.01):
                    if should_stop():
                        raise phase_run.CancelledError("stopped")
                values = (stripes(plane) + 1).astype(np.uint8)
                sure = np.full(SHAPE, 0.5, np.float32) if run.with_confidence else None
                send(PlaneMap(plane, values, sure))
                progress(number + 1, len(run.planes))
            return len(run.planes)

        return job

    monkeypatch.setattr("phasesam.napari_widgets.phases.mapping_job", mapping_job)
    return gate, asked


def finished(dock, until):
    until(lambda: not dock.running, timeout=RUN_MS)
    return dock.footer.result.text()


def phases(dock, name="SEM phases"):
    return dock.viewer.layers[name]


def test_without_adapters_the_way_to_one_is_shown(qtbot, viewer_model):
    dock = PhasesDock(viewer_model)
    qtbot.addWidget(dock)
    dock.show()
    assert dock.hint.isVisible()
    assert not dock.plane_button.isEnabled()
    dock.segment()
    assert "Fine-tune" in dock.footer.result.text()


def test_classes_of_the_adapter_in_its_colours(dock):
    assert dock.adapters.currentText() == "steel"
    assert [name for _, name, _ in dock.classes.rows()] == list(NAMES)
    assert not dock.hint.isVisible()


def test_a_plane_is_mapped(dock, engine, until):
    dock.viewer.add_image(np.zeros(SHAPE), name="SEM", scale=(0.5, 0.5), units=("um", "um"))
    dock.plane_button.click()
    assert "1 plane mapped in" in finished(dock, until)
    layer = phases(dock)
    np.testing.assert_array_equal(layer.data, stripes() + 1)
    assert layer.data.dtype == np.uint8
    assert [layer_colour(layer, value).name() for value in (1, 2, 3)] == [
        "#ff0000", "#00ff00", "#0000ff",
    ]  # fmt: skip
    assert layer_colour(layer, 0) is None
    assert layer_class_names(layer) == dict(enumerate(NAMES, start=1))
    np.testing.assert_allclose(layer.scale, (0.5, 0.5))
    assert is_learnable(layer), "maps that were corrected can be learnt from"
    assert (dock.state.model_name, dock.state.adapter) == ("tiny", "steel")
    assert dock.viewer.layers.selection.active is dock.viewer.layers["SEM"]


def shares(dock):
    return {name: texts for _, name, texts in dock.classes.rows()}


def test_fractions_follow_the_map_and_its_corrections(dock, engine, until):
    dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    dock.plane_button.click()
    finished(dock, until)
    until(lambda: shares(dock)["ferrite"][0])
    expected = phase_fraction(stripes() == 0)
    assert shares(dock)["ferrite"] == (
        "50.0\u00a0%", f"{100 * expected.low:.1f}–{100 * expected.high:.1f}\u00a0%",
    )  # fmt: skip
    layer = phases(dock)
    everywhere = np.nonzero(np.ones(SHAPE, bool))
    layer.data_setitem(everywhere, 2)
    until(lambda: shares(dock)["bainite"][0] == "100.0\u00a0%")
    dock.viewer.layers.remove(layer)
    until(lambda: shares(dock)["bainite"][0] == "")


def test_what_was_corrected_is_never_overwritten(dock, engine, until):
    dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    dock.plane_button.click()
    finished(dock, until)
    first = phases(dock)
    dock.plane_button.click()
    finished(dock, until)
    assert len(dock.viewer.layers) == 2, "the same layer again"
    first.data_setitem((np.array([0]), np.array([0])), 3)
    dock.plane_button.click()
    assert "left as it is" in finished(dock, until)
    assert first.data[0, 0] == 3
    assert len(dock.viewer.layers) == 3
    assert dock.layers.of(dock.viewer.layers["SEM"]) is not first


def test_a_stack_plane_by_plane(dock, engine, until):
    dock.viewer.add_image(np.zeros((3, *SHAPE)), name="SEM")
    assert dock.stack_button.isVisible()
    dock.viewer.dims.set_current_step(0, 1)
    dock.plane_button.click()
    finished(dock, until)
    layer = phases(dock)
    assert [bool(plane.any()) for plane in layer.data] == [False, True, False]
    until(lambda: shares(dock)["ferrite"][0])
    dock.viewer.dims.set_current_step(0, 0)
    until(lambda: shares(dock)["ferrite"][0] == "", timeout=9000)
    dock.stack_button.click()
    assert "3 planes mapped" in finished(dock, until)
    for index in range(3):
        np.testing.assert_array_equal(layer.data[index], stripes((index,)) + 1)
    dock.scope.buttons["stack"].click()
    share = f"{100 * np.mean([stripes((i,)) == 0 for i in range(3)]):.1f}\u00a0%"
    until(lambda: shares(dock)["ferrite"][0] == share)


def test_cancelling_a_stack_keeps_what_is_done(dock, engine, until):
    gate, _ = engine
    dock.viewer.add_image(np.zeros((3, *SHAPE)), name="SEM")
    gate.clear()
    dock.stack_button.click()
    assert not dock.plane_button.isEnabled()
    dock.footer.cancel.click()
    assert "cancelled" in finished(dock, until)
    assert dock.plane_button.isEnabled()
    assert len(dock.viewer.layers) == 1


def test_confidence_is_a_layer_in_percent(dock, engine, until):
    dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    dock.confidence.setChecked(True)
    dock.plane_button.click()
    assert "hidden layer" in finished(dock, until)
    layer = dock.viewer.layers["SEM confidence"]
    assert (layer.data == 50).all()
    assert not layer.visible
    assert dock.state.images() == [dock.viewer.layers["SEM"]], "not an image to segment"


def test_settings_reach_the_engine(dock, engine, until):
    _, asked = engine
    dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    dock.plane_button.click()
    finished(dock, until)
    dock.side.setValue(512)
    dock.overlap.setValue(50)
    dock.orientations.setCurrentIndex(2)
    dock.plane_button.click()
    finished(dock, until)
    asked_for = [run.config for run in asked]
    assert asked_for == [PhaseMapConfig(), PhaseMapConfig(512, 0.5, orientations=4)]


def test_an_adapter_chosen_elsewhere_is_chosen_here(dock, tmp_path, make_adapter):
    other = import_adapter(make_adapter(tmp_path / "o.safetensors", classes=("a", "b")), "other")
    import_adapter(make_adapter(tmp_path / "p.safetensors"), "prompts-only")
    dock.refresh()
    assert dock.adapters.count() == 2
    dock.state.choose_model("tiny", other.name)
    assert [name for _, name, _ in dock.classes.rows()] == ["a", "b"]
    dock.state.choose_model("tiny", "prompts-only")
    assert dock.adapters.currentText() == "other"
    item = dock.classes.topLevelItem(0)
    colour = item.icon(0).pixmap(14, 14).toImage().pixelColor(7, 7)
    assert colour == class_colour(0), "its card names no colours"


def test_the_real_engine(dock, until):
    rng = np.random.default_rng(0)
    dock.viewer.add_image(rng.integers(0, 255, SHAPE, dtype=np.uint8), name="SEM")
    dock.confidence.setChecked(True)
    dock.plane_button.click()
    assert "1 plane mapped" in finished(dock, until)
    layer = phases(dock)
    assert set(np.unique(layer.data)) <= {1, 2, 3}
    assert dock.viewer.layers["SEM confidence"].data.min() >= 33


def test_a_volume_cannot_be_mapped(dock, engine):
    dock.viewer.add_image(np.zeros((3, *SHAPE)), name="SEM")
    dock.viewer.dims.ndisplay = 3
    dock.plane_button.click()
    assert "2-D view" in dock.footer.result.text()


def test_maps_outlive_the_dock(dock, engine, until, viewer_model):
    dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    dock.plane_button.click()
    finished(dock, until)
    dock.close()
    dock.deleteLater()
    again = PhasesDock(viewer_model)
    again.show()
    until(lambda: shares(again)["ferrite"][0])
    again.plane_button.click()
    finished(again, until)
    assert len(again.viewer.layers) == 2
    again.close()
    again.deleteLater()


def test_shares_are_never_those_of_another_adapters_map(
    dock, engine, until, tmp_path, make_adapter
):
    import_adapter(make_adapter(tmp_path / "o.safetensors", classes=("matrix", "pore")), "other")
    dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    dock.plane_button.click()
    finished(dock, until)
    until(lambda: shares(dock)["ferrite"][0])
    dock.refresh()
    dock.choose("other")
    until(lambda: dock.hint.isVisible())
    assert shares(dock) == {"matrix": ("", ""), "pore": ("", "")}
    assert "ferrite, bainite, martensite" in dock.hint.text()
    dock.choose("steel")
    until(lambda: shares(dock)["ferrite"][0])
    assert not dock.hint.isVisible()


def test_a_map_that_was_given_other_data_is_left_alone(dock, engine, until):
    dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    dock.plane_button.click()
    finished(dock, until)
    first = phases(dock)
    first.data = np.full(SHAPE, 3, np.uint8)
    dock.plane_button.click()
    assert "left as it is" in finished(dock, until)
    assert (first.data == 3).all()


def test_what_is_painted_before_its_plane_comes_is_kept(dock, engine, until):
    gate, _ = engine
    dock.viewer.add_image(np.zeros((3, *SHAPE)), name="SEM")
    dock.viewer.dims.set_current_step(0, 1)
    dock.plane_button.click()
    finished(dock, until)
    dock.viewer.layers.clear()
    dock.viewer.add_image(np.zeros((3, *SHAPE)), name="SEM")
    gate.clear()
    dock.stack_button.click()
    dock._maps.show(PlaneMap((0,), (stripes() + 1).astype(np.uint8), None))
    layer = phases(dock)
    layer.data_setitem((np.array([2, 2]), np.array([0, 5]), np.array([31, 3])), 2)
    gate.set()
    finished(dock, until)
    expected = stripes((2,)) + 1
    expected[0, 31] = expected[5, 3] = 2
    np.testing.assert_array_equal(layer.data[2], expected)


@pytest.mark.parametrize(("ndisplay", "planes"), [(2, [1]), (3, [1, 2])])
def test_planes_corrected_while_they_are_mapped_anew_are_kept(
    dock, engine, until, ndisplay, planes
):
    gate, _ = engine
    dock.viewer.add_image(np.zeros((4, *SHAPE)), name="SEM")
    dock.stack_button.click()
    finished(dock, until)
    layer = phases(dock)
    dock.viewer.dims.set_current_step(0, 1)
    gate.clear()
    dock.stack_button.click()
    dock._maps.show(PlaneMap((0,), np.full(SHAPE, 2, np.uint8), None))
    assert (layer.data[0] == 2).all()
    dock.viewer.dims.ndisplay = ndisplay
    nothing = np.zeros(len(planes), int)
    layer.data_setitem((np.array(planes), nothing, nothing), 3)
    before = layer.data[planes].copy()
    gate.set()
    assert "left as it is" in finished(dock, until)
    np.testing.assert_array_equal(layer.data[planes], before)
    np.testing.assert_array_equal(layer.data[3], stripes((3,)) + 1)
    if 2 not in planes:
        np.testing.assert_array_equal(layer.data[2], stripes((2,)) + 1)


def test_an_image_replaced_while_it_is_mapped(dock, engine, until):
    gate, _ = engine
    image = dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    gate.clear()
    dock.plane_button.click()
    image.data = np.zeros((50, 60))
    gate.set()
    assert "other data" in finished(dock, until)
    assert len(dock.viewer.layers) == 1


def test_a_stack_that_became_shorter_has_no_shares(dock, engine, until):
    image = dock.viewer.add_image(np.zeros((10, *SHAPE)), name="SEM")
    dock.stack_button.click()
    finished(dock, until)
    dock.viewer.dims.set_current_step(0, 8)
    until(lambda: shares(dock)["ferrite"][0])
    image.data = np.zeros((5, *SHAPE))
    dock.ask_to_count()
    until(lambda: shares(dock)["ferrite"][0] == "")
    assert "out of bounds" not in dock.footer.result.text()


def test_the_map_follows_an_image_that_is_scaled_later(dock, engine, until):
    image = dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    dock.confidence.setChecked(True)
    dock.plane_button.click()
    finished(dock, until)
    image.units, image.scale, image.translate = ("um", "um"), (0.5, 0.5), (3, 4)
    dock.plane_button.click()
    finished(dock, until)
    assert len(dock.viewer.layers) == 3
    for layer in (phases(dock), dock.viewer.layers["SEM confidence"]):
        np.testing.assert_allclose(layer.scale, (0.5, 0.5))
        np.testing.assert_allclose(layer.translate, (3, 4))
        assert [str(unit) for unit in layer.units] == ["micrometer", "micrometer"]


def test_an_earlier_confidence_does_not_stay_beside_a_new_map(dock, engine, until):
    dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    dock.confidence.setChecked(True)
    dock.plane_button.click()
    finished(dock, until)
    dock.confidence.setChecked(False)
    dock.plane_button.click()
    finished(dock, until)
    assert not dock.viewer.layers["SEM confidence"].data.any()


def test_a_view_in_3d_shows_no_shares(dock, engine, until):
    dock.viewer.add_image(np.zeros((3, *SHAPE)), name="SEM")
    dock.plane_button.click()
    finished(dock, until)
    until(lambda: shares(dock)["ferrite"][0])
    dock.viewer.dims.ndisplay = 3
    until(lambda: shares(dock)["ferrite"][0] == "")


def test_fractions_follow_undo_and_redo(dock, engine, until, qtbot):
    dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    dock.segment()
    finished(dock, until)
    until(lambda: shares(dock)["ferrite"][0])
    before = shares(dock)
    layer = phases(dock)
    layer.data_setitem(np.nonzero(np.ones(SHAPE)), 2)
    until(lambda: shares(dock)["bainite"][0].startswith("100.0"))
    layer.undo()
    until(lambda: shares(dock) == before)
    layer.redo()
    until(lambda: shares(dock)["bainite"][0].startswith("100.0"))


def test_an_adapter_trained_again_elsewhere_is_read_again(
    dock, engine, until, tmp_path, make_adapter
):
    dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    path = make_adapter(tmp_path / "new.safetensors", classes=(*NAMES, "austenite"), seed=3)
    import_adapter(path, "steel", replace=True)
    dock.segment()
    assert "mapped" in finished(dock, until)
    assert [name for _, name, _ in dock.classes.rows()] == [*NAMES, "austenite"]
    assert layer_class_names(phases(dock))[4] == "austenite"


def test_an_adapter_that_was_removed_maps_nothing(dock, engine, until, tmp_path, make_adapter):
    dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    import_adapter(make_adapter(tmp_path / "b.safetensors", classes=NAMES[:2], seed=4), "brass")
    dock.refresh()
    dock.choose("steel")
    get_adapter("steel").path.unlink()
    dock.segment()
    assert engine[1] == [], "not with another one"
    assert dock.footer.result.text() == "the adapter steel is gone; choose another one"


def test_a_base_that_is_gone_changes_no_dock(dock, engine, tmp_path, make_adapter):
    torch.save(build_model("tiny").state_dict(), tmp_path / "gone.pt")
    import_checkpoint(tmp_path / "gone.pt", "gone")
    dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    before = dock.state.model_name
    path = make_adapter(tmp_path / "o.safetensors", base="gone", classes=NAMES, seed=5)
    import_adapter(path, "orphan")
    forget("gone")
    dock.refresh()
    dock.choose("orphan")
    dock.segment()
    assert "there is no model 'gone'" in dock.footer.result.text()
    assert dock.state.model_name == before


def test_a_class_without_a_name_keeps_its_map(dock, engine, until, tmp_path, make_adapter):
    dock.viewer.add_image(np.zeros(SHAPE), name="SEM")
    path = make_adapter(tmp_path / "n.safetensors", classes=("pore", "", "matrix"), seed=6)
    import_adapter(path, "nameless")
    dock.refresh()
    dock.choose("nameless")
    for _ in range(2):
        dock.segment()
        finished(dock, until)
    assert [layer.name for layer in dock.viewer.layers] == ["SEM", "SEM phases"]
    until(lambda: shares(dock)["matrix"][0])
    assert not dock.hint.isVisible()


def test_fractions_of_a_stack_need_no_copy_of_it():
    stack = np.zeros((40, 256, 256), np.uint8)
    stack[3:, :100], stack[5:, 100:] = 1, 2
    tracemalloc.start()
    try:
        found = ShareQuestion(stack, (1, 2), None).answer(lambda: False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    mapped = stack[3:]
    assert found[1] == phase_fraction(mapped == 1, mapped > 0)
    assert peak < stack.nbytes
    with pytest.raises(CancelledError):
        ShareQuestion(stack, (1, 2), None).answer(lambda: True)


def test_other_data_of_the_same_size_get_a_map_of_their_own(dock, engine, until):
    gate, _ = engine
    image = dock.viewer.add_image(np.zeros((3, *SHAPE)), name="SEM")
    dock.stack_button.click()
    finished(dock, until)
    old = phases(dock)
    before = old.data.copy()
    gate.clear()
    dock.stack_button.click()
    relayed = dock._maps
    image.data = np.ones((3, *SHAPE))
    gate.set()
    finished(dock, until)
    np.testing.assert_array_equal(old.data, before)
    assert dock._maps is not relayed
    until(lambda: shares(dock)["ferrite"][0] == "")
    dock.plane_button.click()
    finished(dock, until)
    assert "SEM phases [1]" in dock.viewer.layers
    np.testing.assert_array_equal(old.data, before)
    image.data = np.zeros((3, *SHAPE))
    assert "SEM holds other data now: map its phases again." in dock.footer.result.text()


def test_all_planes_of_a_run_are_mapped_with_one_strength(adapter, monkeypatch):
    """Whatever is set in *Models* meanwhile."""
    asked = []

    def segment_classes(segmenter, version, **options):
        asked.append(version)
        get_manager().set_strength("tiny", "steel", 0.1 + 0.2 * len(asked))
        return PhaseMap(np.zeros(SHAPE, np.uint8), NAMES)

    monkeypatch.setattr("phasesam.engines.semantic.segment_classes", segment_classes)
    run = phase_run.PhaseRun(
        np.zeros((3, *SHAPE), np.uint8), ((0,), (1,), (2,)), SHAPE, "tiny", "steel",
        Normalisation(), False, PixelSize(), PhaseMapConfig(),
    )  # fmt: skip
    try:
        sent = []
        assert phase_run.mapping_job(run, sent.append)(lambda *_: None, lambda: False) == 3
        assert len(sent) == 3
        assert [version.strength for version in asked] == [1.0] * 3
        assert len(set(asked)) == 1
    finally:
        get_manager().set_strength("tiny", "steel", 1.0)

"""The Phase ratio dock without a canvas, on a made map of phases."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from phasesam.engines.ratio_guidance import RatioConfig, RatioGuide
from phasesam.engines.semantic import PhaseMap
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapter_store import get_adapter, import_adapter
from phasesam.napari_widgets.class_colours import layer_class_names
from phasesam.napari_widgets.ratio import RatioDock
from phasesam.napari_widgets.ratio_run import RatioGuides
from phasesam.napari_widgets.ratio_words import request_text
from phasesam.session.ratio_sheet import WHOLE

SHAPE = (96, 120)
NAMES = ("ferrite", "bainite", "martensite")


def made_map(shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    z = np.stack([gaussian_filter(rng.normal(size=shape), 5) * 30 for _ in NAMES])
    z = np.exp(z + rng.normal(0, 0.2, z.shape))
    probabilities = (z / z.sum(axis=0)).astype(np.float32)
    return PhaseMap(probabilities.argmax(axis=0).astype(np.uint8), NAMES, probabilities)


@pytest.fixture(autouse=True)
def _adapter(tmp_path, make_adapter):
    import_adapter(make_adapter(tmp_path / "steel.safetensors", classes=NAMES), "steel")


@pytest.fixture
def asked(monkeypatch):
    runs = []

    def guide_job(run, config, hints=None):
        runs.append((run, hints))
        untold = RatioGuide(made_map(), np.zeros(SHAPE), config)
        if hints is None:
            return lambda progress, should_stop: RatioGuides(untold, untold)
        told = RatioGuide(made_map(seed=1), np.zeros(SHAPE), config)
        return lambda progress, should_stop: RatioGuides(told, untold)

    monkeypatch.setattr("phasesam.napari_widgets.ratio.guide_job", guide_job)
    return runs


@pytest.fixture
def dock(viewer_model, asked, shown):
    viewer_model.add_image(np.zeros(SHAPE), name="SEM", scale=(0.5, 0.5), units=("um", "um"))
    return shown(RatioDock(viewer_model), (460, 800))


@pytest.fixture
def told_dock(viewer_model, asked, shown, tmp_path, make_adapter):
    """A dock with an adapter that takes a ratio, of the kind that is named."""

    def make(kind):
        config = AdapterConfig(rank=2, decoder_rank=2, ratio=kind)
        import_adapter(
            make_adapter(tmp_path / "told.safetensors", classes=NAMES, config=config), "told"
        )
        viewer_model.add_image(np.zeros(SHAPE), name="SEM")
        return shown(RatioDock(viewer_model), (460, 800))

    return make


@pytest.fixture
def mapped(dock, until):
    dock.map_button.click()
    settled(dock, until)
    return dock


def settled(dock, until):
    until(lambda: not dock.running and not dock._lane.busy, timeout=20_000)


def shares(dock, name="SEM phase ratio"):
    data = dock.viewer.layers[name].data
    return np.bincount(data.ravel(), minlength=4)[1:] / data.size


def now(dock):
    return [row.now.text() for row in dock.rows.rows]


def texts(fractions):
    return [f"{100 * x:.2f}" for x in fractions]


def test_without_adapters_the_way_to_one_is_shown(qtbot, viewer_model, monkeypatch):
    monkeypatch.setattr("phasesam.napari_widgets.phase_models.list_adapters", list)
    dock = RatioDock(viewer_model)
    qtbot.addWidget(dock)
    dock.show()
    assert dock.hint.isVisible()
    assert not dock.map_button.isEnabled()
    dock.map_phases()
    assert "Fine-tune" in dock.footer.result.text()


def test_nothing_can_be_asked_before_there_is_a_map(dock):
    assert not dock.rows.isEnabled()
    assert len(dock.rows.rows) == 3
    assert not dock.before_button.isEnabled()
    assert not dock.results.keep_button.isEnabled()


def test_a_map_shows_what_there_is(mapped, asked):
    own = made_map().fractions
    assert now(mapped) == texts(own)
    np.testing.assert_allclose(mapped.rows.shares.values, own)
    np.testing.assert_allclose(shares(mapped), own)
    assert mapped.verdict.text() == "As the model sees it."
    layer = mapped.viewer.layers["SEM phase ratio"]
    assert layer_class_names(layer) == dict(enumerate(NAMES, start=1))
    np.testing.assert_allclose(layer.scale, (0.5, 0.5))
    assert asked[0][0].adapter == "steel"
    assert (mapped.state.model_name, mapped.state.adapter) == ("tiny", "steel")
    assert mapped.results.log == []


def test_a_typed_share_is_obeyed(mapped, until):
    mapped.rows.rows[0].spin.setValue(50)
    settled(mapped, until)
    assert shares(mapped)[0] == 0.5
    assert sum(mapped.rows.shares.values) == pytest.approx(1)
    assert "changes" in mapped.verdict.text()
    assert len(mapped.results.log) == 1
    entry = mapped.results.log[0]
    assert (entry.image, entry.model, entry.region) == ("SEM", "steel", None)
    assert (entry.plane, entry.config) == ((), RatioConfig())
    assert entry.achieved[0] == 0.5


def test_dragging_shows_previews_and_is_one_step(mapped, until):
    row = mapped.rows.rows[2]
    before = mapped.rows.shares
    row.slider.setSliderDown(True)
    for value in (300, 400, 450):
        row.slider.setValue(value)
    settled(mapped, until)
    assert mapped.results.log == []
    row.slider.setSliderDown(False)
    settled(mapped, until)
    assert shares(mapped)[2] == pytest.approx(0.45, abs=1e-4)
    assert len(mapped.results.log) == 1
    mapped.undo_button.click()
    settled(mapped, until)
    assert mapped.rows.shares == before
    assert not mapped.undo_button.isEnabled()
    mapped.redo_button.click()
    settled(mapped, until)
    assert shares(mapped)[2] == pytest.approx(0.45, abs=1e-4)


def test_locks_unknowns_and_errors(mapped, until):
    first, second, third = mapped.rows.rows
    first.lock.click()
    own = mapped.rows.shares.values
    second.spin.setValue(100 * own[1] / 2)
    settled(mapped, until)
    assert mapped.rows.shares.values[0] == pytest.approx(own[0])
    third.unknown.click()
    settled(mapped, until)
    assert not third.lock.isEnabled()
    second.error.setValue(10)
    settled(mapped, until)
    entry = mapped.results.log[-1]
    assert entry.wanted[2] is None
    assert entry.errors == (0, 0.1, 0)
    assert entry.achieved[1] > entry.wanted[1], "the image says there is more"


def test_shares_add_up_after_many_edits(mapped, until):
    rng = np.random.default_rng(0)
    for _ in range(200):
        row = mapped.rows.rows[rng.integers(3)]
        what = rng.integers(5)
        if what == 0:
            row.slider.setValue(int(rng.integers(1001)))
        elif what == 1:
            row.spin.setValue(float(rng.uniform(0, 100)))
        elif what == 2:
            row.lock.click()
        elif what == 3:
            row.unknown.click()
        else:
            row.error.setValue(float(rng.uniform(0, 20)))
        assert sum(mapped.rows.shares.values) == pytest.approx(1, abs=1e-9)
        shown = [r.spin.value() for r in mapped.rows.rows]
        assert sum(shown) == pytest.approx(100, abs=0.016)
    settled(mapped, until)
    assert shares(mapped).sum() == pytest.approx(1)


def test_an_uncertain_share_lets_the_rest_yield(mapped, until):
    own = made_map().fractions
    first, second, _ = mapped.rows.rows
    first.spin.setValue(80)
    settled(mapped, until)
    exact = mapped.viewer.layers["SEM phase ratio"].data.copy()
    assert shares(mapped)[0] == 0.8
    first.error.setValue(10)
    settled(mapped, until)
    assert own[0] < shares(mapped)[0] < 0.79
    assert (mapped.viewer.layers["SEM phase ratio"].data != exact).any()
    # Both can be seen: what was wanted, and what came of it.
    assert first.spin.value() == 80
    assert now(mapped) == texts(shares(mapped))
    assert sum(mapped.rows.shares.values) == pytest.approx(1)
    assert [row.spin.font().italic() for row in mapped.rows.rows] == [False, True, True]
    assert mapped.results.log[-1].wanted == (0.8, None, None)
    # A share that is set or locked beside it is met.
    second.spin.setValue(5)
    settled(mapped, until)
    assert shares(mapped)[1] == pytest.approx(0.05, abs=1e-4)
    assert first.spin.value() == 80
    mapped.undo()
    mapped.undo()
    settled(mapped, until)
    np.testing.assert_array_equal(mapped.viewer.layers["SEM phase ratio"].data, exact)


def test_it_says_when_a_standard_error_has_no_effect(mapped, until):
    mapped.rows.rows[1].lock.click()
    mapped.rows.rows[2].lock.click()
    mapped.rows.rows[0].error.setValue(5)
    settled(mapped, until)
    assert "± changes nothing" in mapped.footer.result.text()
    mapped.rows.rows[1].unknown.click()
    settled(mapped, until)
    assert mapped.footer.result.text() == ""


def test_small_shares_and_large_errors_can_be_typed(mapped, until):
    spin = mapped.rows.rows[1].spin
    spin.lineEdit().setText("0.05")
    spin.interpretText()
    settled(mapped, until)
    assert mapped.results.log[-1].wanted[1] == pytest.approx(0.0005)
    assert spin.value() == 0.05
    mapped.rows.rows[1].error.setValue(80)
    settled(mapped, until)
    assert mapped.rows.shares.errors[1] == pytest.approx(0.8)
    assert mapped.rows.rows[1].error.value() == 80


def test_holding_a_slider_or_locking_asks_for_nothing(mapped, until):
    row = mapped.rows.rows[0]
    row.slider.setSliderDown(True)
    row.slider.setSliderDown(False)
    settled(mapped, until)
    assert not mapped.undo_button.isEnabled()
    row.lock.click()
    settled(mapped, until)
    assert mapped.mapped.sheet.asked == ()
    assert mapped.verdict.text() == "As the model sees it."
    assert mapped.results.log == []
    mapped.undo()
    settled(mapped, until)
    assert not row.lock.isChecked()


def test_it_says_why_a_slider_does_not_move(mapped, until):
    first, second, third = mapped.rows.rows
    second.lock.click()
    own = mapped.rows.shares.values
    first.spin.setValue(100)
    settled(mapped, until)
    assert mapped.rows.shares.values[0] == pytest.approx(1 - own[1])
    assert f"leave {100 * (1 - own[1]):.2f}" in mapped.footer.result.text()
    third.lock.click()
    settled(mapped, until)
    assert mapped.footer.result.text() == ""
    n_logged, value = len(mapped.results.log), first.slider.value()
    first.slider.setSliderDown(True)
    first.slider.setValue(100)
    first.slider.setSliderDown(False)
    settled(mapped, until)
    assert first.slider.value() == value
    assert "unlock one" in mapped.footer.result.text()
    assert len(mapped.results.log) == n_logged


def test_what_is_shown_now_follows_the_slider(mapped, until):
    row = mapped.rows.rows[2]
    row.slider.setSliderDown(True)
    row.slider.setValue(450)
    settled(mapped, until)
    assert row.now.text() == "45.00"
    row.slider.setSliderDown(False)
    settled(mapped, until)
    mapped.undo()
    settled(mapped, until)
    assert now(mapped) == texts(made_map().fractions)


def test_an_answer_is_logged_with_the_request_that_it_answers(mapped, until, monkeypatch):
    # As for a large image, which is solved in a worker.
    monkeypatch.setattr("phasesam.napari_widgets.ratio_run._SOLVED", 0)
    spin = mapped.rows.rows[0].spin
    spin.setValue(50)
    spin.setValue(20)
    settled(mapped, until)
    assert [e.wanted[0] for e in mapped.results.log] == [0.5, 0.2]
    for entry in mapped.results.log:
        assert entry.achieved[0] == pytest.approx(entry.wanted[0], abs=1e-4)


def test_looking_again_is_no_new_experiment(mapped, until):
    numbers = np.zeros(SHAPE, int)
    numbers[:, :40], numbers[:, 40:80] = 1, 2
    layer = mapped.viewer.add_labels(numbers, name="bands")
    mapped.regions.choose_source(layer)
    for region, share in ((1, 10), (2, 60)):
        mapped.regions.choose(region)
        mapped.regions.chosen.emit()
        mapped.rows.rows[0].spin.setValue(share)
        settled(mapped, until)
    logged = list(mapped.results.log)
    assert [entry.region for entry in logged] == [1, 1, 2]
    for _ in range(3):
        mapped.results.margin.click()
        settled(mapped, until)
    assert mapped.results.log == logged
    mapped.undo()
    mapped.redo()
    settled(mapped, until)
    assert mapped.results.log == logged


@pytest.mark.parametrize("shape", [SHAPE, (60, 200)])
def test_other_data_in_the_image_need_a_map_of_their_own(mapped, until, shape):
    mapped.rows.rows[0].spin.setValue(50)
    mapped.results.margin.click()
    settled(mapped, until)
    before = mapped.viewer.layers["SEM phase ratio"].data.copy()
    mapped.viewer.layers["SEM"].data = np.ones(shape)
    assert mapped.mapped is None
    assert not mapped.rows.isEnabled()
    assert not mapped.before_button.isEnabled()
    assert not mapped.results.keep_button.isEnabled()
    assert "other data" in mapped.footer.result.text()
    mapped.undo()
    mapped.before_button.toggle()
    mapped.before_button.toggle()
    mapped.results.margin.click()
    settled(mapped, until)
    np.testing.assert_array_equal(mapped.viewer.layers["SEM phase ratio"].data, before)


def test_other_data_are_mapped_again(mapped, until, monkeypatch):
    mapped.rows.rows[0].spin.setValue(50)
    mapped.results.margin.click()
    settled(mapped, until)
    shape = (60, 200)

    def guide_job(run, config, hints=None):
        guide = RatioGuide(made_map(shape), np.zeros(shape), config)
        return lambda progress, should_stop: RatioGuides(guide, guide)

    monkeypatch.setattr("phasesam.napari_widgets.ratio.guide_job", guide_job)
    mapped.viewer.layers["SEM"].data = np.ones(shape)
    mapped.map_button.click()
    settled(mapped, until)
    mapped.rows.rows[0].spin.setValue(40)
    settled(mapped, until)
    assert mapped.layers.of(mapped.viewer.layers["SEM"]).data.shape == shape
    assert mapped.viewer.layers["SEM flips first"].data.shape == shape
    assert now(mapped)[0] == "40.00"


def test_a_map_of_data_that_were_replaced_meanwhile_is_dropped(dock, until):
    dock.map_button.click()
    dock.viewer.layers["SEM"].data = np.ones(SHAPE)
    settled(dock, until)
    assert dock.mapped is None
    assert "cancelled" in dock.footer.result.text()


def test_many_regions_are_not_left_out_in_silence(mapped, until):
    numbers = np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) // 40
    layer = mapped.viewer.add_labels(numbers, name="cells")
    mapped.regions.choose_source(layer)
    settled(mapped, until)
    combo = mapped.regions.region
    assert combo.itemText(combo.count() - 1) == "… and 87 more, not listed"
    assert not combo.model().item(combo.count() - 1).isEnabled()
    assert combo.count() == 202


def test_before_and_after(mapped, until):
    mapped.rows.rows[0].spin.setValue(60)
    settled(mapped, until)
    after = mapped.viewer.layers["SEM phase ratio"].data.copy()
    mapped.before_button.click()
    np.testing.assert_array_equal(
        mapped.viewer.layers["SEM phase ratio"].data, made_map().labels + 1
    )
    mapped.before_button.click()
    np.testing.assert_array_equal(mapped.viewer.layers["SEM phase ratio"].data, after)
    assert now(mapped)[0] == "60.00"


def test_a_painted_region_has_shares_of_its_own(mapped, until):
    mapped.regions.paint.click()
    layer = mapped.viewer.layers["SEM regions"]
    assert (layer.mode, layer.selected_label) == ("paint", 1)
    assert mapped.viewer.layers.selection.active is layer
    layer.data_setitem((np.arange(40).repeat(50), np.tile(np.arange(50), 40)), 1)
    until(lambda: mapped.regions.current == 1, timeout=5000)
    settled(mapped, until)
    inside = made_map().labels[:40, :50]
    own = np.bincount(inside.ravel(), minlength=3) / inside.size
    np.testing.assert_allclose(mapped.rows.shares.values, own)
    mapped.rows.rows[1].spin.setValue(70)
    settled(mapped, until)
    data = mapped.viewer.layers["SEM phase ratio"].data
    assert (data[:40, :50] == 2).mean() == pytest.approx(0.7)
    np.testing.assert_array_equal(data[40:], made_map().labels[40:] + 1)
    assert mapped.results.log[-1].region == 1
    assert now(mapped) == texts(np.bincount(data[:40, :50].ravel(), minlength=4)[1:] / 2000)
    mapped.undo()
    settled(mapped, until)
    np.testing.assert_array_equal(
        mapped.viewer.layers["SEM phase ratio"].data, made_map().labels + 1
    )
    mapped.regions.paint.click()
    assert layer.selected_label == 2


def test_regions_of_a_layer_that_goes(mapped, until):
    numbers = np.zeros(SHAPE, int)
    numbers[:, :60] = 5
    layer = mapped.viewer.add_labels(numbers, name="bands")
    assert [mapped.regions.source.itemText(i) for i in range(2)] == ["None", "bands"]
    mapped.regions.choose_source(layer)
    mapped.regions.choose(5)
    mapped.regions.chosen.emit()
    settled(mapped, until)
    mapped.rows.rows[0].spin.setValue(10)
    settled(mapped, until)
    data = mapped.viewer.layers["SEM phase ratio"].data
    assert (data[:, :60] == 1).mean() == pytest.approx(0.1, abs=1e-3)
    mapped.viewer.layers.remove(layer)
    settled(mapped, until)
    np.testing.assert_array_equal(data, made_map().labels + 1)
    assert mapped.regions.current == WHOLE


def test_presets(mapped, until, tmp_path):
    truth = np.repeat([1, 2, 2, 3], SHAPE[0] // 4)[:, None] * np.ones(SHAPE[1], int)
    layer = mapped.viewer.add_labels(truth, name="truth")
    mapped.presets.take(layer)
    settled(mapped, until)
    np.testing.assert_allclose(shares(mapped), [0.25, 0.5, 0.25])
    # In the region that is chosen, and only there.
    numbers = np.zeros(SHAPE, int)
    numbers[:24] = 7
    mapped.regions.choose_source(mapped.viewer.add_labels(numbers, name="bands"))
    mapped.regions.choose(7)
    mapped.presets.take(layer)
    settled(mapped, until)
    assert mapped.rows.shares.values == (1, 0, 0)
    assert shares(mapped)[0] > 0.25, "outside of the region the other shares hold"
    mapped.undo()
    mapped.regions.choose_source(None)
    settled(mapped, until)
    path = tmp_path / "counts.csv"
    path.write_text("phase,percent,error\nMartensite,20,2\n")
    mapped.presets.read(str(path))
    settled(mapped, until)
    assert mapped.rows.shares.unknown == (True, True, False)
    assert mapped.rows.shares.errors[2] == pytest.approx(0.02)
    assert mapped.rows.shares.values[2] == pytest.approx(0.2)
    mapped.presets.combo.setCurrentIndex(1)
    mapped.presets._on_chosen()
    settled(mapped, until)
    np.testing.assert_allclose(shares(mapped), made_map().fractions)


def test_presets_are_scaled_where_rounding_to_per_cent_missed_the_whole(mapped, until, tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text("phase,percent\nferrite,58\nbainite,12\nmartensite,29\n")
    mapped.presets.read(str(path))
    settled(mapped, until)
    np.testing.assert_allclose(shares(mapped), np.array([58, 12, 29]) / 99, atol=1e-3)


def test_bad_presets_say_what_is_wrong(mapped, until, tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text("phase,percent\nferrite,80\nbainite,40\n")
    mapped.presets.read(str(path))
    assert "add up to at least 1.2" in mapped.footer.result.text()
    assert mapped.footer.result.text().count("counts.csv") == 1
    path.write_text("phase,percent\npearlite,80\n")
    mapped.presets.read(str(path))
    assert mapped.footer.result.text().count("counts.csv") == 1
    assert "pearlite" in mapped.footer.result.text()
    mapped.presets.take(mapped.viewer.add_labels(np.full(SHAPE, 9), name="nine"))
    assert "expected the values 1, 2, 3" in mapped.footer.result.text()
    assert mapped.results.log == []


def test_kept_maps_and_comparison(mapped, until):
    for value in (50, 60):
        mapped.rows.rows[0].spin.setValue(value)
        settled(mapped, until)
        mapped.results.compare_button.click()
    kept = [layer.name for layer in mapped.viewer.layers if layer.name.endswith("%")]
    assert [name.split()[1].split("/")[0] for name in kept] == ["50", "60"]
    assert mapped.viewer.canvas.grid.enabled
    assert (shares(mapped, kept[0])[0], shares(mapped, kept[1])[0]) == (0.5, 0.6)
    mapped.results.grid.click()
    assert not mapped.viewer.canvas.grid.enabled


def test_what_flips_first(mapped, until):
    mapped.rows.rows[0].spin.setValue(50)
    mapped.results.margin.click()
    settled(mapped, until)
    layer = mapped.viewer.layers["SEM flips first"]
    assert layer.visible
    flips = layer.data > 250
    assert 0 < flips.mean() < 0.5
    mapped.results.margin.click()
    settled(mapped, until)
    assert not layer.visible


def test_the_log_is_exported(mapped, until, tmp_path):
    for value in (50, 60):
        mapped.rows.rows[0].spin.setValue(value)
        settled(mapped, until)
    assert "2 logged" in mapped.results.logged.text()
    mapped.results.export(str(tmp_path / "log.csv"))
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["wanted"] for row in rows if row["phase"] == "ferrite"] == ["0.5", "0.6"]
    assert {(row["region"], row["plane"], row["smoothing_px"]) for row in rows} == {
        ("whole image", "", "0")
    }
    assert len(rows) == 6
    mapped.results.export(str(tmp_path / "nowhere" / "log.csv"))
    assert "could not" in mapped.footer.result.text().lower()


def test_smoothing_and_smallest_regions(mapped, until):
    mapped.rows.rows[0].spin.setValue(50)
    settled(mapped, until)
    rough = mapped.viewer.layers["SEM phase ratio"].data.copy()
    mapped.settings.smallest.setValue(30)
    mapped.settings.smallest.editingFinished.emit()
    settled(mapped, until)
    smooth = mapped.viewer.layers["SEM phase ratio"].data
    assert (smooth == 1).mean() == 0.5
    assert (np.diff(smooth.astype(int)) != 0).sum() < (np.diff(rough.astype(int)) != 0).sum()


def test_fewest_changes_leave_what_need_not_change(mapped, until):
    own = mapped.viewer.layers["SEM phase ratio"].data.copy()
    mapped.settings.fewest.setChecked(True)
    mapped.rows.rows[0].spin.setValue(50)
    settled(mapped, until)
    found = mapped.viewer.layers["SEM phase ratio"].data
    assert (found == 1).mean() == 0.5
    counts, seen = (np.bincount(x.ravel(), minlength=4) for x in (found, own))
    assert (found != own).sum() == np.maximum(counts - seen, 0).sum()
    mapped.settings.fewest.setChecked(False)
    settled(mapped, until)
    assert (mapped.viewer.layers["SEM phase ratio"].data == 1).mean() == 0.5


def test_another_plane_needs_a_map_of_its_own(dock, until):
    dock.viewer.layers.clear()
    dock.viewer.add_image(np.zeros((3, *SHAPE)), name="stack")
    dock.map_button.click()
    settled(dock, until)
    dock.rows.rows[0].spin.setValue(50)
    settled(dock, until)
    plane = dock.state.plane(dock.state.image_layer).index
    data = dock.viewer.layers["stack phase ratio"].data
    assert (data[plane] == 1).mean() == 0.5
    other = 0 if plane != (0,) else 2
    dock.viewer.dims.set_current_step(0, other)
    assert not dock.rows.isEnabled()
    assert not data[other].any()
    dock.viewer.dims.set_current_step(0, plane[0])
    settled(dock, until)
    assert dock.rows.shares.values[0] == pytest.approx(0.5)


def test_the_engine_maps_for_real(qtbot, viewer_model, until):
    viewer_model.add_image(
        np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8), name="SEM"
    )
    dock = RatioDock(viewer_model)
    qtbot.addWidget(dock)
    dock.show()
    dock.map_button.click()
    until(lambda: not dock.running, timeout=60_000)
    settled(dock, until)
    dock.rows.rows[1].spin.setValue(40)
    settled(dock, until)
    assert shares(dock)[1] == 0.4


def test_shares_can_be_told_to_a_network_that_takes_them(told_dock, asked, until):
    dock = told_dock("located")
    dock.choose("steel")
    assert not dock.tell_button.isVisible()
    dock.choose("told")
    assert dock.tell_button.isVisible()
    assert not dock.tell_button.isEnabled()
    dock.map_button.click()
    settled(dock, until)
    assert asked[-1][1] is None
    # Nothing is asked yet, so there is nothing to tell.
    assert not dock.tell_button.isEnabled()
    dock.rows.rows[0].spin.setValue(50)
    settled(dock, until)
    alone = dock.viewer.layers["SEM phase ratio"].data.copy()
    dock.tell_button.click()
    settled(dock, until)
    hints = asked[-1][1]
    assert hints.shares == pytest.approx(dock.rows.shares.values)
    assert hints.shares[0] == 0.5
    assert shares(dock)[0] == 0.5
    assert (dock.viewer.layers["SEM phase ratio"].data != alone).any()
    assert "with these shares" in dock.footer.result.text()
    # It is judged by what the network sees without being told, and logged as told.
    assert "contradicts the image" in dock.verdict.text()
    own = made_map().fractions
    assert now(dock) == texts(shares(dock))
    assert texts(own)[0] in dock.rows.rows[0].now.toolTip()
    assert dock.results.log[-1].model == f"told, told {request_text(dock.rows.shares)}"
    dock.before_button.click()
    np.testing.assert_allclose(shares(dock), own)
    assert now(dock) == texts(own)
    dock.before_button.click()
    # The shares are still there to be taken back.
    dock.undo()
    settled(dock, until)
    np.testing.assert_allclose(shares(dock), own)


def test_shares_of_regions_are_not_told(told_dock, until):
    dock = told_dock("located")
    dock.choose("told")
    dock.map_button.click()
    settled(dock, until)
    dock.mapped.sheet.ask(1, dock.mapped.sheet.shares(1).with_share(0, 0.5))
    dock._show()
    assert not dock.tell_button.isEnabled()
    dock.mapped.sheet.forget(1)
    dock.rows.rows[0].spin.setValue(50)
    settled(dock, until)
    dock._show()
    assert dock.tell_button.isEnabled()


def test_a_network_that_needs_all_shares_is_not_told_some(told_dock, asked, until):
    dock = told_dock("global")
    dock.choose("told")
    dock.map_button.click()
    settled(dock, until)
    dock.rows.rows[0].spin.setValue(50)
    for row in dock.rows.rows[1:]:
        row.unknown.click()
    settled(dock, until)
    before = len(asked)
    dock.tell_button.click()
    assert "needs the shares" in dock.footer.result.text()
    assert len(asked) == before
    assert shares(dock)[0] == 0.5


def test_it_tells_how_many_regions_stay_too_small(mapped, until):
    mapped.settings.smallest.setValue(3000)
    mapped.settings.smallest.editingFinished.emit()
    mapped.rows.rows[0].spin.setValue(1)
    settled(mapped, until)
    left = mapped._answer.solution.specks
    assert left > 0
    assert mapped.verdict.text().endswith(f"{left} regions stay smaller than asked.")


def test_it_tells_when_the_image_does_not_allow_what_is_wanted(mapped, until):
    own = 100 * made_map().fractions[0]
    row = mapped.rows.rows[0]
    row.error.setValue(2)
    row.spin.setValue(own + 40)
    settled(mapped, until)
    found = 100 * shares(mapped)[0]
    assert found < own + 36
    words = mapped.verdict.text()
    assert f"{found:.0f}" in words
    assert f"ferrite, which is {(own + 40 - found) / 2:.1f} standard errors from" in words
    row.spin.setValue(own + 0.5)
    settled(mapped, until)
    assert "standard errors" not in mapped.verdict.text()
    row.error.setValue(0)
    row.spin.setValue(own + 40)
    settled(mapped, until)
    assert "standard errors" not in mapped.verdict.text()


def test_it_tells_when_far_fewer_changes_would_do(dock, until, monkeypatch):
    def steps(shape=SHAPE, seed=0):
        # From the first phase to the third it is cheapest to go by way of the second.
        thirds = np.array([(0.8, 0.19, 0.01), (0.15, 0.8, 0.05), (0.01, 0.04, 0.95)], np.float32)
        chances = np.tile(thirds.T.repeat(shape[0] // 3, 1)[..., None], shape[1])
        return PhaseMap(chances.argmax(0).astype(np.uint8), NAMES, chances)

    monkeypatch.setattr(f"{__name__}.made_map", steps)
    dock.map_button.click()
    settled(dock, until)
    dock.rows.rows[1].spin.setValue(50)
    settled(dock, until)
    assert "contradicts" in dock.verdict.text()
    assert "Fewest" not in dock.verdict.text()
    dock.rows.rows[1].spin.setValue(33)
    dock.rows.rows[1].lock.click()
    dock.rows.rows[2].spin.setValue(57)
    settled(dock, until)
    changed, least = dock._answer.solution.changed, abs(shares(dock) - 1 / 3).sum() / 2
    assert changed > 1.9 * least
    words = dock.verdict.text().replace("\u00a0", " ")
    assert words.endswith(
        f"changes {100 * changed:.0f} % of the pixels, {100 * least:.0f} % with Fewest changes."
    )
    dock.settings.fewest.click()
    settled(dock, until)
    assert dock._answer.solution.changed == pytest.approx(least, abs=1e-3)
    assert "Fewest" not in dock.verdict.text()


def test_an_adapter_trained_again_or_removed_elsewhere(dock, until, asked, tmp_path, make_adapter):
    again = make_adapter(tmp_path / "new.safetensors", classes=("pore", "matrix", "crack"), seed=3)
    import_adapter(again, "steel", replace=True)
    dock.map_button.click()
    settled(dock, until)
    assert dock.mapped.card.classes == ("pore", "matrix", "crack")
    fewer = make_adapter(tmp_path / "fewer.safetensors", classes=("pore", "matrix"), seed=4)
    import_adapter(fewer, "steel", replace=True)
    dock.solve_stack()
    assert "Map a plane" in dock.footer.result.text(), "not with phases that are gone"
    assert len(dock.rows.rows) == 2
    get_adapter("steel").path.unlink()
    dock.map_phases()
    assert len(asked) == 1, "not with another adapter"
    assert dock.footer.result.text() == "the adapter steel is gone; choose another one"

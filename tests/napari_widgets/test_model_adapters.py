"""Adapters in the Models dock and in the header of all docks."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog
from safetensors.torch import load_file

from phasesam.models import adapter_loading
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapter_store import (
    import_adapter,
    list_adapters,
    remove_adapter,
    store_folder,
)
from phasesam.models.manager import get_manager
from phasesam.models.registry import import_checkpoint
from phasesam.models.sam import build_model
from phasesam.napari_widgets.automatic import AutomaticMasksDock
from phasesam.napari_widgets.model_status import manager_watch
from phasesam.napari_widgets.model_table import Choice
from phasesam.napari_widgets.models import ModelsDock
from phasesam.napari_widgets.prompt_layers import PlanePrompts
from phasesam.napari_widgets.prompts import PromptDock
from phasesam.napari_widgets.strength_row import AdapterOnModel
from phasesam.napari_widgets.viewer_state import state_of

POWDER = Choice("steel", "powder")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A model "steel", which is the tiny one, imported."""
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))
    torch.save(build_model("tiny").state_dict(), tmp_path / "steel.pt")
    import_checkpoint(tmp_path / "steel.pt", "steel")
    get_manager().unload_all()
    get_manager().set_device("cpu")
    yield tmp_path
    get_manager().unload_all()
    get_manager().set_device("auto")


@pytest.fixture
def powder(home, make_adapter):
    path = make_adapter(home / "run" / "best.safetensors", "steel", recipe="default", licence="MIT")
    import_adapter(path, "powder")
    return path


@pytest.fixture
def dock(qtbot, viewer_model, powder):
    dock = ModelsDock(viewer_model)
    qtbot.addWidget(dock)
    return dock


def texts(dock, choice):
    item = dock.table.row(choice)
    return None if item is None else [item.text(column) for column in range(4)]


def entries(dock):
    combo = dock.header.model_combo
    return [combo.itemText(index) for index in range(combo.count())]


def choose(dock, text):
    combo = dock.header.model_combo
    index = entries(dock).index(text)
    combo.setCurrentIndex(index)
    combo.activated.emit(index)


def test_adapters_are_listed_under_their_base(dock, make_adapter):
    make_adapter(store_folder() / "map.safetensors", "steel", classes=("matrix", "pore"))
    make_adapter(store_folder() / "other.safetensors", "tiny")
    cut = store_folder() / "cut.safetensors"
    cut.write_bytes((store_folder() / "powder.safetensors").read_bytes()[:-4])
    dock.refresh()
    base = dock.table.row(Choice("steel"))
    assert [base.child(i).text(0) for i in range(base.childCount())] == ["+ map", "+ powder"]
    assert base.isExpanded()
    row = texts(dock, POWDER)
    assert row[0] == "+ powder"
    assert row[1].startswith("on disk, ")
    assert row[2:] == ["—", "MIT"]
    assert "Recipe: default" in dock.table.row(POWDER).toolTip(0)
    assert "matrix, pore" in base.child(0).toolTip(0)
    # Neither is lost: one is damaged, the base of the other is not here.
    assert texts(dock, Choice("", "cut"))[:2] == ["+ cut", "damaged"]
    assert "incomplete" in dock.table.row(Choice("", "cut")).toolTip(0)
    assert "tiny, which is not here" in dock.table.row(Choice("", "other")).toolTip(0)
    for name in ("cut", "other"):
        dock.table.select(Choice("", name))
        off = (dock.use_button, dock.load_button, dock.unload_button, dock.merge_button)
        assert not any(button.isEnabled() for button in off)
        assert dock.forget_button.isEnabled()
        assert not dock.strength.isEnabled()


def test_use_in_all_docks(dock, qtbot, viewer_model):
    others = [PromptDock(viewer_model), AutomaticMasksDock(viewer_model)]
    for other in others:
        qtbot.addWidget(other)
        assert [text for text in entries(other) if "steel" in text] == ["steel", "steel + powder"]
    dock.table.select(POWDER)
    dock.use_button.click()
    assert "now use steel + powder" in dock.footer.result.text()
    assert texts(dock, POWDER)[0] == "+ powder ✓"
    assert texts(dock, Choice("steel"))[0] == "steel"
    assert not dock.use_button.isEnabled()
    for other in others:
        assert other.header.model_combo.currentText() == "steel + powder"
    choose(others[0], "steel")
    assert (dock.state.model_name, dock.state.adapter) == ("steel", None)
    assert texts(dock, Choice("steel"))[0] == "steel ✓"
    choose(others[1], "steel + powder")
    assert (dock.state.model_name, dock.state.adapter) == ("steel", "powder")
    assert others[0].header.model_combo.currentText() == "steel + powder"


def test_an_adapter_by_path_shows_in_the_header(dock, powder):
    dock.state.choose_model("steel", str(powder))
    assert dock.header.model_combo.currentText() == "steel + best"


def test_load_and_unload(dock, until):
    dock.table.select(POWDER)
    dock.load_button.click()
    until(lambda: texts(dock, POWDER)[2].startswith("cpu · "))
    until(lambda: "steel + powder is in memory" in dock.footer.result.text())
    assert texts(dock, Choice("steel"))[2].startswith("cpu · ")
    until(lambda: not dock.running)
    assert not dock.load_button.isEnabled()
    dock.unload_button.click()
    until(lambda: texts(dock, POWDER)[2] == "—" and not dock.running)
    assert texts(dock, Choice("steel"))[2].startswith("cpu · ")
    dock.load_button.click()
    until(lambda: texts(dock, POWDER)[2] != "—" and not dock.running)
    dock.table.select(Choice("steel"))
    dock.unload_button.click()
    until(lambda: texts(dock, Choice("steel"))[2] == texts(dock, POWDER)[2] == "—")


def test_import_recognises_an_adapter(dock, until, make_adapter, home):
    path = make_adapter(home / "my pores (2).safetensors", "steel", seed=3)
    catalogue = []
    manager_watch().catalogue_changed.connect(lambda: catalogue.append(1))
    dock.import_file(path)
    until(lambda: not dock.running)
    assert dock.table.choice == Choice("steel", "my_pores_2")
    assert "Imported my_pores_2, an adapter of steel" in dock.footer.result.text()
    assert "steel + my_pores_2" in entries(dock)
    dock.import_file(path)
    until(lambda: "an adapter 'my_pores_2' already" in dock.footer.result.text())
    cut = home / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-8])
    dock.import_file(cut)
    until(lambda: "incomplete" in dock.footer.result.text())


def test_remove(dock, until):
    dock.table.select(POWDER)
    dock.use_button.click()
    dock.load_button.click()
    until(lambda: not dock.running)
    dock.forget_button.click()
    until(lambda: list_adapters() == ())
    until(lambda: not dock.running)
    assert (dock.state.model_name, dock.state.adapter) == ("steel", None)
    assert texts(dock, POWDER) is None
    assert "steel + powder" not in entries(dock)
    assert [model.adapter for model in get_manager().resident()] == [None]


def test_merge(dock, until, home, monkeypatch):
    dock.table.select(POWDER)
    get_manager().set_strength("steel", "powder", 0.5)
    answers = [("", ""), (str(home / "merged"), "")]
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: answers.pop(0))
    dock.merge_button.click()
    assert not dock.running
    dock.merge_button.click()
    until(lambda: "Written: merged.pth" in dock.footer.result.text())
    state = torch.load(home / "merged.pth")
    base = build_model("tiny").state_dict()
    assert set(state) == set(base)
    assert not torch.equal(*(s["image_encoder.blocks.1.attn.qkv.weight"] for s in (state, base)))


def test_what_cannot_be_merged_says_why(dock, make_adapter):
    conv = AdapterConfig("conv_lora", encoder=("qkv",), rank=2)
    make_adapter(store_folder() / "conv.safetensors", "steel", conv)
    make_adapter(store_folder() / "map.safetensors", "steel", classes=("a", "b"))
    dock.refresh()
    for name, reason in (("conv", "Conv-LoRA cannot be merged"), ("map", "other tools have no")):
        dock.table.select(Choice("steel", name))
        assert not dock.merge_button.isEnabled()
        assert reason in dock.merge_button.toolTip()
    assert "Conv-LoRA cannot be merged" in dock.table.row(Choice("steel", "conv")).toolTip(0)
    dock.table.select(POWDER)
    assert dock.merge_button.isEnabled()


class TestStrength:
    def test_slider_sets_the_strength(self, dock, until, make_adapter):
        make_adapter(store_folder() / "pores.safetensors", "steel", seed=2)
        dock.refresh()
        assert not dock.strength.isEnabled()
        dock.table.select(POWDER)
        assert dock.strength.isEnabled()
        assert dock.strength.value_text.text() == "1.00"
        dock.strength.slider.setValue(40)
        assert dock.strength.value_text.text() == "0.40"
        until(lambda: get_manager().adapter_strength("steel", "powder") == 0.4)
        until(lambda: "powder acts with a strength of 0.40" in dock.footer.result.text())
        dock.table.select(Choice("steel", "pores"))
        assert dock.strength.value == 1
        dock.table.select(POWDER)
        assert dock.strength.value == 0.4

    def test_a_change_is_not_lost_when_another_row_is_chosen(self, dock, until):
        dock.table.select(POWDER)
        dock.strength.slider.setValue(20)
        dock.table.select(Choice("steel"))
        assert not dock.strength.isEnabled()
        until(lambda: get_manager().adapter_strength("steel", "powder") == 0.2)

    def test_refreshing_does_not_fight_the_user(self, dock, until):
        dock.table.select(POWDER)
        dock.strength.slider.setValue(70)
        dock.refresh()
        assert dock.strength.value == 0.7
        until(lambda: get_manager().adapter_strength("steel", "powder") == 0.7)

    def test_only_where_it_rests_is_computed(self, dock, until, monkeypatch):
        chosen = []
        real = adapter_loading.AdapterVersions.set_strength

        def set_strength(self, base, adapter, strength):
            chosen.append(strength)
            real(self, base, adapter, strength)

        monkeypatch.setattr(adapter_loading.AdapterVersions, "set_strength", set_strength)
        dock.table.select(POWDER)
        for value in range(90, 10, -5):
            dock.strength.slider.setValue(value)
        until(lambda: "0.15" in dock.footer.result.text())
        assert chosen == [0.15]

    def test_it_can_be_moved_while_something_loads(self, dock, until, monkeypatch):
        gate = threading.Event()
        monkeypatch.setattr(
            type(get_manager()), "load", lambda self, *args, **kwargs: gate.wait(20)
        )
        dock.table.select(POWDER)
        dock.load_button.click()
        assert dock.running
        dock.strength.slider.setValue(30)
        until(lambda: get_manager().adapter_strength("steel", "powder") == 0.3)
        gate.set()
        until(lambda: not dock.running)

    def test_an_adapter_that_has_gone(self, dock, until):
        dock.table.select(POWDER)
        (store_folder() / "powder.safetensors").unlink()
        dock.strength.slider.setValue(30)
        until(lambda: "no adapter 'powder'" in dock.footer.result.text())
        dock.refresh()
        assert texts(dock, POWDER) is None


@pytest.fixture
def image(viewer_model):
    y, x = np.mgrid[:64, :96]
    inside = (y % 32 - 16) ** 2 + (x % 32 - 16) ** 2 < 80
    noise = np.random.default_rng(0).normal(0, 6, y.shape)
    return viewer_model.add_image(np.clip(70 + 110 * inside + noise, 0, 255).astype(np.uint8))


def test_prompts_answer_with_the_adapter_and_its_strength(dock, qtbot, viewer_model, image, until):
    """The object in the making is asked for again whenever the adapter acts otherwise."""
    prompt = PromptDock(viewer_model)
    qtbot.addWidget(prompt)
    choose(prompt, "steel")
    controller = prompt.controller
    prompts = PlanePrompts(np.array([[16.0, 48.0]]), np.array([1]))
    controller.present().say(prompts)
    controller.begin(image, controller.plane(), controller.present())
    controller.ask()

    def answer():
        present = controller.present()
        return None if present is None or present.answer is None else present.answer.masks.logits

    until(lambda: answer() is not None, timeout=60_000)
    plain = answer()

    def next_answer(old):
        until(lambda: answer() is not None and answer() is not old, timeout=60_000)
        return answer()

    choose(prompt, "steel + powder")
    whole = next_answer(plain)
    assert not np.allclose(whole, plain, atol=0.1)
    dock.table.select(POWDER)
    dock.strength.slider.setValue(50)
    half = next_answer(whole)
    assert not np.allclose(half, whole, atol=0.1)
    dock.strength.slider.setValue(0)
    assert np.array_equal(next_answer(half), plain)


def test_an_unused_adapter_disturbs_nobody(dock, qtbot, viewer_model, image, until):
    state = state_of(viewer_model)
    changes = []
    state.events.model_changed.connect(changes.append)
    dock.table.select(POWDER)
    dock.strength.slider.setValue(50)
    until(lambda: get_manager().adapter_strength("steel", "powder") == 0.5)
    until(lambda: "0.50" in dock.footer.result.text())
    assert changes == []
    state.choose_model("steel", "powder")
    dock.strength.slider.setValue(60)
    until(lambda: len(changes) == 2)


def test_segmenters_are_kept_per_version(dock, viewer_model, image, powder, make_adapter):
    state = state_of(viewer_model)
    state.choose_model("steel", "powder")
    first = state.segmenter(image)
    assert state.segmenter(image) is first
    get_manager().set_strength("steel", "powder", 0.5)
    second = state.segmenter(image)
    assert second is not first
    get_manager().set_strength("steel", "powder", 1)
    assert state.segmenter(image) is first
    make_adapter(powder, "steel", seed=9)
    import_adapter(powder, "powder", replace=True)
    assert state.segmenter(image) not in (first, second)
    state.choose_model("steel")
    assert state.segmenter(image)._options["adapter"] is None


def test_automatic_masks_use_the_adapter(dock, qtbot, viewer_model, image, until):
    automatic = AutomaticMasksDock(viewer_model)
    qtbot.addWidget(automatic)
    seen = []
    automatic.search.points.setValue(2)
    for text in ("steel", "steel + powder"):
        choose(automatic, text)
        automatic.find_masks()
        until(lambda: not automatic.running, timeout=60_000)
        run = automatic._found[image]
        seen.append(run.found.candidates)
    assert len(seen[0]) != len(seen[1]) or not np.array_equal(seen[0].scores, seen[1].scores)


def test_the_table_keeps_its_place(dock):
    dock.table.select(POWDER)
    dock.refresh()
    assert dock.table.choice == POWDER
    assert dock.table.row(POWDER).data(0, Qt.ItemDataRole.UserRole) == tuple(POWDER)
    assert load_file(store_folder() / "powder.safetensors")


def test_the_next_adapter_of_a_name_acts_fully(powder, home, make_adapter):
    get_manager().set_strength("steel", "powder", 0.0)
    remove_adapter("powder")
    import_adapter(make_adapter(home / "new.safetensors", "steel", seed=7), "powder")
    assert get_manager().adapter_strength("steel", "powder") == 1
    assert get_manager().adapter_version("steel", "powder").strength == 1


def test_strengths_of_several_adapters_changed_soon_after_each_other(
    dock, home, make_adapter, until, monkeypatch
):
    import_adapter(make_adapter(home / "b.safetensors", "steel", seed=1), "b")
    import_adapter(make_adapter(home / "c.safetensors", "steel", seed=2), "c")
    gate = threading.Event()
    real = adapter_loading.AdapterVersions.set_strength

    def set_strength(self, base, adapter, strength):
        assert gate.wait(20)
        real(self, base, adapter, strength)

    monkeypatch.setattr(adapter_loading.AdapterVersions, "set_strength", set_strength)
    for name, strength in (("powder", 0.2), ("b", 0.3), ("c", 0.4)):
        dock._on_strength(AdapterOnModel("steel", name), strength)
    gate.set()
    for name, strength in (("powder", 0.2), ("b", 0.3), ("c", 0.4)):
        until(lambda n=name, s=strength: get_manager().adapter_strength("steel", n) == s)


def test_a_long_name_does_not_widen_a_dock(dock, shown, qtbot):
    shown(dock, (300, 700))
    qtbot.wait(50)
    before = dock.minimumSizeHint().width()
    dock.footer.begin("Importing " + "x" * 120 + ".safetensors")
    qtbot.wait(50)
    assert dock.minimumSizeHint().width() == before
    dock.footer.end()
    dock.footer.say("powder_" + "y" * 120)
    qtbot.wait(50)
    assert dock.minimumSizeHint().width() == before

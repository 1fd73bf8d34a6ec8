"""Recipes and the settings in the folded part."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QInputDialog

from phasesam.core.errors import InvalidSettingError
from phasesam.napari_widgets.finetune_recipe import RateBox, RecipePanel
from phasesam.training.recipes import get_recipe, list_recipes, user_folder


@pytest.fixture
def panel(qtbot):
    panel = RecipePanel()
    qtbot.addWidget(panel)
    return panel


def test_recipes_of_the_task_are_offered(panel):
    for task in ("promptable", "instance", "semantic"):
        panel.set_task(task)
        offered = {panel.recipes.itemData(i) for i in range(panel.recipes.count())}
        assert offered == {name for name, r in list_recipes().items() if task in r.tasks}
        assert panel.original.name in offered


def test_untouched_it_is_the_recipe_itself(panel):
    for name in list_recipes():
        panel.set_task(get_recipe(name).tasks[0])
        panel.select(name)
        assert panel.recipe() == get_recipe(name)
        assert panel.description.text() == get_recipe(name).description


def test_settings_change_the_recipe_and_its_name(panel, qtbot):
    with qtbot.waitSignal(panel.changed):
        panel.epochs.setValue(3)
    panel.rank.setValue(8)
    panel.side.setValue(512)
    panel.rates["lr_heads"].setValue(2e-3)
    recipe = panel.recipe()
    assert (recipe.epochs, recipe.adapter.rank, recipe.adapter.decoder_rank) == (3, 8, 8)
    assert (recipe.views.window, recipe.optimiser.lr_heads) == (512, 2e-3)
    assert recipe.name == "default-changed"
    panel.select("default")
    assert panel.recipe().name == "default"


def test_a_network_of_phases_may_take_their_ratio(panel, qtbot):
    assert not panel.takes_ratio.isEnabled()
    panel.set_task("semantic")
    assert panel.takes_ratio.isEnabled()
    assert panel.recipe().adapter.ratio == "none"
    with qtbot.waitSignal(panel.changed):
        panel.takes_ratio.click()
    assert panel.recipe().adapter.ratio == "located"
    panel.select("default")
    assert not panel.takes_ratio.isChecked()


def test_another_task_keeps_the_changes_where_it_can(panel):
    panel.epochs.setValue(3)
    panel.set_task("semantic")
    assert panel.recipe().epochs == 3


def test_the_window_is_found_by_the_images_where_the_recipe_says_so(panel):
    panel.select("battery-particles")
    assert panel.side.text() == "512 px"
    panel.select("one-image")
    panel.side.setValue(0)
    assert panel.side.text() == "whole image"
    panel.select("default")
    assert panel.side.text() == "automatic"
    panel.side.setValue(256)
    assert panel.recipe().views.window == 256


def test_a_recipe_of_ones_own(panel, qtbot, monkeypatch):
    panel.epochs.setValue(3)
    monkeypatch.setattr(QInputDialog, "getText", lambda *a, **k: ("My powder (fast)", True))
    with qtbot.waitSignal(panel.saved) as told:
        panel.save_button.click()
    assert told.args == ["Saved the recipe My powder (fast)."]
    assert (user_folder() / "My-powder-fast.json").is_file()
    assert panel.original.name == "My-powder-fast"
    assert panel.recipes.currentText() == "My powder (fast)"
    assert get_recipe("My-powder-fast").epochs == 3
    with qtbot.waitSignal(panel.saved) as told:
        panel.save("My powder (fast)")
    assert told.args == ["Replaced the recipe My powder (fast)."]


def test_other_titles_are_other_recipes(panel, qtbot):
    titles = ["a b", "a-b", "A B", "日本", "鋼", "Größe", "Grosse", "x" * 70, "x" * 71]
    for title in titles:
        panel.save(title)
        assert panel.recipes.currentText() == title
    offered = [panel.recipes.itemText(i) for i in range(panel.recipes.count())]
    assert set(titles) <= set(offered)
    panel.save("日本")
    assert [panel.recipes.itemText(i) for i in range(panel.recipes.count())] == offered


@pytest.mark.parametrize("title", ["default", "Default", "One image"])
def test_what_comes_with_the_product_is_not_replaced(panel, qtbot, title):
    before = get_recipe("default")
    panel.epochs.setValue(1)
    with qtbot.waitSignal(panel.failed) as told:
        panel.save(title)
    assert "comes with PhaseSAM" in told.args[0]
    assert get_recipe("default") == before


def test_saving_can_be_cancelled(panel, monkeypatch):
    monkeypatch.setattr(QInputDialog, "getText", lambda *a, **k: ("", False))
    panel.save_button.click()
    assert not user_folder().exists()


def test_a_damaged_recipe_is_told(panel, qtbot):
    user_folder().mkdir(parents=True)
    (user_folder() / "bad.json").write_text("{")
    with qtbot.waitSignal(panel.failed) as told:
        panel.load()
    assert "bad.json" in told.args[0]
    assert panel.original is not None, "the others can be used"
    panel.load()
    again = RecipePanel()
    qtbot.addWidget(again)
    assert again.problems == panel.problems
    assert again.original is not None
    assert get_recipe("default").name == "default"


def test_without_any_recipe(panel):
    panel._recipes = {}
    panel._list(None)
    with pytest.raises(InvalidSettingError):
        panel.recipe()


def test_the_base_is_the_model_chosen_above_unless_said_otherwise(panel):
    assert panel.base_model("tiny") == "tiny"
    panel.base.setCurrentIndex(panel.base.findData("sam_vit_b"))
    assert panel.base_model("tiny") == "sam_vit_b"
    panel.load()
    assert panel.base_model("tiny") == "sam_vit_b"


@pytest.mark.parametrize(("text", "value"), [("5e-4", 5e-4), ("0.001", 0.001), ("1e-05", 1e-5)])
def test_rates_are_written_and_read_as_people_do(qtbot, text, value):
    box = RateBox()
    qtbot.addWidget(box)
    box.lineEdit().setText(text)
    box.interpretText()
    assert box.value() == pytest.approx(value)
    assert float(box.text()) == value

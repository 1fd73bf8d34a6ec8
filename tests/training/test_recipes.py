"""Recipes are data: read, changed, saved, refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from phasesam.core.errors import FileFormatError, InvalidSettingError
from phasesam.training.recipes import (
    Recipe,
    find_recipes,
    get_recipe,
    list_recipes,
    read_recipe,
    save_recipe,
    user_folder,
)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "recipes"


def test_all_bundled_recipes_are_there_the_default_first() -> None:
    names = list(list_recipes())
    assert names[0] == "default"
    assert set(names) == {
        "default", "battery-particles", "dental-iterative", "one-image", "particles",
        "xct-conv-lora",
    }  # fmt: skip


def test_the_published_particle_recipe_is_as_published() -> None:
    recipe = get_recipe("battery-particles")
    assert (recipe.adapter.rank, recipe.batch, recipe.epochs) == (512, 8, 40)
    assert recipe.optimiser.kind == "adam"
    assert (recipe.optimiser.lr_encoder, recipe.optimiser.weight_decay) == (1e-4, 0.01)
    assert recipe.views.window == 512
    assert recipe.fractions == (0.7, 0.2, 0.1)


@pytest.mark.parametrize("name", list(list_recipes()))
def test_a_recipe_survives_its_file(name: str, tmp_path: Path) -> None:
    recipe = get_recipe(name)
    path = save_recipe(recipe, tmp_path / "r.json")
    assert read_recipe(path) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_own_recipes_are_listed_and_may_replace_bundled_ones() -> None:
    own = replace(get_recipe("default"), name="mine", epochs=3)
    own = replace(own, title="Mine")
    save_recipe(own)
    assert get_recipe("mine") == own
    with pytest.raises(InvalidSettingError, match="comes with PhaseSAM"):
        save_recipe(replace(get_recipe("one-image"), epochs=7))
    save_recipe(replace(get_recipe("one-image"), epochs=7), user_folder() / "one-image.json")
    assert get_recipe("one-image").epochs == 7


def test_a_damaged_file_does_not_hold_the_others_up() -> None:
    user_folder().mkdir(parents=True)
    (user_folder() / "broken.json").write_text('{"name": "broken", "speed": 3}')
    recipes, (problem,) = find_recipes()
    assert set(recipes) == set(list_recipes()) >= {"default", "one-image"}
    assert "broken.json is no recipe" in problem
    assert get_recipe("default") == recipes["default"]
    with pytest.raises(InvalidSettingError, match=r"no recipe 'broken'.*broken\.json"):
        get_recipe("broken")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"speed": 3}, "unknown settings speed"),
        ({"adapter": {"rnk": 3}}, "recipe.adapter: unknown settings rnk"),
        ({"adapter": 3}, "settings by name"),
        ({"optimiser": {"kind": "lion"}}, "lion"),
        ({"views": {"augmentation": {"gamma": [2, 1]}}}, "gamma"),
        ({"tasks": ["dancing"]}, "dancing"),
        ({"name": "../x"}, "letters"),
        ({"views": {"window": 3.5}}, "recipe.views.window: expected a whole number or null"),
        ({"views": {"window": True}}, "expected a whole number or null, got True"),
        ({"prompts": {"objects": 2.5}}, "recipe.prompts.objects: expected a whole number"),
        ({"loss": {"coarse": "x"}}, "recipe.loss.coarse: expected a number, got 'x'"),
        ({"adapter": {"encoder": "qkv"}}, "recipe.adapter.encoder: expected a list"),
        ({"tasks": "semantic"}, "recipe.tasks: expected a list, got 'semantic'"),
        ({"fractions": 0.5}, "recipe.fractions: expected a list"),
        ({"stretch": 1}, "recipe.stretch: expected true or false"),
        ({"views": {"augmentation": {"scale": [1]}}}, "recipe.views.augmentation: "),
        ({"fractions": [1, "a", 0]}, "recipe: could not convert"),
        ({"loss": {"iou": float("nan")}}, "weights of a loss"),
        ({"loss": {"dice": float("inf")}}, "weights of a loss"),
        ({"optimiser": {"weight_decay": float("nan")}}, "weight_decay"),
    ],
)
def test_refuses_with_the_name_of_the_setting(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        Recipe.from_dict({"name": "a", "title": "", "description": "", **values})


def test_refuses_files_that_are_no_recipes(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    for text in ("[", "[1]", json.dumps({"name": "a"})):
        path.write_text(text)
        with pytest.raises(FileFormatError, match=r"r\.json is no recipe"):
            read_recipe(path)
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_recipe(tmp_path / "none.json")
    with pytest.raises(InvalidSettingError, match="there are default"):
        get_recipe("none")


def test_is_completed_for_instances_and_for_sam_hq() -> None:
    default = get_recipe("default")
    assert default.fitted("promptable", False) == replace(default, stretch=False)
    instance = default.fitted("instance", False)
    assert instance.adapter.iou_head
    assert instance.prompts.background == default.prompts.objects
    assert default.fitted("promptable", True).adapter.hq == "full"


@pytest.mark.parametrize(
    ("side", "window"), [(200, None), (256, None), (512, 384), (900, 675), (6000, 1024)]
)
def test_the_window_follows_the_images_of_phases(side: int, window: int | None) -> None:
    default = get_recipe("default")
    assert default.fitted("semantic", False, side).views.window == window
    assert default.fitted("promptable", False, side).views.window is None
    chosen = replace(default, views=replace(default.views, window=700))
    assert chosen.fitted("semantic", False, side).views.window == 700

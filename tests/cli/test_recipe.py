from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from phasesam.cli.batch_options import ImageOptions
from phasesam.cli.recipe import build_recipe
from phasesam.cli.segment_options import (
    FilterOptions,
    Nested,
    NmsKind,
    PresetName,
    PromptOptions,
    Rank,
    SearchOptions,
)
from phasesam.core.errors import InvalidSettingError
from phasesam.engines.automatic_config import AutomaticConfig, FilterConfig
from phasesam.engines.presets import PRESETS


def recipe(image=None, prompts=None, search=None, filters=None):
    return build_recipe(
        "tiny",
        image or ImageOptions(),
        prompts or PromptOptions(),
        search or SearchOptions(),
        filters or FilterOptions(),
    )


def names(options):
    return {field.name for field in fields(options)}


def test_every_filter_setting_has_an_option():
    assert names(FilterOptions) == names(FilterConfig)


def test_search_options_are_settings_of_the_search():
    # Left out on purpose: an own grid, and the thresholds behind "skip covered".
    hidden = {"point_grid", "cover_iou", "cover_stability", "cover_area"}
    floors = {"iou_floor", "stability_floor"}
    assert names(SearchOptions) - {"preset"} == names(AutomaticConfig) - hidden - floors


def test_choices_are_those_of_the_engines():
    assert {p.value for p in PresetName} == set(PRESETS)
    for value in (*Nested, *NmsKind, *Rank):
        key = {Nested: "nested", NmsKind: "nms_kind", Rank: "rank"}[type(value)]
        assert getattr(FilterConfig(**{key: value.value}), key) == value.value


@pytest.mark.parametrize("name", list(PresetName))
def test_without_options_the_preset_holds(name):
    made = recipe(search=SearchOptions(preset=name))
    preset = PRESETS[name.value]
    assert made.filter_for((100, 200)) == preset.filter_for((100, 200))
    assert made.search.points_per_side == preset.automatic.points_per_side


def test_options_override_the_preset():
    made = recipe(
        search=SearchOptions(preset=PresetName.pores, points_per_side=7, skip_covered=False),
        filters=FilterOptions(nested=Nested.both, min_area=0.0, touching_edge=False),
    )
    settings = made.filter_for((100, 100))
    assert (made.search.points_per_side, made.search.skip_covered) == (7, False)
    assert (settings.nested, settings.min_area, settings.touching_edge) == ("both", 0, False)
    assert settings.max_area == pytest.approx(500)


def test_search_keeps_what_a_low_threshold_asks_for(monkeypatch):
    floors = PRESETS["default"].automatic.changed(iou_floor=0.7, stability_floor=0.8)
    preset = replace(PRESETS["default"], automatic=floors)
    monkeypatch.setattr("phasesam.cli.recipe.get_preset", lambda name: preset)
    made = recipe(filters=FilterOptions(pred_iou=0.3, stability=0.2)).search
    assert (made.iou_floor, made.stability_floor) == (0.3, 0.2)
    kept = recipe(filters=FilterOptions(pred_iou=0.9)).search
    assert (kept.iou_floor, kept.stability_floor) == (0.7, 0.8)


def test_prompts_and_thresholds_exclude_each_other(tmp_path):
    path = tmp_path / "p.json"
    path.write_text('{"objects": [{"points": [[1, 1]]}]}')
    assert recipe(prompts=PromptOptions(path)).prompts is not None
    with pytest.raises(InvalidSettingError, match=r"exclude each other.*nms"):
        recipe(prompts=PromptOptions(path), filters=FilterOptions(nms=0.5))
    for preset in (PresetName.particles, PresetName.default):
        with pytest.raises(InvalidSettingError, match=r"exclude each other.*preset"):
            recipe(prompts=PromptOptions(path), search=SearchOptions(preset=preset))
    with pytest.raises(InvalidSettingError, match=r"exclude each other.*region"):
        recipe(prompts=PromptOptions(path), search=SearchOptions(region=path))


def test_planes_are_read_before_the_work():
    assert recipe(image=ImageOptions(planes="0-3/2,7")).planes == "0-3/2,7"
    with pytest.raises(InvalidSettingError, match="--planes expects"):
        recipe(image=ImageOptions(planes="5-2"))


def test_contradictions_are_refused_before_the_work():
    with pytest.raises(InvalidSettingError, match="max_area"):
        recipe(filters=FilterOptions(min_area=50, max_area=10))


def test_image_options():
    made = recipe(
        image=ImageOptions(
            pixel_size="20nm", intensity_range=(10.0, 900.0), data_bar_detection=False
        )
    )
    assert made.pixel_size.x == pytest.approx(0.02)
    assert (made.normalisation.mode, made.normalisation.high) == ("range", 900.0)
    assert not made.exclude_data_bar
    with pytest.raises(InvalidSettingError, match="low < high"):
        recipe(image=ImageOptions(intensity_range=(9.0, 1.0)))


def test_region_is_read_from_an_image(tmp_path):
    from PIL import Image

    mask = np.zeros((20, 30), np.uint8)
    mask[5:10, 5:10] = 255
    Image.fromarray(mask).save(tmp_path / "region.png")
    made = recipe(search=SearchOptions(region=tmp_path / "region.png"))
    assert np.array_equal(made.search.region, mask > 0)
    Image.fromarray(mask * 0).save(tmp_path / "empty.png")
    with pytest.raises(InvalidSettingError, match="zero everywhere"):
        recipe(search=SearchOptions(region=tmp_path / "empty.png"))
    (tmp_path / "notes.txt").write_text("no image")
    for name in ("notes.txt", "gone.png"):
        with pytest.raises(InvalidSettingError, match=f"--region: {name}"):
            recipe(search=SearchOptions(region=tmp_path / name))


def test_region_without_permission(tmp_path, monkeypatch):
    from phasesam.formats import readers

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(readers, "read_image", refuse)
    with pytest.raises(InvalidSettingError, match=r"--region.*Permission denied"):
        recipe(search=SearchOptions(region=tmp_path / "region.png"))


def test_settings_for_the_summary_are_plain():
    import json

    text = json.dumps(recipe(filters=FilterOptions(nested=Nested.outer)).as_dict())
    assert json.loads(text)["filter"]["nested"] == "outer"
    assert json.loads(text)["search"]["points_per_side"] == 32

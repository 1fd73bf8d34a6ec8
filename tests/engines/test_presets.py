from __future__ import annotations

import inspect

import pytest
from segment_anything import SamAutomaticMaskGenerator

from phasesam.core.errors import InvalidSettingError
from phasesam.engines.presets import PRESETS, get_preset


def test_names():
    assert list(PRESETS) == ["default", "particles", "grains", "pores"]
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert get_preset(name) is preset
        assert preset.title
        assert preset.description.endswith(".")


def test_default_is_segment_anythings():
    theirs = {
        name: parameter.default
        for name, parameter in inspect.signature(SamAutomaticMaskGenerator).parameters.items()
    }
    search, choice = PRESETS["default"].automatic, PRESETS["default"].filter
    for name in ("points_per_side", "crop_n_layers", "crop_overlap_ratio"):
        assert getattr(search, name) == theirs[name]
    assert choice.pred_iou == theirs["pred_iou_thresh"]
    assert choice.stability == theirs["stability_score_thresh"]
    assert choice.stability_offset == theirs["stability_score_offset"]
    assert choice.nms == theirs["box_nms_thresh"] == theirs["crop_nms_thresh"]
    assert (choice.nms_kind, choice.nested, choice.overlap, choice.max_area) == (
        ("box", "both", 1.0, None)
    )
    assert not search.skip_covered


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_searches_keep_what_their_filters_want(preset):
    assert preset.automatic.iou_floor <= preset.filter.pred_iou
    assert preset.automatic.stability_floor <= preset.filter.stability


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_largest_area_follows_the_image(preset):
    small, large = preset.filter_for((1, 1)), preset.filter_for((1000, 2000))
    if preset.max_area_share is None:
        assert small == large == preset.filter
    else:
        assert large.max_area == pytest.approx(preset.max_area_share * 2_000_000)
        assert large.changed(max_area=None) == preset.filter
        assert small.max_area is not None
        assert small.max_area == max(small.min_area, preset.max_area_share)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(InvalidSettingError, match="unknown preset 'cracks'; known are default, pa"):
        get_preset("cracks")

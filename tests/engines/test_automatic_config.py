from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from segment_anything.utils.amg import build_all_layer_point_grids

from phasesam.core.errors import InvalidSettingError
from phasesam.engines.automatic_config import AutomaticConfig, FilterConfig


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("points_per_side", 0, "whole number from 1 to 512, got 0"),
        ("points_per_side", 32.0, "whole number from 1 to 512, got 32.0"),
        ("points_per_batch", 0, "points_per_batch must be a whole number from 1"),
        ("crop_n_layers", -1, "crop_n_layers must be a whole number from 0 to 5"),
        ("crop_n_points_downscale_factor", 0, "downscale_factor must be a whole number from 1"),
        ("crop_overlap_ratio", 1.0, "crop_overlap_ratio must be a number from 0 to 0.95"),
        ("iou_floor", -0.1, "iou_floor must be a number from 0 to 1, got -0.1"),
        ("iou_floor", math.nan, "iou_floor must be a number from 0 to 1, got nan"),
        ("stability_floor", "0.5", "stability_floor must be a number from 0 to 1, got '0.5'"),
        ("cover_iou", 2, "cover_iou must be a number"),
        ("cover_area", 1.5, "cover_area must be a number"),
        ("point_grid", np.zeros((4, 3)), r"point_grid is \(n, 2\).*got shape \(4, 3\)"),
        ("point_grid", np.array([[0.5, 1.1]]), "point_grid is"),
        ("point_grid", np.array([[0.5, np.nan]]), "point_grid is"),
        ("region", np.ones((3, 4, 5), bool), r"region has shape \(h, w\), got \(3, 4, 5\)"),
    ],
)
def test_wrong_searches_are_refused(name, value, message):
    with pytest.raises(InvalidSettingError, match=message):
        AutomaticConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pred_iou", 1.1, "pred_iou must be a number from 0 to 1, got 1.1"),
        ("stability", -0.1, "stability must be a number from 0 to 1"),
        ("stability_offset", 9, "stability_offset must be a number from 0 to 8"),
        ("nms", None, "nms must be a number from 0 to 1, got None"),
        ("overlap", math.inf, "overlap must be a number from 0 to 1"),
        ("min_area", -1, "min_area must be a number from 0"),
        ("max_area", -1, "max_area must be a number from 0"),
        ("nms_kind", "pixels", r"nms_kind must be one of \('box', 'mask'\), got 'pixels'"),
        ("rank", "area", "rank must be one of"),
        ("nested", "none", "nested must be one of"),
    ],
)
def test_wrong_filters_are_refused(name, value, message):
    with pytest.raises(InvalidSettingError, match=message):
        FilterConfig(**{name: value})


def test_limits_of_the_area_in_order():
    with pytest.raises(InvalidSettingError, match="max_area must be at least min_area, got 5 < 9"):
        FilterConfig(min_area=9, max_area=5)
    assert FilterConfig(min_area=9, max_area=9).max_area == 9


@pytest.mark.parametrize("config", [AutomaticConfig(), FilterConfig()])
def test_unknown_names_are_refused_and_the_known_ones_listed(config):
    with pytest.raises(InvalidSettingError, match=r"unknown settings \['pred_iuo'\]; known are \["):
        config.changed(pred_iuo=0.9)


def test_changed_copies_and_checks():
    config = FilterConfig()
    assert config.changed(nms=0.5) == FilterConfig(nms=0.5)
    assert config.nms == 0.7
    with pytest.raises(InvalidSettingError, match="nms must be"):
        config.changed(nms=7)
    with pytest.raises(FrozenInstanceError):
        config.nms = 0.1  # type: ignore[misc]


@pytest.mark.parametrize(("side", "factor"), [(8, 1), (8, 2), (7, 3)])
def test_grids_are_segment_anythings(side, factor):
    config = AutomaticConfig(points_per_side=side, crop_n_points_downscale_factor=factor)
    for layer, expected in enumerate(build_all_layer_point_grids(side, 1, factor)):
        np.testing.assert_allclose(config.grid(layer), expected[:, ::-1], atol=1e-12)


def test_a_grid_never_runs_out_of_points():
    config = AutomaticConfig(points_per_side=2, crop_n_points_downscale_factor=4)
    np.testing.assert_array_equal(config.grid(2), [[0.5, 0.5]])


def test_own_grid():
    grid = np.array([[0.1, 0.9], [0.5, 0.5]])
    np.testing.assert_array_equal(AutomaticConfig(point_grid=grid).grid(1), grid)


def test_numpy_numbers_are_numbers():
    assert AutomaticConfig(points_per_side=np.int64(4), iou_floor=np.float32(0.5)).iou_floor == 0.5


def test_settings_and_filter_load_no_torch():
    code = (
        "import sys, phasesam.engines.automatic_config, phasesam.engines.presets,"
        "phasesam.engines.candidates, phasesam.engines.segmenter; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

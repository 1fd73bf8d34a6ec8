from dataclasses import replace

import numpy as np

from phasesam.engines.ratio_guidance import RatioConfig
from phasesam.session.ratio_log import RatioExperiment, log_table
from phasesam.session.ratio_sheet import WHOLE

NAMES = ("ferrite", "bainite", "martensite")
ENTRY = RatioExperiment(
    "SEM", "steel", (3,), NAMES, None, (0.2, None, 0.5), (0, 0, 0.1), (0.3, 0.3, 0.4),
    (0.2, 0.31, 0.49), RatioConfig(2, 30, True), 0.1, 0.01, 0.02,
)  # fmt: skip


def test_the_log_is_a_table():
    table = log_table([ENTRY, ENTRY])
    assert table["request"] == [1, 1, 1, 2, 2, 2]
    assert table["phase"] == list(NAMES) * 2
    assert table["achieved"][:3] == [0.2, 0.31, 0.49]
    assert np.isnan(table["wanted"][1])
    assert table["cost_nats"] == [0.02] * 6
    settings = [table[name][0] for name in ("smoothing_px", "smallest_region_px", "fewest_changes")]
    assert settings == [2, 30, True]
    assert log_table([]) == {}


def test_it_tells_planes_and_regions_apart():
    places = [((), None), ((0, 2), WHOLE), (None, 4)]
    table = log_table([replace(ENTRY, plane=plane, region=region) for plane, region in places])
    assert table["plane"][::3] == ["", "0 2", "all"]
    assert table["region"][::3] == ["whole image", "outside of regions", "4"]

"""What is kept of an automatic search, without a dock."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from phasesam.core.mask_set import MaskSet
from phasesam.engines.automatic_config import FilterConfig
from phasesam.napari_widgets.automatic_run import AutomaticRun
from phasesam.session import SegmentationSession


def test_the_smallest_area_holds_for_what_remains_visible():
    masks = np.zeros((2, 10, 12), bool)
    masks[0, :5, :5] = True
    masks[1, :5, 1:5] = True
    found = SimpleNamespace(candidates=SimpleNamespace(shape=(10, 12)), plane=())
    run = AutomaticRun(found, SimpleNamespace())
    run.kept = SimpleNamespace(masks=MaskSet.from_masks(masks))
    session = SegmentationSession((10, 12))
    run.config = FilterConfig(min_area=6)
    run.commit(session, replace=True)
    assert [record.area for record in session.objects] == [20]
    run.config = FilterConfig(min_area=5)
    run.commit(session, replace=True)
    assert [record.area for record in session.objects] == [5, 20]

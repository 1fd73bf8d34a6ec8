"""One ratio for the planes of a stack together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phasesam.core.errors import InvalidImageError, InvalidSettingError, SaveError
from phasesam.core.ratio import solve
from phasesam.engines.ratio_guidance import RatioConfig, RatioGuide
from phasesam.engines.ratio_stack import RatioStack
from phasesam.engines.semantic import NO_CLASS, PhaseMap


def guide(seed, rows=20, data_bar=None, config=None):
    z = np.random.default_rng(seed).normal(seed, 1, (3, rows, 30)).astype(np.float32)
    z[0] += seed
    p = np.exp(z - z.max(axis=0))
    p = (p / p.sum(axis=0)).astype(np.float32)
    found = PhaseMap(p.argmax(0).astype(np.uint8), tuple("abc"), p, data_bar=data_bar)
    return RatioGuide(found, None, config)


def test_planes_together_are_solved_like_one_image():
    guides = [guide(seed) for seed in range(3)]
    labels = np.zeros((3, 20, 30), np.uint8)
    with RatioStack() as stack:
        for one in guides:
            stack.add(one)
        assert len(stack) == 3
        found = stack.solve([0.25, None, 0.3], write=labels.__setitem__)
        folder = stack._folder.name
    logits = np.stack([one.solver.logits.reshape(3, 20, 30) for one in guides], axis=1)
    whole = solve(logits, [0.25, None, 0.3])
    assert np.bincount(labels.ravel())[[0, 2]].tolist() == [450, 540]
    assert (labels == whole.labels).mean() > 0.999
    assert found.cost == pytest.approx(whole.cost, rel=1e-3)
    assert not Path(folder).exists()


def test_data_bars_have_no_class():
    labels = np.zeros((2, 20, 30), np.uint8)
    with RatioStack() as stack:
        for seed in range(2):
            stack.add(guide(seed, data_bar=16))
        found = stack.solve([0.5, 0.25, 0.25], write=labels.__setitem__)
    assert (labels[:, 16:] == NO_CLASS).all()
    assert np.bincount(labels[:, :16].ravel()).tolist() == [480, 240, 240]
    assert found.achieved.tolist() == [0.5, 0.25, 0.25]


def test_what_does_not_go_together_is_refused():
    with RatioStack() as stack:
        with pytest.raises(InvalidSettingError, match="plane by plane"):
            stack.add(guide(0, config=RatioConfig(smallest=5)))
        with pytest.raises(InvalidImageError, match="at least one slice"):
            stack.solve([0.5, 0.5, 0], write=lambda *_: None)
    with pytest.raises(SaveError, match=r"need 4000000000\.0 GB .* set TMPDIR"):
        RatioStack(10**18)


def test_planes_may_differ_in_height():
    labels = {}
    with RatioStack() as stack:
        stack.add(guide(0))
        stack.add(guide(1, rows=24, data_bar=22))
        found = stack.solve([0.5, 0.25, 0.25], write=labels.__setitem__)
    assert labels[1].shape == (24, 30)
    counts = [np.bincount(each.ravel(), minlength=256)[:3] for each in labels.values()]
    assert np.sum(counts, axis=0).tolist() == [630, 315, 315]
    assert found.achieved.tolist() == [0.5, 0.25, 0.25]

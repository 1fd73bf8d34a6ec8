from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.core.errors import InvalidSettingError
from phasesam.core.ratio_request import RatioRequest
from phasesam.engines.phase_hints import PhaseHints, takes_ratio
from phasesam.engines.segmenter import Segmenter
from phasesam.engines.semantic import segment_classes
from phasesam.models.adapter_card import AdapterCard
from phasesam.models.adapter_config import AdapterConfig

CLASSES = ("matrix", "particle", "pore")
CONFIG = AdapterConfig(rank=2, decoder_rank=2, ratio="located", class_boxes=True)


def card(**settings):
    return AdapterCard(AdapterConfig(rank=2, **settings), "tiny", "0", "semantic", CLASSES)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, make_adapter):
    path = tmp_path_factory.mktemp("a") / "told.safetensors"
    return make_adapter(path, classes=CLASSES, config=CONFIG, window=128)


@pytest.fixture
def seg(micrograph, manager):
    return Segmenter(micrograph.image, "tiny", manager=manager)


def test_ranges_are_told_as_their_middle_and_spread():
    hints = PhaseHints([0.2, (0.1, 0.3), None, None], [0.05, 0, 0, 0])
    assert hints.shares == pytest.approx((0.2, 0.2, None, None))
    assert hints.errors == pytest.approx((0.05, 0.2 / math.sqrt(12), 0, 0))


def test_the_last_unknown_share_is_known():
    hints = PhaseHints([0.2, None, 0.5], [0.03, 0, 0.04])
    assert hints.shares == pytest.approx((0.2, 0.3, 0.5))
    assert hints.errors == pytest.approx((0.03, 0.05, 0.04))
    assert PhaseHints([None, None, 0.5]).shares == (None, None, 0.5)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        # Ranges that say nothing.
        ([(0, 1), (0, 1), None], (None, None, None)),
        ([0.6, (0, 0.4), None], (0.6, None, None)),
        ([0.3, (0.5, 0.9)], (0.3, 0.7)),
        ([(0.2, 0.4), (0, 1)], (0.3, 0.7)),
        ([(0.2, 0.4), (0.6, 0.8)], (0.3, 0.7)),
        # Middles that would add up to less than 1, or more.
        ([(0, 0.5), (0, 0.5), (0, 0.5)], (1 / 3, 1 / 3, 1 / 3)),
        ([0.5, (0.1, 0.5), (0.3, 0.5)], (0.5, 0.15, 0.35)),
        ([(0.4, 0.9), (0.4, 0.9), None, None], (0.5, 0.5, None, None)),
        ([(0.4, 0.8), (0.4, 0.8), None], (7 / 15, 7 / 15, 1 / 15)),
        ([0.2, (0.1, 0.3), None], (0.2, 0.2, 0.6)),
        ([0.2, 0.3, 0.5], (0.2, 0.3, 0.5)),
    ],
)
def test_shares_that_are_told_go_together(wanted, told):
    hints = PhaseHints(wanted)
    assert hints.shares == pytest.approx(told)
    errors = [e for e, w in zip(hints.errors, wanted, strict=True) if isinstance(w, tuple)]
    assert all(error <= 0.5 / math.sqrt(12) * 1.01 for error in errors)


limits = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda ends: tuple(sorted(ends)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0, 1), limits), min_size=2, max_size=5))
def test_no_share_is_told_that_cannot_be(wanted):
    try:
        RatioRequest(wanted)
    except InvalidSettingError:
        return
    told = PhaseHints(wanted)
    known = [share for share in told.shares if share is not None]
    assert sum(known) <= 1 + 1e-6
    assert len(known) < len(wanted) or sum(known) == pytest.approx(1)
    assert all(0 <= error < 1 for error in told.errors)
    for share, asked in zip(told.shares, RatioRequest(wanted).fractions, strict=True):
        low, high = asked if isinstance(asked, tuple) else (asked, asked)
        assert share is None or low is None or low - 1e-6 <= share <= high + 1e-6


def test_a_dock_may_ask_without_loading_torch():
    code = (
        "import sys; from phasesam.engines.phase_hints import PhaseHints; "
        "PhaseHints([0.5, 0.5]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_map_depends_on_them(seg, adapter):
    plain = segment_classes(seg, adapter, orientations=1)
    same = segment_classes(seg, adapter, orientations=1, hints=PhaseHints([None] * 3))
    np.testing.assert_allclose(same.probabilities, plain.probabilities, atol=1e-6)
    for hints in (PhaseHints([0.1, 0.2, 0.7]), PhaseHints(boxes={1: (20, 30, 90, 100)})):
        told = segment_classes(seg, adapter, orientations=1, hints=hints)
        assert np.abs(told.probabilities - plain.probabilities).max() > 1e-3


def test_boxes_and_turned_windows_fit_together():
    hints = PhaseHints(boxes={0: (10, 20, 60, 100), 2: (0, 0, 5, 5)})
    found = hints.of_window((0, 0, 128, 128), (False, False), 1024, 3).boxes[0].numpy()
    assert found[0].tolist() == [160, 80, 799, 479]
    assert np.isnan(found[1]).all()
    turned = hints.of_window((0, 0, 128, 128), (True, True), 1024, 3).boxes[0].numpy()
    assert turned[0].tolist() == [1023 - 799, 1023 - 479, 1023 - 160, 1023 - 80]
    elsewhere = hints.of_window((64, 64, 192, 192), (False, False), 1024, 3).boxes[0].numpy()
    assert np.isnan(elsewhere).all()
    partly = hints.of_window((30, 50, 158, 178), (False, False), 1024, 3).boxes[0].numpy()
    assert partly[0].tolist() == [0, 0, 50 * 8 - 1, 30 * 8 - 1]


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(0, 60)] * 2), st.tuples(*[st.integers(1, 60)] * 2),
       st.tuples(st.booleans(), st.booleans()))  # fmt: skip
def test_a_box_lies_where_its_pixels_are(start, size, turned):
    """Paint the box, cut and turn the window, and look where it is."""
    box = (start[0], start[1], start[0] + size[0], start[1] + size[1])
    window = (32, 40, 96, 104)
    painted = np.zeros((128, 128), bool)
    painted[box[0] : box[2], box[1] : box[3]] = True
    cut = painted[32:96, 40:104][:: -1 if turned[0] else 1, :: -1 if turned[1] else 1]
    found = PhaseHints(boxes={0: box}).of_window(window, turned, 64, 2).boxes[0, 0].tolist()
    if not cut.any():
        assert all(math.isnan(x) for x in found)
        return
    y, x = np.nonzero(cut)
    assert found == [x.min(), y.min(), x.max(), y.max()]


def test_adapters_that_do_not_take_them_say_so():
    with pytest.raises(InvalidSettingError, match=r"no phase fractions.*adapter.ratio=located"):
        PhaseHints([0.5, 0.5, 0]).check(card())
    with pytest.raises(InvalidSettingError, match="no boxes of classes"):
        PhaseHints(boxes={0: (0, 0, 1, 1)}).check(card())
    with pytest.raises(InvalidSettingError, match=r"3 classes \(matrix, particle, pore\), got 2"):
        PhaseHints([0.5, 0.5]).check(card(ratio="global"))
    with pytest.raises(InvalidSettingError, match="classes 0–2"):
        PhaseHints(boxes={3: (0, 0, 1, 1)}).check(card(class_boxes=True))
    PhaseHints([0.5, 0.5, 0]).check(card(ratio="spatial"))
    for kind in ("global", "spatial"):
        with pytest.raises(InvalidSettingError, match=rf"ratio={kind}.*none of matrix, particle"):
            PhaseHints([None, None, 0.25]).check(card(ratio=kind))
        # The only unknown one is what the others leave.
        PhaseHints([None, 0.5, 0.25]).check(card(ratio=kind))
    PhaseHints([None, None, 0.25]).check(card(ratio="located"))
    assert takes_ratio(card(ratio="global"))
    assert not takes_ratio(card())


def test_what_makes_no_sense_is_refused(seg, adapter, make_adapter, tmp_path):
    with pytest.raises(InvalidSettingError, match="box with pixels"):
        PhaseHints(boxes={0: (5, 5, 5, 9)})
    with pytest.raises(InvalidSettingError):
        PhaseHints([0.9, 0.9, 0])
    plain = make_adapter(tmp_path / "plain.safetensors", classes=CLASSES)
    with pytest.raises(InvalidSettingError, match="takes no phase fractions"):
        segment_classes(seg, plain, hints=PhaseHints([0.2, 0.3, 0.5]))

import numpy as np
import pytest

from phasesam.core.errors import InvalidSettingError
from phasesam.core.ratio_shares import PhaseShares
from phasesam.session.ratio_sheet import WHOLE, RatioSheet

NAMES = ("ferrite", "bainite", "martensite")


@pytest.fixture
def sheet():
    sheet = RatioSheet(NAMES)
    sheet.own = {WHOLE: np.array([0.2, 0.3, 0.5]), 1: np.array([0.6, 0.4, 0.0])}
    return sheet


def test_nothing_is_asked_at_first(sheet):
    assert sheet.query() is None
    assert sheet.shares(WHOLE).values == pytest.approx((0.2, 0.3, 0.5))
    assert sheet.shares(1).values == pytest.approx((0.6, 0.4, 0))
    assert sheet.shares(2).values == pytest.approx((1 / 3,) * 3)
    assert not sheet.can_undo


def test_what_is_asked_of_regions(sheet):
    sheet.ask(1, sheet.shares(1).with_share(2, 0.5).with_error(2, 0.1))
    assert sheet.query() is None
    query = sheet.query({1})
    # Beside a share that is not sure the others are what is left.
    assert query.fractions == {1: [None, None, pytest.approx(0.5)]}
    assert query.errors == {1: [0, 0, 0.1]}


def test_a_drag_is_one_step(sheet):
    for value in (0.3, 0.4, 0.5):
        sheet.ask(WHOLE, sheet.shares(WHOLE).with_share(0, value), goes_on=True)
    sheet.ask(WHOLE, sheet.shares(WHOLE).with_share(0, 0.6))
    sheet.ask(WHOLE, sheet.shares(WHOLE).with_lock(0, True))
    assert sheet.undo()
    assert sheet.shares(WHOLE).values[0] == pytest.approx(0.6)
    assert sheet.undo()
    assert sheet.shares(WHOLE).values[0] == pytest.approx(0.2)
    assert not sheet.undo()
    assert sheet.redo()
    assert sheet.shares(WHOLE).values[0] == pytest.approx(0.6)
    sheet.ask(WHOLE, sheet.shares(WHOLE).with_share(0, 0.1))
    assert not sheet.can_redo


def test_a_request_that_is_forgotten_comes_back_with_undo(sheet):
    sheet.ask(1, sheet.shares(1).with_share(2, 0.5))
    sheet.forget(1)
    assert sheet.asked == ()
    sheet.undo()
    assert sheet.asked == (1,)


def test_unknown_phases_show_what_the_model_made_of_the_rest(sheet):
    shares = sheet.shares(WHOLE).with_unknown(1, True).with_unknown(2, True)
    sheet.ask(WHOLE, shares)
    achieved = {WHOLE: np.array([0.2, 0.6, 0.2]), 5: np.array([1.0, 0, 0])}
    sheet.show_achieved(sheet.query(), achieved)
    assert sheet.shares(WHOLE).values == pytest.approx((0.2, 0.6, 0.2))
    assert sheet.asked == (WHOLE,)
    sheet.undo()
    assert not sheet.can_undo


def test_shares_of_other_phases_are_refused(sheet):
    with pytest.raises(InvalidSettingError, match="3 phases, got 2"):
        sheet.ask(WHOLE, PhaseShares.of([0.5, 0.5]))


def test_an_answer_to_an_older_request_is_not_filled_in(sheet):
    sheet.ask(WHOLE, sheet.shares(WHOLE).with_share(0, 0.5).with_unknown(1, True))
    older = sheet.query()
    sheet.ask(WHOLE, sheet.shares(WHOLE).with_share(0, 0.1).with_unknown(2, True))
    before = sheet.shares(WHOLE)
    sheet.show_achieved(older, {WHOLE: np.array([0.5, 0.5, 0])})
    assert sheet.shares(WHOLE) == before


def test_a_lock_alone_asks_for_nothing_and_is_undone(sheet):
    sheet.ask(WHOLE, sheet.shares(WHOLE).with_lock(0, True))
    assert (sheet.asked, sheet.query()) == ((), None)
    assert sheet.shares(WHOLE).locked == (True, False, False)
    # It holds whatever the model sees, such as with another smoothing.
    sheet.own[WHOLE] = np.array([0.3, 0.3, 0.4])
    assert sheet.shares(WHOLE).values == pytest.approx((0.3, 0.3, 0.4))
    sheet.ask(WHOLE, sheet.shares(WHOLE).with_share(1, 0.1))
    assert sheet.shares(WHOLE).values == pytest.approx((0.3, 0.1, 0.6))
    sheet.undo()
    sheet.undo()
    assert sheet.shares(WHOLE).locked == (False, False, False)


def test_the_same_again_is_no_step(sheet):
    sheet.ask(WHOLE, sheet.shares(WHOLE))
    assert not sheet.can_undo
    sheet.ask(WHOLE, sheet.shares(WHOLE).with_share(0, 0.5))
    sheet.ask(WHOLE, sheet.shares(WHOLE))
    assert sheet.undo()
    assert not sheet.can_undo

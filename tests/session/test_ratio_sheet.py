import numpy as np
import pytest

from phasesam.core.errors import InvalidSettingError
from phasesam.core.ratio_shares import PhaseShares
from phasesam.session.ratio_sheet import WHOLE, RatioExperiment, RatioSheet, log_table

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
    assert query.fractions == {1: [pytest.approx(0.3), pytest.approx(0.2), pytest.approx(0.5)]}
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
    sheet.show_achieved({WHOLE: np.array([0.2, 0.6, 0.2]), 5: np.array([1.0, 0, 0])})
    assert sheet.shares(WHOLE).values == pytest.approx((0.2, 0.6, 0.2))
    assert sheet.asked == (WHOLE,)
    sheet.undo()
    assert not sheet.can_undo


def test_shares_of_other_phases_are_refused(sheet):
    with pytest.raises(InvalidSettingError, match="3 phases, got 2"):
        sheet.ask(WHOLE, PhaseShares.of([0.5, 0.5]))


def test_the_log_is_a_table():
    entry = RatioExperiment(
        "SEM", "steel", NAMES, WHOLE, (0.2, None, 0.5), (0, 0, 0.1), (0.3, 0.3, 0.4),
        (0.2, 0.31, 0.49), 0.1, 0.01, 0.02,
    )  # fmt: skip
    table = log_table([entry, entry])
    assert table["request"] == [1, 1, 1, 2, 2, 2]
    assert table["phase"] == list(NAMES) * 2
    assert table["achieved"][:3] == [0.2, 0.31, 0.49]
    assert np.isnan(table["wanted"][1])
    assert table["cost_nats"] == [0.02] * 6
    assert log_table([]) == {}

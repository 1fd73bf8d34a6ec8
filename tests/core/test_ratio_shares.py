import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phasesam.core.errors import InvalidSettingError
from phasesam.core.ratio_request import RatioRequest
from phasesam.core.ratio_shares import PhaseShares

EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("with_share"), st.integers(0, 3), st.floats(-0.5, 1.5)),
        st.tuples(st.just("with_lock"), st.integers(0, 3), st.booleans()),
        st.tuples(st.just("with_unknown"), st.integers(0, 3), st.booleans()),
        st.tuples(st.just("with_error"), st.integers(0, 3), st.floats(0, 0.3)),
        st.tuples(st.just("with_achieved"), st.just([0.4, 0.3, 0.2, 0.1]), st.none()),
    ),
    max_size=200,
)


def shares(*values):
    return PhaseShares.of(values)


@given(EDITS)
def test_shares_add_up_after_any_edits(edits):
    state = shares(0.1, 0.2, 0.3, 0.4)
    for name, k, value in edits:
        before = state
        state = (
            state.with_achieved(k) if name == "with_achieved" else getattr(state, name)(k, value)
        )
        assert sum(state.values) == pytest.approx(1, abs=1e-12)
        assert min(state.values) >= 0
        if name == "with_share":
            kept = [j for j in range(4) if j != k and before.locked[j] and not before.unknown[j]]
            for j in kept:
                assert state.values[j] == pytest.approx(before.values[j], abs=1e-9)
        RatioRequest(*state.request)


def test_others_keep_their_proportions():
    assert shares(0.2, 0.3, 0.5).with_share(0, 0.6).values == pytest.approx((0.6, 0.15, 0.25))


def test_a_locked_share_stays_and_limits_the_others():
    state = shares(0.2, 0.3, 0.5).with_lock(2, True)
    assert state.with_share(0, 0.4).values == pytest.approx((0.4, 0.1, 0.5))
    assert state.with_share(0, 0.9).values == pytest.approx((0.5, 0, 0.5))
    assert state.with_lock(1, True).with_share(0, 0.9).values == pytest.approx((0.2, 0.3, 0.5))


def test_unknown_phases_give_and_take_first():
    state = shares(0.2, 0.3, 0.5).with_unknown(2, True)
    assert state.with_share(0, 0.4).values == pytest.approx((0.4, 0.3, 0.3))
    assert state.with_share(0, 0.9).values == pytest.approx((0.9, 0.1, 0))
    assert state.with_share(0, 0.1).request[0] == [pytest.approx(0.1), pytest.approx(0.3), None]


def test_asking_for_a_share_makes_it_known():
    state = shares(0.2, 0.3, 0.5).with_unknown(0, True).with_share(0, 0.3)
    assert state.unknown == (False, False, False)


def test_phases_without_anything_share_alike():
    assert shares(1, 0, 0).with_share(0, 0.4).values == pytest.approx((0.4, 0.3, 0.3))


def test_what_the_model_made_of_the_rest_is_shown():
    state = shares(0.2, 0.3, 0.5).with_unknown(1, True).with_unknown(2, True)
    assert state.with_achieved([0.21, 0.6, 0.19]).values == pytest.approx(
        (0.2, 0.8 * 0.6 / 0.79, 0.8 * 0.19 / 0.79)
    )


def test_bad_values_are_refused():
    for fractions in ([1.0], [0.5, -0.1], [0.0, 0.0], [np.nan, 1.0], [[0.5, 0.5]]):
        with pytest.raises(InvalidSettingError, match="two phases"):
            PhaseShares.of(fractions)
    with pytest.raises(InvalidSettingError, match="standard error"):
        shares(0.5, 0.5).with_error(0, -0.1)
    with pytest.raises(InvalidSettingError, match="got number 2"):
        shares(0.5, 0.5).with_share(2, 0.5)


def test_beside_an_uncertain_share_the_rest_yields():
    asked = shares(0.2, 0.3, 0.5).with_share(0, 0.8)
    assert asked.request == ([0.8, pytest.approx(0.075), pytest.approx(0.125)], [0, 0, 0])
    unsure = asked.with_error(0, 0.1)
    assert unsure.request == ([0.8, None, None], [0.1, 0, 0])
    assert sum(unsure.values) == pytest.approx(1)
    # What is set or locked beside it is asked for; the rest gives and takes.
    second = unsure.with_share(1, 0.15)
    assert second.values == pytest.approx((0.8, 0.15, 0.05))
    assert second.request[0] == [0.8, pytest.approx(0.15), None]
    locked = unsure.with_lock(2, True)
    assert locked.request[0] == [0.8, None, pytest.approx(0.125)]
    # Without the error all is exact again.
    assert None not in unsure.with_error(0, 0).request[0]


def test_what_had_to_move_for_others_is_no_longer_given():
    # Who tries one slider after the other has not set all of them.
    state = shares(0.2, 0.3, 0.5).with_share(0, 0.5).with_share(1, 0.4).with_share(2, 0.3)
    assert state.given == (False, False, True)
    assert state.with_error(2, 0.1).request[0] == [None, None, pytest.approx(0.3)]


def test_an_uncertain_share_is_asked_for_even_if_it_had_to_move():
    state = shares(0.2, 0.3, 0.5).with_error(0, 0.1).with_share(1, 0.9).with_share(2, 0.4)
    assert state.request[0][0] is not None
    assert state.request[1][0] == 0.1


def test_an_uncertain_share_may_be_tied():
    state = PhaseShares.of([0.2, 0.3, 0.5], given=True)
    assert not state.is_tied
    tied = state.with_error(0, 0.1)
    assert tied.is_tied
    assert not tied.with_error(1, 0.1).is_tied
    assert not tied.with_unknown(2, True).is_tied


def test_the_model_shows_what_it_made_of_the_rest():
    state = shares(0.2, 0.3, 0.5).with_share(0, 0.8).with_error(0, 0.1)
    assert state.with_achieved([0.7, 0.2, 0.1]).values == pytest.approx((0.8, 2 / 15, 1 / 15))


def test_locks_alone_ask_for_nothing():
    state = shares(0.2, 0.3, 0.5).with_lock(0, True)
    assert not state.asks
    assert state.with_share(1, 0.4).asks
    assert state.with_unknown(1, True).asks
    assert state.with_error(1, 0.1).asks
    assert PhaseShares.of([0.5, 0.5], given=True).asks


def test_the_room_that_locks_leave():
    state = shares(0.2, 0.3, 0.5).with_lock(2, True)
    assert state.room(0) == pytest.approx(0.5)
    assert state.room(2) == 1
    assert state.with_lock(1, True).room(0) is None
    assert state.with_lock(1, True).with_unknown(1, True).room(0) == pytest.approx(0.5)
    # Nothing is asked for where nothing can be had.
    assert state.with_lock(1, True).with_share(0, 0.9) == state.with_lock(1, True)

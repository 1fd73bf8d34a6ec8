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
        state = getattr(state, name)(k, value)
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

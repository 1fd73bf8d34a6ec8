import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import ortho_group
from sklearn.linear_model import Ridge

from phasesam.core.errors import InvalidSettingError
from phasesam.core.layer_numbers import (
    earliest_useful,
    fisher_ratios,
    linear_cka,
    probe_iou,
    relative_change,
)


def features(n=120, c=8, seed=0):
    return np.random.default_rng(seed).normal(1, 2, (n, c)).astype(np.float32)


def cka_by_definition(x, y):
    """Of Gram matrices, Kornblith et al. (2019), equation 4."""
    n = len(x)
    centre = np.eye(n) - 1 / n
    k, m = (centre @ (z @ z.T).astype(np.float64) @ centre for z in (x, y))
    return np.sum(k * m) / np.sqrt(np.sum(k * k) * np.sum(m * m))


@given(seed=st.integers(0, 1000), c=st.integers(1, 12), d=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_cka_is_its_definition(seed, c, d):
    x, y = features(40, c, seed), features(40, d, seed + 1)
    assert linear_cka(x, y) == pytest.approx(cka_by_definition(x, y), abs=1e-4)


def test_cka_does_not_see_turns_shifts_and_scales():
    x = features()
    assert linear_cka(x, 3 * x @ ortho_group.rvs(8, random_state=0) + 5) == pytest.approx(
        1, abs=1e-4
    )
    assert linear_cka(x, features(seed=9)) < 0.3
    assert np.isnan(linear_cka(x, np.ones((120, 3))))


def test_the_change_is_relative():
    x = features()
    assert relative_change(x, x) == 0
    assert relative_change(x, 1.5 * x) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_fisher_ratios_are_traces_of_scatter(seed):
    x = features(seed=seed)
    labels = np.random.default_rng(seed).integers(-1, 3, 120)
    found = fisher_ratios(x, labels, 4)
    z = x.astype(np.float64)
    for k in range(3):
        one, rest = z[labels == k], z[(labels >= 0) & (labels != k)]
        mean = z[labels >= 0].mean(axis=0)
        between = sum(len(g) * np.square(g.mean(axis=0) - mean).sum() for g in (one, rest))
        within = sum(np.square(g - g.mean(axis=0)).sum() for g in (one, rest))
        assert found[k] == pytest.approx(between / within, rel=1e-3)
    assert np.isnan(found[3])


def test_separate_classes_have_a_larger_fisher_ratio():
    x = features()
    labels = np.arange(120) % 2
    apart = x + 10 * labels[:, None]
    assert fisher_ratios(apart, labels, 2)[0] > 10 * fisher_ratios(x, labels, 2)[0]


def made_pictures(n=7, seed=0, gap=2.0):
    rng = np.random.default_rng(seed)
    labels = [rng.integers(0, 3, 90) for _ in range(n)]
    centres = gap * rng.normal(size=(3, 6))
    return [(centres[y] + rng.normal(size=(90, 6))).astype(np.float32) for y in labels], labels


def probe_by_closed_form(tokens, labels, ridge=1e-2):
    """Scikit-learn's ridge regression, fold by fold."""
    confusion = np.zeros((3, 3), int)
    centre = np.concatenate(tokens).mean(axis=0)
    for fold in range(5):
        train = [i for i in range(len(tokens)) if i % 5 != fold]
        x = np.concatenate([tokens[i] for i in train]).astype(np.float64) - centre
        y = np.eye(3)[np.concatenate([labels[i] for i in train])]
        penalty = ridge * np.square(x).sum() / x.shape[1]
        model = Ridge(alpha=penalty).fit(x, y)
        for i in range(fold, len(tokens), 5):
            guess = model.predict(tokens[i] - centre).argmax(axis=1)
            np.add.at(confusion, (labels[i], guess), 1)
    hits = np.diag(confusion)
    return hits / (confusion.sum(0) + confusion.sum(1) - hits)


@pytest.mark.parametrize("seed", range(3))
def test_the_probe_is_ridge_regression(seed):
    tokens, labels = made_pictures(seed=seed)
    assert_allclose(probe_iou(tokens, labels), probe_by_closed_form(tokens, labels), atol=0.01)


def test_features_that_are_the_labels_are_probed_perfectly():
    _, labels = made_pictures()
    tokens = [np.eye(3, dtype=np.float32)[y] for y in labels]
    assert_allclose(probe_iou(tokens, labels), 1)


def test_unknown_tokens_are_not_probed():
    tokens, labels = made_pictures()
    hidden = [np.where(np.arange(90) < 20, -1, y) for y in labels]
    spoilt = [np.concatenate([np.full((20, 6), 99, np.float32), t[20:]]) for t in tokens]
    assert_allclose(probe_iou(spoilt, hidden), probe_iou(tokens, hidden))


def test_noise_is_probed_badly():
    _, labels = made_pictures()
    noise = [features(90, 6, seed) for seed in range(7)]
    assert np.nanmean(probe_iou(noise, labels)) < 0.35


def test_a_probe_needs_two_pictures_with_labels():
    tokens, labels = made_pictures()
    with pytest.raises(InvalidSettingError, match="two pictures"):
        probe_iou(tokens[:1], labels[:1])
    with pytest.raises(InvalidSettingError, match="0 classes"):
        probe_iou(tokens[:2], [np.full(90, -1)] * 2)


def test_the_earliest_useful_layer():
    assert earliest_useful([0.3, 0.5, 0.79, 0.8, 0.77]) == 2
    assert earliest_useful([0.8, 0.5, 0.79, 0.8, 0.77]) == 2
    # What the first layers know is lost: there is nowhere to begin.
    assert earliest_useful([0.8, 0.7, 0.5]) is None
    assert earliest_useful([float("nan"), 0.5]) == 1
    assert earliest_useful([float("nan")]) is None
    assert earliest_useful([]) is None

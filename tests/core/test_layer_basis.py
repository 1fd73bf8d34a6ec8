import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import ortho_group
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.preprocessing import StandardScaler

from phasesam.core.errors import InvalidSettingError
from phasesam.core.layer_basis import class_basis, continuous, deviations, principal_basis
from phasesam.core.layer_moments import Moments


def made_tokens(n=800, c=24, seed=0):
    rng = np.random.default_rng(seed)
    mixing = ortho_group.rvs(c, random_state=seed) * np.geomspace(6, 0.2, c)
    return (rng.normal(size=(n, c)) @ mixing.T + rng.normal(size=c)).astype(np.float32)


def made_classes(seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 900)
    centres = rng.normal(0, 1.5, (3, 12))
    # What varies most has nothing to do with the classes.
    noise = rng.normal(size=(900, 3)) @ rng.normal(0, 4, (3, 12)) + rng.normal(size=(900, 12))
    return (centres[labels] + noise).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(4))
def test_principal_components_are_those_of_scikit_learn(seed):
    tokens = made_tokens(seed=seed)
    basis = principal_basis(tokens, deviations(tokens))
    reference = PCA(3, whiten=True, svd_solver="full")
    expected = reference.fit_transform(StandardScaler().fit_transform(tokens.astype(np.float64)))
    assert_allclose(basis.explained, reference.explained_variance_ratio_, rtol=1e-4)
    found = basis.scores(tokens)
    # scikit-learn settles signs otherwise, and divides by one token less.
    signs = np.sign((found * expected).sum(axis=0))
    assert_allclose(found * signs, expected * np.sqrt(800 / 799), atol=2e-3)


def test_the_largest_loading_is_positive():
    tokens = made_tokens()
    for values in (tokens, -tokens):
        basis = principal_basis(values, deviations(values))
        loadings = basis.matrix * deviations(values)[:, None]
        assert (loadings[np.abs(loadings).argmax(axis=0), range(3)] > 0).all()


def test_scores_have_deviation_one_and_are_independent():
    tokens = made_tokens()
    scores = principal_basis(tokens, deviations(tokens)).scores(tokens)
    assert_allclose(np.cov(scores.T, bias=True), np.eye(3), atol=1e-3)
    assert_allclose(scores.mean(axis=0), 0, atol=1e-3)


def test_scores_of_a_map_keep_its_shape():
    tokens = made_tokens(n=600).reshape(20, 30, 24)
    basis = principal_basis(tokens.reshape(-1, 24), np.ones(24), 2)
    assert basis.scores(tokens.astype(np.float16)).shape == (20, 30, 2)


def test_channels_without_variance_do_no_harm():
    tokens = made_tokens()
    tokens[:, 3] = 7
    assert deviations(tokens)[3] == 1
    assert np.isfinite(principal_basis(tokens, deviations(tokens)).scores(tokens)).all()
    same = np.full((50, 6), 3.0, np.float32)
    basis = principal_basis(same, deviations(same))
    assert_allclose(basis.scores(same), 0)
    assert_allclose(basis.explained, 0)


def test_directions_between_classes_are_those_of_scikit_learn():
    tokens, labels = made_classes()
    basis = class_basis(tokens, labels, deviations(tokens), 2)
    expected = LinearDiscriminantAnalysis(solver="svd").fit(tokens, labels).transform(tokens)
    span = np.linalg.lstsq(expected, basis.scores(tokens), rcond=None)[0]
    residual = basis.scores(tokens) - expected @ span
    assert np.square(residual).mean() < 2e-3


def test_directions_between_classes_separate_better_than_principal_ones():
    tokens, labels = made_classes()

    def separation(basis):
        s = basis.scores(tokens)[:, :2]
        means = np.stack([s[labels == k].mean(axis=0) for k in range(3)])
        return means.var(axis=0).sum() / (s - means[labels]).var(axis=0).sum()

    scale = deviations(tokens)
    supervised = class_basis(tokens, labels, scale)
    assert separation(supervised) > 2 * separation(principal_basis(tokens, scale))
    # Three classes have two directions; the third shows the rest.
    assert supervised.explained[2] == 0
    assert_allclose(supervised.explained.sum(), 1)
    assert supervised.scores(tokens).std(axis=0) == pytest.approx(1, abs=1e-3)


def test_unknown_classes_do_not_count():
    tokens, labels = made_classes()
    unknown = np.where(np.arange(900) < 300, -1, labels)
    spoilt = tokens.copy()
    spoilt[:300] += 1e-3
    first = class_basis(tokens, unknown, np.ones(12), 2)
    second = class_basis(spoilt, unknown, np.ones(12), 2)
    assert_allclose(first.matrix, second.matrix, rtol=0.02, atol=1e-3)


def test_one_class_has_no_directions():
    tokens, _ = made_classes()
    with pytest.raises(InvalidSettingError, match="two classes or more, got 1"):
        class_basis(tokens, np.zeros(900, int), np.ones(12))


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_turns_from_layer_to_layer_are_undone(seed):
    rng = np.random.default_rng(seed)
    scores = np.linalg.qr(rng.normal(size=(60, 3)))[0] * np.sqrt(60)
    layers = [scores] + [scores @ ortho_group.rvs(3, random_state=seed + k) for k in range(3)]
    chosen = continuous(layers, [np.ones(3)] * 4)
    for own, directions in zip(layers, chosen, strict=True):
        assert_allclose(own @ directions, scores, atol=1e-8)
        assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)


def test_a_component_that_falls_to_the_fourth_place_stays_in_sight():
    rng = np.random.default_rng(0)
    scores = np.linalg.qr(rng.normal(size=(200, 5)))[0] * np.sqrt(200)
    before, after = scores, scores[:, [0, 1, 3, 2, 4]]
    chosen = continuous([before, after], [np.array([5, 4, 3, 2.9, 1])] * 2)
    assert_allclose(after @ chosen[1], before @ chosen[0], atol=1e-8)


def test_turned_scores_are_the_turn_of_the_scores():
    tokens = made_tokens()
    basis = principal_basis(tokens, deviations(tokens), 5)
    turn = ortho_group.rvs(5, random_state=5)[:, :3]
    turned = basis.turned(turn)
    assert_allclose(turned.scores(tokens), basis.scores(tokens) @ turn, atol=1e-3)
    z = tokens / deviations(tokens)
    shares = [np.square(np.corrcoef(z.T, s)[-1, :-1]).mean() for s in turned.scores(tokens).T]
    assert turned.explained == pytest.approx(shares, rel=1e-3)


@pytest.mark.parametrize("c", [127, 128, 400])
def test_many_channels_are_reduced_as_precisely(c):
    rng = np.random.default_rng(0)
    tokens = (rng.normal(size=(900, 20)) @ rng.normal(size=(20, c))).astype(np.float32)
    tokens += rng.normal(size=tokens.shape).astype(np.float32)
    basis = principal_basis(tokens, deviations(tokens), 10)
    z = tokens.astype(np.float64) / deviations(tokens)
    values, vectors = np.linalg.eigh(np.cov(z.T, bias=True))
    assert_allclose(basis.explained, values[:-11:-1] / values.sum(), rtol=1e-4)
    directions = basis.matrix * deviations(tokens)[:, None]
    directions /= np.linalg.norm(directions, axis=0)
    assert_allclose(np.abs((directions * vectors[:, :-11:-1]).sum(axis=0)), 1, atol=1e-3)
    flat = principal_basis(np.full((50, c), 3.0), np.ones(c), 10)
    assert_allclose(flat.explained, 0)


def test_moments_of_two_models_are_those_of_all_tokens():
    first, second = made_tokens(seed=1), 3 * made_tokens(seed=2) + 1
    scale = deviations(first)
    mean, covariance = Moments.of([first, second]).covariance(scale)
    together = np.concatenate([first, second]).astype(np.float64)
    assert_allclose(mean, together.mean(axis=0), atol=1e-5)
    assert_allclose(covariance, np.cov((together / scale).T, bias=True), rtol=1e-3, atol=1e-3)

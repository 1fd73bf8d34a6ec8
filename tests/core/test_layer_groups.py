import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from phasesam.core.layer_groups import followed_groups, group_centres, nearest_group


def made_groups(seed=0, n=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n, 600)
    centres = 20 * np.eye(n, 4)
    return (centres[labels] + rng.normal(size=(600, 4))).astype(np.float32), labels


@pytest.mark.parametrize("n", [2, 3, 4])
def test_groups_that_are_there_are_found(n):
    scores, labels = made_groups(n=n)
    found = nearest_group(scores, group_centres(scores, n))
    table = np.zeros((n, n), int)
    np.add.at(table, (labels, found), 1)
    assert (np.count_nonzero(table, axis=1) == 1).all()
    assert_array_equal(found, nearest_group(scores, group_centres(scores, n)))
    assert nearest_group(scores.reshape(20, 30, 4), group_centres(scores, n)).shape == (20, 30)


def test_no_more_groups_than_different_tokens():
    scores = np.repeat(np.eye(2, 3), 10, axis=0)
    assert len(group_centres(scores, 5)) == 2
    assert len(group_centres(np.zeros((10, 3)), 5)) == 1


def test_groups_are_numbered_like_classes():
    groups = np.repeat([0, 1, 2, 3], [50, 30, 20, 10])
    classes = np.repeat([2, -1, 0, 2], [50, 30, 20, 10])
    numbers = followed_groups([groups, groups], 4, classes)
    for number in numbers:
        assert number[0] == 2
        assert number[2] == 0
        # Those left over have what is free, the larger first.
        assert (number[1], number[3]) == (1, 3)
    many = followed_groups([groups], 4, np.repeat([6, 5, 4, 3], [50, 30, 20, 10]))
    assert many[0].tolist() == [6, 5, 4, 3]


@given(seed=st.integers(0, 200))
@settings(max_examples=30, deadline=None)
def test_groups_keep_their_number_from_layer_to_layer(seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 300)
    layers = []
    for _ in range(4):
        noisy = np.where(rng.random(300) < 0.1, rng.integers(0, 4, 300), truth)
        layers.append(rng.permutation(4)[noisy])
    numbers = followed_groups(layers, 4)
    seen = [number[own] for number, own in zip(numbers, layers, strict=True)]
    for before, after in itertools.pairwise(seen):
        assert (before == after).mean() > 0.7
    assert_array_equal(np.argsort(-np.bincount(seen[-1], minlength=4), kind="stable"), range(4))
    for number in numbers:
        assert_array_equal(np.sort(number), range(4))

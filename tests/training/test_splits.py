"""Specimens are never divided, shares come close, chance comes from the seed alone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.core.errors import InvalidSettingError
from phasesam.training.splits import assign_splits, divide_lone_specimen

SPECIMENS = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=60)


@given(specimens=SPECIMENS, seed=st.integers(0, 9))
@settings(deadline=None)
def test_specimens_stay_together_and_no_split_is_forgotten(specimens, seed):
    splits = assign_splits(specimens, seed=seed)
    assert len(splits) == len(specimens)
    split_of: dict[str, str] = {}
    for specimen, split in zip(specimens, splits, strict=True):
        assert split_of.setdefault(specimen, split) == split
    expected = ("train", "val", "test")[: len(set(specimens))]
    assert set(splits) == set(expected)


@given(
    n=st.integers(10, 200),
    shares=st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)),
    seed=st.integers(0, 9),
)
@settings(deadline=None)
def test_shares_of_single_images_come_out_to_within_one(n, shares, seed):
    counts = Counter(assign_splits([str(i) for i in range(n)], shares, seed))
    for name, share in zip(("train", "val", "test"), shares, strict=True):
        assert abs(counts[name] - n * share / sum(shares)) <= 1.5
        assert (counts[name] > 0) == (share > 0)


@given(specimens=SPECIMENS, seed=st.integers(0, 9), data=st.data())
@settings(deadline=None)
def test_the_order_of_images_does_not_matter(specimens, seed, data):
    order = data.draw(st.permutations(range(len(specimens))))
    splits = assign_splits(specimens, seed=seed)
    assert assign_splits([specimens[i] for i in order], seed=seed) == [splits[i] for i in order]


def test_seeds_differ():
    names = [str(i) for i in range(20)]
    assert assign_splits(names, seed=1) == assign_splits(names, seed=1)
    assert len({tuple(assign_splits(names, seed=s)) for s in range(5)}) == 5


def test_seven_two_one():
    assert Counter(assign_splits([str(i) for i in range(10)])) == {"train": 7, "val": 2, "test": 1}
    assert assign_splits(["a"]) == ["train"]
    assert assign_splits([]) == []


def test_training_comes_first_even_with_a_small_share():
    assert assign_splits(["a"], (0.1, 0.5, 0.4)) == ["train"]
    assert set(assign_splits(["a", "b"], (0.1, 0.1, 0.8))) == {"train", "val"}
    assert set(assign_splits(["a", "b"], (0.5, 0.0, 0.5))) == {"train", "test"}


def test_the_only_specimen_is_divided_in_a_row():
    assert divide_lone_specimen(10, (0.7, 0.2, 0.1)) == ["train"] * 8 + ["val"] * 2
    assert divide_lone_specimen(2, (0.7, 0.2, 0.1)) == ["train", "val"]
    assert divide_lone_specimen(2, (0.1, 0.8, 0.1)) == ["train", "val"]
    assert divide_lone_specimen(1, (0.7, 0.2, 0.1)) == ["train"]
    assert divide_lone_specimen(5, (1.0, 0.0, 0.0)) == ["train"] * 5


@pytest.mark.parametrize("shares", [(0, 1, 1), (1, -1, 1), (float("nan"), 1, 1), (1, 1)])
def test_impossible_shares(shares):
    with pytest.raises(InvalidSettingError, match="shares"):
        assign_splits(["a", "b"], shares)

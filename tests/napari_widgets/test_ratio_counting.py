"""Shares of phases in Labels layers."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels

from phasesam.core.errors import InvalidMaskError
from phasesam.napari_widgets.class_colours import class_features
from phasesam.napari_widgets.ratio_counting import CountedArea, counted_shares

NAMES = ("ferrite", "bainite", "martensite")
SHAPE = (4, 6)


def area(shape=SHAPE, plane=(), rows=None):
    inside = np.ones(shape[-2:], bool)
    if rows is not None:
        inside[rows:] = False
    return CountedArea(shape, plane, inside, is_region=rows is not None)


def layer(values, names=None, shape=SHAPE):
    features = None if names is None else class_features(names)
    data = np.resize(np.asarray(values), shape)
    return Labels(data, name="truth", features=features)


def test_values_from_one_are_the_phases():
    found = counted_shares(layer([0, 1, 1, 2, 2, 3]), NAMES, area())
    np.testing.assert_allclose(found, [0.4, 0.4, 0.2])


def test_names_say_which_value_is_what():
    found = counted_shares(layer([1, 2], {1: "Martensite", 2: "Ferrite"}), NAMES, area())
    np.testing.assert_allclose(found, [0.5, 0, 0.5])


def test_the_background_may_be_a_phase():
    found = counted_shares(layer([0, 0, 1], {0: "ferrite", 1: "bainite"}), NAMES, area())
    np.testing.assert_allclose(found, [2 / 3, 1 / 3, 0])


def test_objects_are_no_phases():
    with pytest.raises(
        InvalidMaskError, match="truth holds 4, 5, 6 …: expected the values 1, 2, 3 for"
    ):
        counted_shares(layer(range(1, 25)), NAMES, area())
    named = layer([1, 2, 3], {1: "ferrite", 3: "pore"})
    with pytest.raises(InvalidMaskError, match="holds 2, 3: expected the values 1 for ferrite"):
        counted_shares(named, NAMES, area())


def test_other_names_are_no_phases():
    with pytest.raises(InvalidMaskError, match=r"other names \(grain\): expected ferrite"):
        counted_shares(layer([1], {1: "grain"}), NAMES, area())


def test_only_the_plane_and_the_region_count():
    data = np.zeros((3, *SHAPE), int)
    data[1, :2], data[1, 2:], data[0], data[2] = 1, 2, 3, 99
    stack = Labels(data, name="truth")
    plane = area(data.shape, (1,))
    np.testing.assert_allclose(counted_shares(stack, NAMES, plane), [0.5, 0.5, 0])
    part = area(data.shape, (1,), rows=2)
    np.testing.assert_allclose(counted_shares(stack, NAMES, part), [1, 0, 0])
    # A plane on its own lies on all planes of a stack.
    np.testing.assert_allclose(counted_shares(layer([1, 3]), NAMES, part), [0.5, 0, 0.5])
    with pytest.raises(InvalidMaskError, match="none of the phases in this region"):
        counted_shares(layer([0]), NAMES, part)


def test_a_layer_of_another_image_counts_as_a_whole():
    other = layer([1, 2], shape=(8, 8))
    np.testing.assert_allclose(counted_shares(other, NAMES, area()), [0.5, 0.5, 0])
    with pytest.raises(InvalidMaskError, match="expected a plane, or the shape"):
        counted_shares(other, NAMES, area(rows=2))
    with pytest.raises(InvalidMaskError, match="expected a plane, or the shape"):
        counted_shares(layer([1], shape=(2, *SHAPE)), NAMES, area())

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phasesam.core.errors import InvalidImageError
from phasesam.core.types import PixelSize
from phasesam.simulation.micrograph import Micrograph, number_objects


def micrograph(shape=(2, 3), labels_shape=None):
    return Micrograph(
        np.zeros(shape, np.uint8),
        np.zeros(labels_shape or shape, np.int32),
        np.array([[0, 1, 1], [2, 1, 0]], np.uint8),
        PixelSize(),
        ("a", "b", "c", "d"),
    )


def test_class_fractions_count_every_class():
    assert micrograph().class_fractions() == {"a": 1 / 3, "b": 1 / 2, "c": 1 / 6, "d": 0.0}


def test_shapes_must_agree():
    with pytest.raises(InvalidImageError, match=r"\(2, 3\), \(3, 2\)"):
        micrograph(labels_shape=(3, 2))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_numbering_keeps_background_and_order(keys):
    keys = np.array(keys) * 7
    numbered = number_objects(keys)
    assert numbered.dtype == np.int32
    assert ((numbered == 0) == (keys == 0)).all()
    present = np.unique(keys[keys > 0])
    assert [int(np.unique(numbered[keys == key]).item()) for key in present] == list(
        range(1, len(present) + 1)
    )

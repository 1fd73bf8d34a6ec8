from __future__ import annotations

import numpy as np
import pytest

from phasesam.core.mask_set import MaskSet
from phasesam.session import SegmentationSession

HEIGHT, WIDTH = 24, 32


def rectangle(y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def check_consistent(session: SegmentationSession) -> None:
    """Every label has a record, every record its label, with the right box and area."""
    labels = session.labels
    found = {}
    for plane in np.ndindex(labels.shape[:-2]):
        masks = MaskSet.from_labels(labels[plane])
        for label, crop in zip(
            np.unique(labels[plane][labels[plane] > 0]), masks.crops, strict=True
        ):
            assert int(label) not in found, f"label {label} lies in two planes"
            found[int(label)] = (plane, crop.box, crop.area)
    assert {r.id: (r.plane, r.box, r.area) for r in session.objects} == found
    assert all(0 < record.id < session.next_id for record in session.objects)


@pytest.fixture
def session() -> SegmentationSession:
    """Session of one image with three objects: 1 and 2 touch, 3 lies apart."""
    session = SegmentationSession((HEIGHT, WIDTH))
    session.commit(rectangle(2, 2, 10, 10), score=0.9, class_name="grain")
    session.commit(rectangle(2, 10, 10, 16), score=0.8)
    session.commit(rectangle(14, 4, 20, 20), score=0.7, source="automatic")
    return session

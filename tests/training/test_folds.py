from __future__ import annotations

from dataclasses import replace

import pytest
from tests.training.conftest import disc_data

from phasesam.core.errors import InvalidSettingError
from phasesam.training.dataset import TrainingData
from phasesam.training.folds import specimen_folds


def of_specimens(*sizes: int) -> TrainingData:
    data = disc_data("semantic", 1)
    image = data.images[0]
    images = [
        replace(image, name=f"{s}-{i}", specimen=f"s{s}")
        for s, size in enumerate(sizes)
        for i in range(size)
    ]
    return replace(data, images=tuple(images))


@pytest.mark.parametrize("sizes", [(1,) * 7, (4, 4, 2, 1, 1, 1, 1), (3, 3, 3)])
@pytest.mark.parametrize("seed", [0, 5])
def test_each_image_is_tested_once_and_no_specimen_is_in_two_splits(sizes, seed):
    data = of_specimens(*sizes)
    folds = specimen_folds(data, 3, seed)
    tested = [image.name for fold in folds for image in fold.of("test")]
    assert sorted(tested) == sorted(image.name for image in data.images)
    for fold in folds:
        assert len(fold.images) == len(data.images)
        assert fold.of("train")
        assert fold.of("val")
        splits: dict[str, set[str]] = {}
        for image in fold.images:
            splits.setdefault(image.specimen, set()).add(image.split)
        assert all(len(of) == 1 for of in splits.values())
    counts = [len(fold.of("test")) for fold in folds]
    assert max(counts) - min(counts) <= max(sizes)


def test_a_handful_takes_specimens_in_turn():
    data = of_specimens(5, 1, 1, 4, 2, 2)
    for whole, few in zip(specimen_folds(data, 3), specimen_folds(data, 3, most=3), strict=True):
        specimens = {i.specimen for i in whole.of("train")}
        assert len(few.of("train")) == min(3, len(whole.of("train")))
        assert len({i.specimen for i in few.of("train")}) == min(3, len(specimens))
        assert {i.name for i in few.of("train")} <= {i.name for i in whole.of("train")}
        for split in ("val", "test"):
            assert [i.name for i in few.of(split)] == [i.name for i in whole.of(split)]
    turned = replace(data, images=data.images[::-1])
    for one, two in zip(
        specimen_folds(data, 3, most=2), specimen_folds(turned, 3, most=2), strict=True
    ):
        assert {i.name for i in one.images} == {i.name for i in two.images}
    with pytest.raises(InvalidSettingError, match="at least 1 image"):
        specimen_folds(data, 3, most=0)


def test_folds_are_the_same_in_whatever_order_the_images_come():
    data = of_specimens(2, 1, 1, 3)
    turned = replace(data, images=data.images[::-1])
    for one, two in zip(specimen_folds(data, 2), specimen_folds(turned, 2), strict=True):
        assert {i.name for i in one.of("test")} == {i.name for i in two.of("test")}


@pytest.mark.parametrize(("sizes", "count"), [((2, 2), 2), ((1, 1, 1), 4), ((1, 1, 1), 1)])
def test_too_few_specimens_are_refused(sizes, count):
    with pytest.raises(InvalidSettingError, match=f"{count} folds of {len(sizes)} specimens"):
        specimen_folds(of_specimens(*sizes), count)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 1, 1)])
def test_folds_that_leave_none_to_validate_on_are_refused(sizes):
    with pytest.raises(InvalidSettingError, match="without one to validate on"):
        specimen_folds(of_specimens(*sizes), 2)

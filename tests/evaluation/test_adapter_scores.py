"""Methods are compared on the same images, and never on those that were learnt from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from phasesam.core.errors import CancelledError, InvalidSettingError
from phasesam.core.mask_set import MaskSet
from phasesam.evaluation.adapter_scores import (
    Watch,
    adapter_mapper,
    as_trained,
    baseline_data,
    choose_images,
    compare_objects,
    compare_phase_maps,
)
from phasesam.models.adapter_card import AdapterCard
from phasesam.models.adapter_config import AdapterConfig
from phasesam.training.data_sources import ArrayLabels
from phasesam.training.dataset import from_arrays

TRUTH = np.zeros((20, 30), np.int32)
TRUTH[4:12, 4:12] = 1


def data(names="abc", task="semantic"):
    return from_arrays([(n, TRUTH * 9, TRUTH, n) for n in names], task, fractions=(1, 0, 0))


def card(**splits):
    details = {"splits": {name: list(images) for name, images in splits.items()}}
    return AdapterCard(AdapterConfig(), "tiny", "", "semantic", ("a", "b"), details)


def test_phase_maps_of_several_methods():
    done = []
    answers = compare_phase_maps(
        data().images,
        {"nothing": lambda i: TRUTH * 0, "all": lambda i: i.label_array()},
        ["matrix", "pore"],
        Watch(lambda *p: done.append(p)),
    )
    assert answers.summaries["nothing"].pooled_iou[1] == 0
    assert answers.summaries["all"].pooled_iou[1] == 1
    assert answers.summaries["all"].names == ("a", "b", "c")
    np.testing.assert_array_equal(answers.last[2], TRUTH)
    assert done == [(i, 6) for i in range(7)]


def test_objects_of_several_methods():
    found = MaskSet.from_masks([TRUTH == 1], scores=[0.9])
    answers = compare_objects(
        data(task="instance").images,
        {"base": lambda i: MaskSet(shape=TRUTH.shape), "adapted": lambda i: found},
    )
    assert answers.summaries["base"].mean(lambda s: s.msa).mean == 0
    assert answers.summaries["adapted"].average_precision() == 1


def test_stopping_and_nothing_to_do():
    with pytest.raises(CancelledError):
        compare_objects(
            data(task="instance").images,
            {"x": lambda i: MaskSet(shape=TRUTH.shape)},
            Watch(should_stop=lambda: True),
        )
    with pytest.raises(InvalidSettingError, match="at least one image"):
        compare_phase_maps([], {}, ["a"])


def test_images_kept_for_testing_are_chosen():
    images, warnings = choose_images(data(), card(train="a", val="b", test="c"))
    assert [i.name for i in images] == ["c"]
    assert warnings == ()
    # Without a test split of that name, any that was not learnt from.
    images, _ = choose_images(data(), card(train="a", val="b", different_test="c"))
    assert [i.name for i in images] == ["c"]


def test_other_data_are_taken_as_a_whole():
    images, warnings = choose_images(data(), card(train="xyz"))
    assert (len(images), warnings) == (3, ())


def test_images_that_were_learnt_from_are_told():
    images, (warning,) = choose_images(data(), card(train="a", val="b", test="c"), "train")
    assert len(images) == 3
    assert warning.startswith("2 of 3 images were used in training (a, b)")


def test_new_images_of_known_specimens_are_told():
    rod = {"train": ["rod7", "a"], "test": ["rod9"]}
    known = replace(card(train="x"), details={**card(train="x").details, "specimens": rod})
    images = [(n, TRUTH, TRUTH, s) for n, s in (("i", "rod7"), ("j", "rod9"), ("a", None))]
    made = from_arrays(images, "semantic", fractions=(1, 0, 0))
    chosen, (warning,) = choose_images(made, known)
    assert len(chosen) == 3
    assert warning.startswith("1 of 3 images are of specimens that were learnt from (rod7)")


def shades(names, first=0, split="train"):
    """Images that can be told apart."""
    rng = np.random.default_rng(first)
    images = [(n, rng.integers(0, 255, TRUTH.shape, np.uint8), TRUTH, None) for n in names]
    made = from_arrays(images, "semantic", fractions=(1, 0, 0))
    return replace(made, images=tuple(replace(image, split=split) for image in made.images))


def remembering(images, **splits):
    plain = card(**splits)
    keys = {image.name: image.picture_key for image in images.images}
    return replace(plain, details={**plain.details, "picture_keys": keys})


def test_images_are_known_by_what_they_show():
    trained = shades("abc")
    known = remembering(trained, train="a", val="b", test="c")
    assert [i.name for i in choose_images(trained, known)[0]] == ["c"]
    renamed = shades("xyz")
    assert [i.name for i in choose_images(renamed, known)[0]] == ["z"]
    others, warnings = choose_images(shades("abc", first=7), known)
    assert [i.name for i in others] == ["a", "b", "c"]
    assert warnings == ()


def test_adapters_that_remember_a_data_bar_know_the_picture_too():
    image = np.random.default_rng(0).integers(60, 200, (200, 256)).astype(np.uint8)
    image[176:] = 0
    image[184:192, 20:200:6] = 255
    truth = np.zeros(image.shape, np.int32)
    truth[20:60, 20:60] = 1
    made = from_arrays([("sem", image, truth, None)], "semantic", fractions=(1, 0, 0))
    (shown,) = made.images
    assert shown.data_bar == 176
    assert shown.picture_key != shown.whole_picture_key
    for key in (shown.picture_key, shown.whole_picture_key):
        known = replace(
            card(train="x"), details={"splits": {"train": ["x"]}, "picture_keys": {"x": key}}
        )
        _, (warning,) = choose_images(made, known, "train")
        assert "1 of 1 images were used in training" in warning


def test_images_are_divided_as_they_were_in_training():
    trained = shades("abcd", split="val")
    known = remembering(shades("abc"), train="a", val="b", test="c")
    divided = as_trained(trained, known)
    assert [i.split for i in divided.images] == ["train", "val", "test", "test"]
    other = shades("ab", first=7)
    assert as_trained(other, known) is other


def test_nothing_left_to_test_on():
    with pytest.raises(InvalidSettingError, match="no image to test on"):
        choose_images(data("ab"), card(train="a", val="b"))
    with pytest.raises(InvalidSettingError, match="splits train"):
        choose_images(data(), card(), "test")


def test_classes_in_another_order_are_put_right(make_adapter, tmp_path):
    path = make_adapter(tmp_path / "x.safetensors", classes=("pore", "matrix"))
    image = data("a").images[0]
    there, back = (
        adapter_mapper("tiny", str(path), classes, ("pore", "matrix"))(image)
        for classes in (("pore", "matrix"), ("matrix", "pore"))
    )
    assert set(np.unique(there)) <= {0, 1}
    np.testing.assert_array_equal(there, 1 - back)
    with pytest.raises(InvalidSettingError, match="pore, matrix"):
        adapter_mapper("tiny", str(path), ("matrix", "oxide"), ("pore", "matrix"))


def test_new_images_beside_known_ones_are_tested_too():
    known = remembering(shades("abc"), train="a", val="b", test="c")
    grown = replace(shades("abc"), images=shades("abc").images + shades("de", first=9).images)
    assert [i.name for i in choose_images(grown, known)[0]] == ["c", "d", "e"]
    without = remembering(shades("abc"), train="ac", val="b")
    assert [i.name for i in choose_images(grown, without)[0]] == ["d", "e"]


def test_a_picture_that_was_learnt_from_is_no_test_under_another_name():
    twice = shades("ab")
    first, second = twice.images
    same = replace(twice, images=(first, replace(second, image=first.image)))
    known = remembering(same, train="a", test="b")
    with pytest.raises(InvalidSettingError, match="no image to test on"):
        choose_images(same, known)


def test_a_baseline_learns_what_the_adapter_has_learnt():
    trained = shades("abcd")
    known = remembering(trained, train="ab", val="c", test="d")
    learnt = baseline_data(trained, known)
    assert [i.split for i in learnt.images] == ["train", "train", "val", "test"]


def test_a_baseline_learns_nothing_that_the_adapter_has_not():
    known = remembering(shades("xyz"), train="xy", test="z")
    with pytest.raises(InvalidSettingError, match="the data hold none of them"):
        baseline_data(shades("abcde", first=7), known)


@pytest.mark.parametrize("task", ["semantic", "instance", "promptable"])
def test_images_without_labels_are_left_out(task):
    three = data(task=task)
    blank = replace(three.images[1], labels=ArrayLabels("b", np.full(TRUTH.shape, -1)))
    partly = replace(three, images=(three.images[0], blank, three.images[2]))
    images, (warning,) = choose_images(partly, card(train="xyz"))
    assert [i.name for i in images] == ["a", "c"]
    assert warning == "no pixel is labelled in b: 1 left out"


def test_what_was_learnt_before_going_on_is_no_test():
    """Neither of the adapter that this one went on from, nor of those before."""
    first, then = shades("abc"), shades("xyz", first=7)
    known = remembering(then, train="x", val="y", test="z")
    before = {"pictures": [image.picture_key for image in first.images[:2]], "specimens": ["rod"]}
    known = replace(known, details={**known.details, "learnt_before": before})
    assert [i.name for i in choose_images(then, known)[0]] == ["z"]
    assert [i.name for i in choose_images(first, known)[0]] == ["c"]
    both = replace(first, images=(*first.images, *then.images))
    assert [i.name for i in baseline_data(both, known).of("train")] == ["a", "b", "x"]
    # What both have learnt from is divided as this one did.
    again = {"pictures": [image.picture_key for image in then.images], "specimens": []}
    heir = replace(known, details={**known.details, "learnt_before": again})
    divided = baseline_data(then, heir)
    assert [i.name for i in divided.of("val")] == ["y"]
    assert [i.name for i in divided.of("train")] == ["x", "z"]
    new = shades("mn", first=9)
    new = replace(new, images=tuple(replace(i, specimen="rod") for i in new.images))
    _, (warning,) = choose_images(new, known)
    assert "specimens that were learnt from (rod)" in warning

"""The order of views depends on the seed and nothing else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from tests.training.conftest import disc_data

from phasesam.training import view_plan
from phasesam.training.augmentation import AugmentationConfig
from phasesam.training.view_plan import ViewPlan
from phasesam.training.views import ViewConfig

IMAGES = disc_data("promptable").of("train")


@pytest.mark.parametrize("pool", [None, 2, 7])
def test_views_come_up_equally_often(pool: int | None) -> None:
    plan = ViewPlan(IMAGES, ViewConfig(), pool, seed=0)
    samples = [s for epoch in range(7) for s in plan.samples(epoch, 9)]
    assert [s.moment for s in samples] == list(range(63))
    by_view = Counter(s.view for s in samples)
    assert len(by_view) == {None: 63, 2: 3, 7: 7}[pool]
    assert max(by_view.values()) - min(by_view.values()) <= 1
    assert {s.image for s in samples} == {0, 1, 2}
    assert all(s.image == s.view % 3 for s in samples)


def test_an_epoch_is_the_same_at_every_call_and_with_another_seed_not() -> None:
    first, second = (ViewPlan(IMAGES, ViewConfig(), 8, seed=3) for _ in range(2))
    second.samples(0, 8)
    assert first.samples(2, 8) == second.samples(2, 8)
    assert first.samples(2, 8) != ViewPlan(IMAGES, ViewConfig(), 8, seed=4).samples(2, 8)


def test_equal_views_are_equal_pictures_but_prompts_differ() -> None:
    plan = ViewPlan(IMAGES, ViewConfig(window=64), 3, seed=0)
    samples = plan.samples(0, 3) + plan.samples(1, 3)
    again = next(s for s in samples[3:] if s.view == samples[0].view)
    assert np.array_equal(plan.view(samples[0]).rgb, plan.view(again).rgb)
    assert plan.chance(samples[0]).random() != plan.chance(again).random()


def test_intensities_are_spread_when_asked() -> None:
    plain, spread = (
        ViewPlan(IMAGES, ViewConfig(augmentation=AugmentationConfig.none()), 3, 0, stretch=on)
        for on in (False, True)
    )
    sample = plain.samples(0, 1)[0]
    before, after = plain.view(sample), spread.view(sample)
    assert np.ptp(before.rgb) < 200
    assert np.ptp(after.rgb) > 240
    assert np.array_equal(before.labels, after.labels)


def test_pieces_have_the_magnification_of_the_views() -> None:
    still = AugmentationConfig.none()
    plan = ViewPlan(IMAGES, ViewConfig(window=64, augmentation=still), 3, seed=0)
    piece, again = plan.piece(4, 256), plan.piece(4, 256)
    # A view shows 64 pixels on 1024, so these are 16.
    assert piece.rgb.shape == (256, 256, 3)
    assert np.array_equal(piece.rgb, again.rgb)
    assert not np.array_equal(piece.rgb, plan.piece(7, 256).rgb)
    cells = piece.labels.reshape(16, 16, 16, 16)
    assert (cells == cells[:, :1, :, :1]).all()


def test_windows_of_pieces_are_no_larger_than_the_image() -> None:
    """A view of a small image is larger, too, than its window would make it."""
    still = AugmentationConfig.none()
    plan = ViewPlan(IMAGES, ViewConfig(window=384, augmentation=still), 3, seed=0)
    cells = plan.piece(0, 256).labels.reshape(32, 8, 32, 8)
    assert (cells == cells[:, :1, :, :1]).all()
    assert plan.view(plan.samples(0, 1)[0]).labels.shape == (1024, 1024)


def test_of_many_images_each_shows_some_pieces_in_a_row() -> None:
    few = ViewPlan(IMAGES, ViewConfig(), 3, seed=0)
    assert [few.image_of_piece(n) for n in range(5)] == [0, 1, 2, 0, 1]
    many = ViewPlan([IMAGES[0]] * 70, ViewConfig(), None, seed=0)
    assert [many.image_of_piece(n) for n in (0, 7, 8, 559, 560)] == [0, 0, 1, 69, 0]


def test_large_images_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    images = disc_data("semantic").images
    height, width = images[0].rgb().shape[:2]
    read = []
    real = ViewPlan._read
    monkeypatch.setattr(ViewPlan, "_read", lambda self, i: (read.append(i), real(self, i))[1])
    roomy = ViewPlan(images, ViewConfig(), None, 0)
    monkeypatch.setattr(view_plan, "free_memory", lambda: 5 * 7 * height * width * 2)
    tight = ViewPlan(images, ViewConfig(), None, 0)
    for sample in tight.samples(0, 3 * len(images)):
        assert (tight.view(sample).rgb == roomy.view(sample).rgb).all()
    assert len(tight._kept) == 2 < len(images)
    # All images once by each, the others of the tight one at every turn.
    assert len(read) == 2 * len(images) + 2 * (len(images) - 2)


def test_images_are_read_again_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ViewPlan(disc_data("semantic").images, ViewConfig(), None, 0)
    monkeypatch.setattr(view_plan, "has_room", lambda nbytes: False)
    plan.view(plan.samples(0, 1)[0])
    assert not plan._kept

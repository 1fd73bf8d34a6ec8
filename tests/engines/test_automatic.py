from __future__ import annotations

from copy import copy

import numpy as np
import pytest
import torch
from scipy import ndimage
from segment_anything import SamAutomaticMaskGenerator

from phasesam.core.errors import CancelledError, DeviceMemoryError, InvalidSettingError
from phasesam.core.mask_set import MaskCrop, MaskSet
from phasesam.engines import automatic
from phasesam.engines.automatic_config import AutomaticConfig
from phasesam.engines.presets import PRESETS
from phasesam.engines.rendering import DeferredMask
from phasesam.engines.segmenter import Segmenter
from phasesam.models import memory, registry
from phasesam.models.mask_decoder import MultiPromptDecoder
from phasesam.models.model_spec import ModelSpec
from phasesam.models.sam import SamModel

LOOSE = {"pred_iou": 0.8, "stability": 0.75}
HQ = ModelSpec(name="tiny_hq", title="Tiny HQ", architecture="tiny", decoder="hq")


@pytest.fixture(scope="module", autouse=True)
def _exact_products():
    """Products in fp32, to compare with others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(automatic, "product_dtype", lambda device: torch.float32)
        yield


@pytest.fixture(scope="module")
def tiny(micrograph, manager):
    return Segmenter(micrograph.image, "tiny", manager=manager)


@pytest.fixture(scope="module")
def trained(micrograph, manager):
    return Segmenter(micrograph.image, "mobile_sam", manager=manager)


@pytest.fixture(scope="module")
def found(trained):
    """Candidates of 5 x 5 points, everything kept."""
    return trained.automatic(points_per_side=5, speckle_area=0)


@pytest.fixture(scope="module")
def coarse(tiny):
    return tiny.automatic(points_per_side=3, speckle_area=0)


def leases(manager):
    return sum(model.leases for model in manager.resident())


def overlaps(one: MaskSet, other: MaskSet) -> np.ndarray:
    """Largest IoU of each mask of one set with any of the other."""
    a = one.masks.reshape(len(one), -1).astype(np.float32)
    b = other.masks.reshape(len(other), -1).astype(np.float32)
    shared = a @ b.T
    union = a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - shared
    return (shared / np.maximum(union, 1)).max(axis=1, initial=0)


def same_candidates(one, other, tolerance=1e-4):
    assert len(one) == len(other)
    np.testing.assert_allclose(one.scores, other.scores, atol=tolerance)
    np.testing.assert_array_equal(one.points, other.points)
    np.testing.assert_allclose(one.areas, other.areas, atol=2)
    assert (one.n_prompts, one.n_skipped) == (other.n_prompts, other.n_skipped)


def published_masks(sam, rgb, **settings) -> MaskSet:
    generator = SamAutomaticMaskGenerator(sam, points_per_batch=8, **settings)
    records = generator.generate(rgb)
    return MaskSet.from_masks(
        [record["segmentation"] for record in records],
        [record["predicted_iou"] for record in records],
        stability=np.array([record["stability_score"] for record in records], np.float32),
        points=np.array([record["point_coords"][0][::-1] for record in records], np.float32),
    )


def assert_same_masks(ours: MaskSet, theirs: MaskSet) -> None:
    """Same masks in the same order, with the same scores and prompts."""
    assert len(ours) == len(theirs)
    best = [overlaps(ours.subset([i]), theirs.subset([i]))[0] for i in range(len(ours))]
    assert min(best) >= 0.99
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-3)
    np.testing.assert_allclose(ours.stability, theirs.stability, atol=2e-3)
    np.testing.assert_allclose(ours.points, theirs.points, atol=1e-3)


# ---- equal to segment-anything ----------------------------------------------------------


def test_masks_are_segment_anythings(published, trained, found):
    theirs = published_masks(
        published("mobile_sam"),
        trained.rgb,
        points_per_side=5,
        pred_iou_thresh=LOOSE["pred_iou"],
        stability_score_thresh=LOOSE["stability"],
    )
    ours = found.filter(**LOOSE)
    assert len(theirs) > 10
    assert_same_masks(ours, theirs)
    assert sum(ours.dropped.values()) + len(ours) == len(found)
    assert min(ours.dropped[reason] for reason in ("pred_iou", "stability", "nms")) > 5


@pytest.mark.slow
def test_masks_in_crops_are_segment_anythings(published, trained, monkeypatch):
    """Two by two crops beside the image; masks cut by a crop are left out."""
    settings = {"points_per_side": 2, "crop_n_layers": 1}
    encoded, original = {}, SamModel.encode

    def encode(model, x):
        key = x.numpy().tobytes()
        if key not in encoded:
            encoded[key] = original(model, x)
        return encoded[key]

    monkeypatch.setattr(SamModel, "encode", encode)
    rgb = np.ascontiguousarray(trained.rgb[::-1])
    search = Segmenter(rgb, "mobile_sam", manager=trained.manager).automatic(
        **settings, speckle_area=0
    )
    sam = copy(published("mobile_sam"))
    # The encoder is not in question here, and takes long.
    sam._modules = {**sam._modules, "image_encoder": Remembered(encoded)}
    theirs = published_masks(
        sam,
        rgb,
        pred_iou_thresh=LOOSE["pred_iou"],
        stability_score_thresh=LOOSE["stability"],
        **settings,
    )
    ours = search.filter(**LOOSE)
    assert len(encoded) == 5
    assert len(theirs) > 5
    assert len(set(search.searched)) >= 4
    assert len(ours) == len(theirs)
    assert overlaps(ours, theirs).min() >= 0.99
    assert overlaps(theirs, ours).min() >= 0.99


def test_masks_in_crops_are_put_in_their_place(tiny, monkeypatch):
    """Every prompt gives the same blob here, well inside its crop."""
    blob = np.full((256, 256), -3.0, np.float32)
    blob[72:120, 96:160] = 3
    render = automatic.render_mask
    monkeypatch.setattr(automatic, "render_mask", lambda target, *_: render(target, blob))
    search = tiny.automatic(points_per_side=1, crop_n_layers=1)
    assert len(search.searched_boxes) == 5
    assert tuple(search.searched_boxes[0]) == (0, 0, 192, 256)
    for index, (y0, x0, y1, x1) in enumerate(search.searched_boxes):
        own = np.flatnonzero(search.searched == index)
        np.testing.assert_allclose(search.points[own], [((y0 + y1) / 2, (x0 + x1) / 2)] * 3)
        scale = max(y1 - y0, x1 - x0) / 256
        expected = np.array([72, 96, 120, 160]) * scale + (y0, x0, y0, x0)
        np.testing.assert_allclose(search.boxes[own[0]], expected, atol=1.5)
        assert search.crop(int(own[0])).box == tuple(search.boxes[own[0]])


def test_masks_cut_by_a_crop_are_left_out(tiny, monkeypatch):
    """Where the image goes on; at its own edge they stay."""
    blob = np.full((256, 256), -3.0, np.float32)
    blob[:60, :60] = 3
    render = automatic.render_mask
    monkeypatch.setattr(automatic, "render_mask", lambda target, *_: render(target, blob))
    search = tiny.automatic(points_per_side=1, crop_n_layers=1)
    corners = [tuple(search.searched_boxes[i][:2]) for i in np.unique(search.searched)]
    assert corners == [(0, 0), (0, 0)]


class Remembered(torch.nn.Module):
    """An encoder that looks its answers up."""

    img_size = 1024

    def __init__(self, answers):
        super().__init__()
        self.answers = answers

    def forward(self, x):
        return self.answers[x.numpy().tobytes()].features


def test_candidates_are_what_a_click_gives(trained, found):
    """Each prompt's three masks and scores, at the place it names."""
    for prompt in np.unique(found.points, axis=0)[[5, 20]]:
        index = np.flatnonzero((found.points == prompt).all(axis=1))
        answer = trained.predict(points=[prompt])
        np.testing.assert_allclose(found.scores[index], answer.scores, atol=1e-4)
        for i, mask in zip(index, answer.masks, strict=True):
            plane = np.zeros(found.shape, bool)
            plane[found.crop(int(i)).slices] = found.crop(int(i)).array()
            assert np.count_nonzero(plane ^ mask) <= 3
            assert found.crop(int(i)).box == tuple(found.boxes[i])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hq_candidates_are_what_a_click_gives(micrograph, manager, monkeypatch, dtype):
    monkeypatch.setitem(registry._REGISTERED, HQ.name, HQ)
    monkeypatch.setattr(automatic, "product_dtype", lambda device: dtype)
    segmenter = Segmenter(micrograph.image, HQ.name, manager=manager)
    search = segmenter.automatic(points_per_side=2, speckle_area=0)
    assert len(search) == search.n_prompts == 4
    for i in range(4):
        answer = segmenter.predict(points=[search.points[i]])
        assert search.scores[i] == pytest.approx(answer.scores[0], abs=2e-3)
        plane = np.zeros(search.shape, bool)
        plane[search.crop(i).slices] = search.crop(i).array()
        shared = np.count_nonzero(plane & answer.masks[0])
        assert shared / np.count_nonzero(plane | answer.masks[0]) > 0.97


def test_half_precision_finds_the_same_masks(trained, found, monkeypatch):
    monkeypatch.setattr(automatic, "product_dtype", lambda device: torch.bfloat16)
    rough = trained.automatic(points_per_side=5, speckle_area=0).filter(**LOOSE)
    exact = found.filter(**LOOSE)
    assert np.mean(overlaps(exact, rough) >= 0.9) >= 0.95
    assert np.mean(overlaps(rough, exact) >= 0.9) >= 0.95


def test_large_images_keep_large_masks_for_later(manager):
    image = np.random.default_rng(0).integers(0, 255, (600, 800), np.uint8)
    segmenter = Segmenter(image, "tiny", manager=manager)
    search = segmenter.automatic(points_per_side=2, speckle_area=0)
    large = [i for i, mask in enumerate(search.masks) if isinstance(mask, DeferredMask)]
    assert len(large) > 3
    for i in large[:2]:
        answer = segmenter.predict(points=[search.points[i]])
        best = np.abs(answer.scores - search.scores[i]).argmin()
        assert search.scores[i] == pytest.approx(answer.scores[best], abs=1e-4)
        assert search.crop(i).area == pytest.approx(answer.areas[best], rel=1e-3)
        assert search.areas[i] == pytest.approx(answer.areas[best], rel=0.01)


# ---- settings ---------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_batches_do_not_change_the_result(tiny, coarse, batch):
    same_candidates(
        tiny.automatic(points_per_side=3, points_per_batch=batch, speckle_area=0), coarse
    )


def test_grid_covers_the_image(coarse):
    assert coarse.shape == (192, 256)
    expected = [(y, x) for y in (32, 96, 160) for x in (256 / 6, 128, 256 * 5 / 6)]
    np.testing.assert_allclose(np.unique(coarse.points, axis=0), expected, rtol=1e-6)
    assert len(coarse) == 27
    assert (coarse.n_prompts, coarse.n_skipped) == (9, 0)
    assert coarse.seconds > 0


def test_own_points(tiny):
    grid = np.array([[0.25, 0.5], [0.75, 0.125]])
    search = tiny.automatic(point_grid=grid)
    np.testing.assert_allclose(np.unique(search.points, axis=0), [[48, 128], [144, 32]])


def test_floors_leave_out_and_are_remembered(tiny, coarse):
    floor, stability_floor = np.median(coarse.scores), np.median(coarse.stability())
    search = tiny.automatic(
        points_per_side=3, iou_floor=float(floor), stability_floor=float(stability_floor)
    )
    expected = (coarse.scores > floor) & (coarse.stability() >= stability_floor)
    assert 0 < len(search) == np.count_nonzero(expected)
    np.testing.assert_allclose(search.scores, coarse.scores[expected], atol=1e-5)
    with pytest.raises(InvalidSettingError, match="the iou_floor of the search"):
        search.filter(pred_iou=float(floor) - 0.01)
    with pytest.raises(InvalidSettingError, match="the stability_floor of the search"):
        search.filter(pred_iou=1, stability=float(stability_floor) - 0.01)


def test_region_limits_prompts_and_masks(trained, found):
    region = np.zeros((192, 256), bool)
    region[:100, :130] = True
    search = trained.automatic(points_per_side=5, region=region, speckle_area=0)
    assert search.n_prompts == 9
    assert (search.points < (100, 130)).all()
    for i in range(len(search)):
        mask = search.crop(i)
        assert 2 * np.count_nonzero(region[mask.slices] & mask.array()) > mask.area
    # What lies inside is found as before.
    inside = (found.points < (100, 130)).all(axis=1)
    assert 0 < len(search) < np.count_nonzero(inside)
    assert set(search.areas) <= set(found.areas[inside])


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, float])
def test_region_of_numbers(tiny, dtype):
    region = np.zeros((192, 256), dtype)
    region[:100] = 3
    assert tiny.automatic(points_per_side=3, region=region).n_prompts == 6


def test_region_without_prompts_is_no_error(tiny, monkeypatch):
    tiny.encode()
    monkeypatch.setattr(SamModel, "encode", lambda self, x: pytest.fail("nothing to encode"))
    region = np.zeros((192, 256), bool)
    region[0, 0] = True
    seen = []
    search = tiny.automatic(
        points_per_side=4, crop_n_layers=1, region=region, progress=lambda *a: seen.append(a)
    )
    assert (len(search), search.n_prompts) == (0, 0)
    assert len(search.filter(nms_kind="mask")) == 0


def test_empty_regions_are_refused(tiny):
    with pytest.raises(InvalidSettingError, match="a region with at least one pixel, got none"):
        tiny.automatic(points_per_side=4, region=np.zeros((192, 256), bool))


def test_crops_without_prompts_are_not_encoded(tiny, monkeypatch):
    tiny.encode()
    seen, original = [], automatic.encode

    def encode(model, rgb, manager):
        seen.append(rgb.shape)
        return original(model, rgb, manager)

    monkeypatch.setattr(automatic, "encode", encode)
    region = np.zeros((192, 256), bool)
    region[:40, :40] = True
    search = tiny.automatic(points_per_side=6, crop_n_layers=1, region=region)
    assert len(seen) == 1
    assert set(search.searched) <= {0, 1}


@pytest.mark.parametrize(
    ("side", "share"), [(5, 0.8), pytest.param(16, 0.85, marks=pytest.mark.slow)]
)
def test_points_in_good_masks_are_skipped(trained, found, side, share):
    """Nearly the same masks come of fewer prompts."""
    seen = []
    search = trained.automatic(
        points_per_side=side, skip_covered=True, progress=lambda *a: seen.append(a)
    )
    if side != 5:
        found = trained.automatic(points_per_side=side)
    assert search.n_prompts + search.n_skipped == found.n_prompts == side * side
    assert search.n_skipped >= 0.08 * side * side
    assert seen[-1] == (side * side, side * side)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    preset = PRESETS["particles"].filter
    all_masks, fewer = (c.filter(preset, **LOOSE) for c in (found, search))
    assert np.mean(overlaps(all_masks, fewer) > 0.75) >= share
    assert np.mean(overlaps(fewer, all_masks) > 0.75) >= share


@pytest.mark.parametrize("skip", [False, True])
def test_all_points_come_up_for_decoding(tiny, skip, monkeypatch):
    """Nothing covers anything here, so that the order alone is different."""
    seen = []
    original = automatic._Search._decode

    def decode(self, part, *rest):
        seen.extend(part.tolist())
        original(self, part, *rest)

    monkeypatch.setattr(automatic._Search, "_decode", decode)
    tiny.automatic(points_per_side=5, skip_covered=skip, cover_iou=1, cover_stability=1)
    assert sorted(seen) == list(range(25))
    assert (seen == list(range(25))) is not skip


@pytest.mark.parametrize(
    ("changes", "skipped"),
    [
        ({}, 0),
        ({"cover_area": 0.3}, 4),
        ({"cover_area": 0.3, "cover_iou": 0.96}, 0),
        ({"cover_area": 0.3, "cover_stability": 0.98}, 0),
    ],
)
def test_only_good_small_masks_cover(tiny, monkeypatch, changes, skipped):
    """Every prompt gives the left quarter of the image here, with a score of 0.95."""
    quarter = np.full((256, 256), -3.0, np.float32)
    quarter[:, :64] = 3
    quarter[:, 62:66] = (0.9, 0.5, -0.5, -0.9)  # 63 columns are sure, 65 possible
    render, tokens = automatic.render_mask, MultiPromptDecoder.tokens

    def score(self, context, sparse):
        hidden, keys, scores = tokens(self, context, sparse)
        return hidden, keys, torch.full_like(scores, 0.95)

    monkeypatch.setattr(
        automatic, "render_mask", lambda target, logits, area: render(target, quarter)
    )
    monkeypatch.setattr(MultiPromptDecoder, "tokens", score)
    search = tiny.automatic(points_per_side=4, points_per_batch=1, skip_covered=True, **changes)
    assert (search.n_skipped, search.n_prompts) == (skipped, 16 - skipped)


# ---- progress, cancelling, memory -------------------------------------------------------


def test_progress_runs_up_to_the_total(tiny):
    seen = []
    search = tiny.automatic(
        points_per_side=4,
        points_per_batch=5,
        crop_n_layers=1,
        crop_n_points_downscale_factor=2,
        progress=lambda *a: seen.append(a),
    )
    assert {total for _, total in seen} == {16 + 4 * 4}
    done = [count for count, _ in seen]
    assert done == sorted(set(done))
    assert done[:4] == [5, 10, 15, 16]
    assert done[-1] == 32
    assert search.n_prompts == 32


@pytest.mark.usefixtures("fresh_cache")
def test_cancel_at_every_stage(tiny, fresh_cache):
    settings = {"points_per_side": 2, "points_per_batch": 2, "crop_n_layers": 1}
    asked = 0

    def count():
        nonlocal asked
        asked += 1
        return asked == stop_at

    # Loading the model asks, too, but only the first time.
    tiny.predict(points=[(10.0, 10.0)])
    fresh_cache.clear()
    stop_at = -1
    tiny.automatic(**settings, should_stop=count)
    stages = asked
    # Encoding, five crops with two batches each.
    assert stages >= 3 + 5 + 5 * 2
    for stop_at in (1, 2, 3, 5, stages - 2, stages):
        fresh_cache.clear()
        asked = 0
        with pytest.raises(CancelledError):
            tiny.automatic(**settings, should_stop=count)
        assert asked == stop_at, "asked again after it was told to stop"
        assert leases(tiny.manager) == 0


def test_a_failing_progress_leaves_nothing_on_lease(tiny):
    def fail(done, total):
        raise ValueError("the window is gone")

    with pytest.raises(ValueError, match="the window is gone"):
        tiny.automatic(points_per_side=2, progress=fail)
    assert leases(tiny.manager) == 0
    assert tiny.manager.execution_lock.acquire(timeout=1)
    tiny.manager.execution_lock.release()


@pytest.fixture
def _no_search_for_garbage(monkeypatch):
    """Giving memory back has tests of its own, and takes long beside a large program."""
    monkeypatch.setattr(memory, "return_memory", lambda *_, **options: None)


class Shortage:
    """Stands in for a method that runs out of memory the first times it is called."""

    def __init__(self, original, times, error=None):
        self.original, self.times, self.calls = original, times, 0
        self.error = error or torch.OutOfMemoryError("tried to allocate 3.1 GB, out of memory")

    def __get__(self, instance, owner):
        def method(*arguments, **options):
            self.calls += 1
            if self.calls <= self.times:
                raise self.error
            return self.original(instance, *arguments, **options)

        return method


@pytest.mark.usefixtures("_no_search_for_garbage")
@pytest.mark.parametrize(
    ("method", "times"),
    [("tokens", 1), ("tokens", 3), ("masks", 1), ("masks", 3), ("context", 1)],
)
def test_short_of_memory_for_a_while(tiny, coarse, monkeypatch, method, times):
    """Batches of eight become smaller ones, and the result stays the same."""
    monkeypatch.setattr(
        MultiPromptDecoder, method, Shortage(getattr(MultiPromptDecoder, method), times)
    )
    seen = []
    search = tiny.automatic(
        points_per_side=3, points_per_batch=8, speckle_area=0, progress=lambda *a: seen.append(a)
    )
    same_candidates(search, coarse)
    assert seen[-1] == (9, 9)
    assert leases(tiny.manager) == 0


@pytest.mark.usefixtures("_no_search_for_garbage")
@pytest.mark.parametrize("skip_covered", [False, True])
def test_short_of_memory_while_rendering(tiny, monkeypatch, skip_covered):
    """Half of a batch is rendered by then; nothing is found twice, and nothing is lost."""
    settings = {"points_per_side": 4, "points_per_batch": 4, "skip_covered": skip_covered}
    settings |= {"cover_area": 1.0, "cover_stability": 0.4}
    expected = tiny.automatic(**settings)
    assert (expected.n_skipped > 0) is skip_covered
    original, calls = automatic.render_mask, 0

    def render(target, logits, area):
        nonlocal calls
        calls += 1
        if calls in (5, 30):
            raise MemoryError
        return original(target, logits, area)

    monkeypatch.setattr(automatic, "render_mask", render)
    same_candidates(tiny.automatic(**settings), expected)
    assert calls > 20 or skip_covered


@pytest.mark.usefixtures("_no_search_for_garbage")
def test_never_enough_memory(tiny, monkeypatch):
    tiny.encode()
    monkeypatch.setattr(MultiPromptDecoder, "tokens", Shortage(MultiPromptDecoder.tokens, 10**6))
    with pytest.raises(DeviceMemoryError, match=r"searching masks, one at a time.*\d") as caught:
        tiny.automatic(points_per_side=3, points_per_batch=8)
    assert "3.1 GB" in str(caught.value)
    assert leases(tiny.manager) == 0


@pytest.mark.usefixtures("fresh_cache", "_no_search_for_garbage")
def test_short_of_memory_while_crops_are_encoded(tiny, monkeypatch):
    settings = {"points_per_side": 2, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2}
    expected = tiny.automatic(**settings)
    original = SamModel.encode
    monkeypatch.setattr(SamModel, "encode", Shortage(original, 1))
    same_candidates(tiny.automatic(**settings), expected)
    monkeypatch.setattr(SamModel, "encode", Shortage(original, 10**6))
    with pytest.raises(DeviceMemoryError, match="encoding the image"):
        tiny.automatic(**settings)
    assert leases(tiny.manager) == 0


# ---- parts ------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_coarse_points_come_first(side):
    points = AutomaticConfig(points_per_side=side).grid() * 100
    order = automatic._coarse_first(points)
    assert sorted(order) == list(range(side * side))
    if side == 8:
        first = points[order[:4]]
        distances = np.linalg.norm(first[:, None] - first[None], axis=-1)
        assert distances[np.triu_indices(4, 1)].min() >= 50


def test_points_outside_a_mask_are_not_covered():
    disc = np.add.outer(np.arange(-8, 9) ** 2, np.arange(-8, 9) ** 2) <= 64
    mask = MaskCrop.from_array(disc, 10, 20)
    points = np.array([[18.0, 28.0], [10.5, 20.5], [18.9, 36.4], [5.0, 28.0], [18.0, 50.0]])
    covered = np.zeros(5, bool)
    covered[4] = True
    corner = np.array([7, 3])
    crop = automatic._Crop(1, (7, 3, 64, 64), points - corner, None, covered)
    automatic._cover(mask, crop)
    assert covered.tolist() == [True, False, True, False, True]


def test_most_of_a_mask_must_lie_inside():
    region = np.zeros((20, 30), bool)
    region[:, :15] = True
    for left, expected in ((0, True), (10, False), (9, True), (20, False)):
        mask = MaskCrop.from_array(np.ones((4, 10), bool), 5, left)
        assert automatic._inside(mask, region) is expected


def test_search_checks_its_region(tiny):
    config = AutomaticConfig(region=np.ones((5, 5), bool))
    with (
        tiny.manager.lease("tiny") as model,
        pytest.raises(InvalidSettingError, match=r"shape of the image \(192, 256\), got \(5, 5\)"),
    ):
        automatic.search(tiny.rgb, tiny.encode(), model, tiny.manager, config)


def test_speckles_leave_the_masks_but_not_the_scores(trained, found):
    clean = trained.automatic(points_per_side=5, speckle_area=30)
    np.testing.assert_array_equal(clean.scores, found.scores)
    np.testing.assert_array_equal(clean.above, found.above)
    changed = 0
    for index in range(len(found)):
        regions, count = ndimage.label(clean.crop(index).array(), np.ones((3, 3)))
        sizes = np.bincount(regions.ravel())[1:]
        assert count == 1 or sizes.min() >= 30
        changed += clean.crop(index).area != found.crop(index).area
    assert changed

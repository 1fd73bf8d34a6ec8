from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from segment_anything import SamPredictor

from phasesam.core.errors import (
    CheckpointError,
    DeviceMemoryError,
    InvalidImageError,
    InvalidPromptError,
    InvalidSettingError,
    UnknownModelError,
)
from phasesam.core.images import Normalisation
from phasesam.core.types import PixelSize
from phasesam.engines.segmenter import Segmenter
from phasesam.models import memory
from phasesam.models.mask_decoder import MultiPromptDecoder
from phasesam.models.sam import SamModel

SHAPE = (192, 256)
BAR = 192


@pytest.fixture(scope="module")
def trained(micrograph, manager):
    return Segmenter(micrograph.image, manager=manager)


@pytest.fixture(scope="module")
def tiny(micrograph, manager):
    return Segmenter(micrograph.image, "tiny", manager=manager)


@pytest.fixture(scope="module")
def predictor(published, trained):
    predictor = SamPredictor(published("mobile_sam"))
    predictor.set_image(trained.rgb)
    return predictor


@pytest.fixture(scope="module")
def with_bar(micrograph):
    """The micrograph with 40 rows of text on black below."""
    bar = Image.new("L", (256, 40))
    draw = ImageDraw.Draw(bar)
    draw.line((0, 0, 256, 0), fill=255)
    draw.text((6, 4), "SEM HV: 15.0 kV   WD: 9.94 mm", fill=255)
    draw.text((6, 22), "View field: 102 um  Det: SE", fill=255)
    return np.concatenate([micrograph.image, np.asarray(bar)])


def leases(manager):
    return sum(model.leases for model in manager.resident())


def iou(one, other):
    return np.count_nonzero(one & other) / max(1, np.count_nonzero(one | other))


def random_prompts(count, seed=0):
    """Points with both labels, boxes, and both, in turn; (y, x) in the micrograph."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        prompt = {}
        if i % 4 != 2:
            n = 1 if i % 4 == 0 else int(rng.integers(2, 5))
            prompt["points"] = rng.uniform((0, 0), np.array(SHAPE) - 0.5, (n, 2))
            prompt["labels"] = np.array([1, *rng.integers(0, 2, n - 1)])
        if i % 4 >= 2:
            corner = rng.uniform((0, 0), (120, 180))
            prompt["boxes"] = np.concatenate([corner, corner + rng.uniform(15, 70, 2)])[None]
        yield prompt


def as_published(points=None, labels=None, boxes=None):
    """The same prompt in SAM's order of axes."""
    return {
        "point_coords": None if points is None else points[:, ::-1].copy(),
        "point_labels": labels,
        "box": None if boxes is None else boxes[0][[1, 0, 3, 2]],
    }


# ---- equal to segment-anything ----------------------------------------------------------


@pytest.mark.parametrize("count", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_masks_are_segment_anythings(trained, predictor, count):
    """All three scales, in their order."""
    for prompt in random_prompts(count):
        ours = trained.predict(**prompt)
        masks, scores, logits = predictor.predict(**as_published(**prompt))
        assert len(ours) == 3
        np.testing.assert_allclose(ours.scores, scores, atol=1e-3)
        np.testing.assert_allclose(ours.logits, logits, atol=0.02)
        for mask, expected in zip(ours.masks, masks, strict=True):
            assert iou(mask, expected) >= 0.99 or np.count_nonzero(mask ^ expected) <= 1


@pytest.mark.parametrize("count", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_single_mask_and_refinement_are_segment_anythings(trained, predictor, count):
    for prompt in random_prompts(count, seed=1):
        ours = trained.predict(**prompt, multimask_output=False)
        masks, scores, logits = predictor.predict(**as_published(**prompt), multimask_output=False)
        np.testing.assert_allclose(ours.scores, scores, atol=1e-3)
        assert iou(ours.masks[0], masks[0]) >= 0.99
        # A click further, starting from what was found.
        more = {"points": np.array([(96.0, 128.0)]), "labels": np.array([0])}
        refined = trained.predict(**more, logits=ours.logits[0])
        masks, scores, _ = predictor.predict(**as_published(**more), mask_input=logits)
        np.testing.assert_allclose(refined.scores, scores, atol=1e-3)
        for mask, expected in zip(refined.masks, masks, strict=True):
            assert iou(mask, expected) >= 0.99 or np.count_nonzero(mask ^ expected) <= 1
        plain = trained.predict(**more)
        assert np.abs(plain.logits - refined.logits).max() > 1


def test_several_boxes_are_several_objects(trained, predictor, micrograph):
    labels = micrograph.labels
    sizes = np.bincount(labels.ravel())
    boxes = []
    for number in np.argsort(-sizes[1:])[:4] + 1:
        rows, columns = np.nonzero(labels == number)
        boxes.append((rows.min(), columns.min(), rows.max() + 1, columns.max() + 1))
    answer = trained.predict(boxes=boxes)
    assert len(answer) == 4
    for index, (y0, x0, y1, x1) in enumerate(boxes):
        masks, scores, _ = predictor.predict(box=np.array([x0, y0, x1, y1]))
        best = scores.argmax()
        assert answer.scores[index] == pytest.approx(scores[best], abs=1e-3)
        assert iou(answer.masks[index], masks[best]) >= 0.99


def test_a_mask_prompt_is_understood(trained, micrograph):
    """SAM follows the mask, though not to the pixel."""
    labels = micrograph.labels
    number = int(np.bincount(labels.ravel())[1:].argmax()) + 1
    mask = labels == number
    answer = trained.predict(mask=mask, boxes=[box_of(mask)], multimask_output=False)
    assert iou(answer.masks[0], mask) > 0.7


def test_a_mask_or_logits_alone_mean_the_object_in_their_box(trained, micrograph):
    number = int(np.bincount(micrograph.labels.ravel())[1:].argmax()) + 1
    mask = micrograph.labels == number
    alone = trained.predict(mask=mask, multimask_output=False)
    boxed = trained.predict(mask=mask, boxes=[box_of(mask)], multimask_output=False)
    np.testing.assert_array_equal(alone.logits, boxed.logits)
    refined = trained.predict(logits=alone.logits[0], multimask_output=False)
    assert iou(refined.masks[0], mask) > 0.7


def box_of(mask):
    rows, columns = np.nonzero(mask)
    return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1


# ---- images -----------------------------------------------------------------------------


def test_the_same_picture_in_other_clothes(micrograph, tiny):
    grey = micrograph.image
    scale = Normalisation("range", 0, 65535)
    alike = [
        Segmenter(np.repeat(grey[..., None], 3, axis=2)),
        Segmenter(np.dstack([grey] * 3 + [np.full_like(grey, 7)])),
        Segmenter(np.asfortranarray(grey)),
        Segmenter(grey.astype(np.uint16) * 257, normalisation=scale),
        Segmenter(grey.astype(np.int32) * 257, normalisation=scale),
        Segmenter(grey.astype(np.float32) * 257, normalisation=scale),
        Segmenter(grey.tolist(), normalisation=Normalisation("range", 0, 255)),
    ]
    for other in alike:
        assert other.shape == SHAPE
        np.testing.assert_array_equal(other.rgb, tiny.rgb)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64, np.int16, bool])
def test_other_dtypes_are_stretched(micrograph, manager, dtype):
    grey = micrograph.image
    image = grey > 90 if dtype is bool else (grey.astype(np.float64) * 20 - 800).clip(0)
    image = image.astype(dtype)
    if np.issubdtype(dtype, np.floating):
        image[:5, :5], image[20, 20] = np.nan, np.inf
    segmenter = Segmenter(image, "tiny", manager=manager)
    assert segmenter.rgb.dtype == np.uint8
    assert segmenter.rgb.std() > 40
    answer = segmenter.predict(points=[(96, 128)])
    assert answer.shape == SHAPE
    assert np.isfinite(answer.logits).all()


def test_one_pixel(manager):
    segmenter = Segmenter(np.array([[7]], np.uint8), "tiny", manager=manager)
    assert segmenter.predict(points=[(0, 0)]).masks.shape == (3, 1, 1)
    with pytest.raises(InvalidImageError, match="1 x 1 are equal"):
        segmenter.automatic(points_per_side=2)


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (2, 3), (70, 3000)])
def test_strange_shapes(manager, shape):
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    segmenter = Segmenter(image, "tiny", manager=manager)
    answer = segmenter.predict(points=[(shape[0] // 2, shape[1] // 2)])
    assert answer.masks.shape == (3, *shape)
    masks = segmenter.automatic(points_per_side=2).filter(pred_iou=0, stability=0, nms=1)
    assert masks.to_labels().shape == shape


@pytest.mark.parametrize("shape", [(1, 300), (300, 1)])
def test_copies_go_in_an_image_one_pixel_wide(manager, shape):
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    candidates = Segmenter(image, "tiny", manager=manager).automatic(points_per_side=4)
    masks = candidates.filter(pred_iou=0, stability=0, nms=0.7)
    assert len({crop.box for crop in masks.crops}) == len(masks) < len(candidates)


@pytest.mark.parametrize("image", [np.zeros(SHAPE, np.uint8), np.full(SHAPE, 3.5)])
def test_constant_images_have_an_answer(manager, image):
    segmenter = Segmenter(image, "tiny", manager=manager)
    assert segmenter.predict(points=[(5, 5)]).masks.shape == (3, *SHAPE)
    with pytest.raises(InvalidImageError, match="192 x 256 are equal: there is nothing to find"):
        segmenter.automatic(points_per_side=1)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((0, 10)), r"image with pixels, got the empty shape \(0, 10\)"),
        (np.zeros((10, 0, 3), np.uint8), "image with pixels"),
        (np.zeros((4, 10, 12, 3), np.uint8), r"got \(4, 10, 12, 3\); choose one plane of the sta"),
        (np.zeros((5, 10, 12)), r"got \(5, 10, 12\); choose one of the 5 planes"),
        (np.zeros((10, 12, 2)), "expected one plane of shape"),
        (np.zeros(7), r"expected one plane of shape .* got \(7,\); reshape it"),
        (np.ones((10, 12), complex), "expected real intensities, got complex128"),
        (np.full((10, 12), "a"), "expected an array of numbers, got dtype <U1"),
        (np.full((10, 12), None), "expected an array of numbers, got dtype object"),
    ],
)
def test_what_is_no_image_is_refused_at_once(image, message):
    with pytest.raises(InvalidImageError, match=message):
        Segmenter(image)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_without_a_number_are_refused(manager, value):
    segmenter = Segmenter(np.full(SHAPE, value, np.float32), "tiny", manager=manager)
    for ask in (lambda: segmenter.predict(points=[(5, 5)]), segmenter.automatic):
        with pytest.raises(InvalidImageError, match=r"at least one finite intensity.*\(192, 256\)"):
            ask()


def test_pixel_size_is_carried_along(micrograph):
    assert Segmenter(micrograph.image).pixel_size == PixelSize()
    size = PixelSize(0.4, 0.4, "um")
    assert Segmenter(micrograph.image, pixel_size=size).pixel_size == size


# ---- data bar ---------------------------------------------------------------------------


def test_masks_stay_out_of_the_data_bar(with_bar, manager, micrograph):
    segmenter = Segmenter(with_bar, "tiny", manager=manager)
    assert segmenter.data_bar == BAR
    assert segmenter.shape == (232, 256)
    np.testing.assert_array_equal(segmenter.rgb[..., 0], micrograph.image)
    # The generated model covers most of the image with every mask.
    answer = segmenter.predict(points=[(180, 100)], threshold=-3)
    assert answer.masks.shape == (3, 232, 256)
    assert answer.masks[:, :BAR].any()
    assert not answer.masks[:, BAR:].any()
    search = segmenter.automatic(points_per_side=3)
    assert search.points[:, 0].max() < BAR
    masks = search.filter(pred_iou=0, stability=0, nms=1)
    assert len(masks) > 3
    assert masks.shape == (232, 256)
    assert masks.boxes[:, 2].max() == BAR
    assert masks.to_labels().shape == (232, 256)
    assert not masks.to_labels()[BAR:].any()
    # What touches the bar touches the edge of the field of view.
    inner = search.filter(pred_iou=0, stability=0, nms=1, touching_edge=False)
    assert (inner.boxes[:, 2] < BAR).all()


def test_data_bar_may_be_kept(with_bar, manager):
    segmenter = Segmenter(with_bar, "tiny", manager=manager, exclude_data_bar=False)
    assert segmenter.data_bar is None
    assert segmenter.rgb.shape == (232, 256, 3)
    assert segmenter.predict(points=[(220, 30)], threshold=-3).masks[:, BAR:].any()


@pytest.mark.parametrize("y", [BAR, BAR - 0.49, 231.0, 231.4])
def test_points_in_the_data_bar_are_refused(with_bar, manager, y):
    segmenter = Segmenter(with_bar, "tiny", manager=manager)
    message = "inside the image above its data bar of 192 x 256 pixels, got"
    with pytest.raises(InvalidPromptError, match=message):
        segmenter.predict(points=[(10, 10), (y, 20)])


def test_prompts_around_the_data_bar(with_bar, manager):
    segmenter = Segmenter(with_bar, "tiny", manager=manager)
    segmenter.predict(points=[(BAR - 0.5, 20)])
    segmenter.predict(boxes=[(150, 20, 220, 100)])
    with pytest.raises(InvalidPromptError, match="boxes that meet the image of 192 x 256"):
        segmenter.predict(boxes=[(BAR, 20, 220, 100)])
    mask = np.zeros((232, 256), bool)
    mask[100:, 50:90] = True
    assert not segmenter.predict(mask=mask).masks[:, BAR:].any()
    with pytest.raises(InvalidPromptError, match=r"shape of the image \(232, 256\), got \(192, 2"):
        segmenter.predict(mask=mask[:BAR])
    region = np.zeros((232, 256), bool)
    region[BAR:] = True
    assert len(segmenter.automatic(points_per_side=3, region=region)) == 0
    with pytest.raises(InvalidSettingError, match=r"shape of the image \(232, 256\), got \(192, "):
        segmenter.automatic(points_per_side=3, region=region[:BAR])


# ---- wrong input ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({}, "expected at least one point, box or mask, got none"),
        ({"points": [], "labels": []}, "expected at least one point"),
        ({"points": [(192, 5)]}, r"points inside the image of 192 x 256 pixels, got .* \[192.0, 5"),
        ({"points": [(5, 255.6)]}, "points inside the image"),
        ({"points": [(-0.6, 5)]}, "points inside the image"),
        ({"points": [(5, np.nan)]}, "points must be finite numbers, got NaN or infinity"),
        ({"points": [(5, np.inf)]}, "points must be finite numbers"),
        ({"points": [(1, 2, 3)]}, r"points must have shape \(n, 2\), got \(1, 3\)"),
        ({"points": "here"}, r"points must be numbers of shape \(n, 2\)"),
        ({"points": [(5, 5)], "labels": [2]}, r"labels must be 1 \(inside\) or 0 .*, got \[2\]"),
        ({"points": [(5, 5)], "labels": [-1]}, "labels must be 1"),
        ({"points": [(5, 5)], "labels": [np.nan]}, "labels must be 1"),
        ({"points": [(5, 5)], "labels": [1, 0]}, "one label per point, got 2 labels for 1 points"),
        ({"labels": [1]}, "one label per point, got 1 labels for 0 points"),
        ({"boxes": [(20, 20, 10, 30)]}, "y1 > y0 and x1 > x0, got"),
        ({"boxes": [(10, 30, 20, 20)]}, "y1 > y0 and x1 > x0, got"),
        ({"boxes": [(10, 20, 10, 30)]}, "y1 > y0 and x1 > x0, got"),
        ({"boxes": [(0, 0, np.nan, 5)]}, "boxes must be finite numbers"),
        ({"boxes": [(0, 0, 5)]}, r"boxes must have shape \(n, 4\), got \(1, 3\)"),
        ({"boxes": [(200, 0, 220, 10)]}, "boxes that meet the image of 192 x 256 pixels"),
        ({"boxes": [(-9, -9, 0, 10)]}, "boxes that meet the image"),
        ({"mask": np.zeros(SHAPE)}, "a mask prompt with at least one pixel, got none"),
        ({"mask": np.ones((10, 10))}, r"shape of the image \(192, 256\), got \(10, 10\)"),
        ({"mask": np.ones((1, 192, 256))}, r"a mask prompt has shape \(h, w\), got"),
        ({"points": [(5, 5)], "boxes": [(0, 0, 9, 9)] * 2}, "several boxes mean several objects"),
        ({"logits": np.zeros((3, 256, 256))}, r"one plane of shape \(256, 256\), got \(3, 256"),
        ({"logits": np.zeros((9, 9)), "points": [(5, 5)]}, r"one plane of shape \(256, 256\)"),
    ],
)
def test_wrong_prompts_are_refused(tiny, prompts, message):
    with pytest.raises(InvalidPromptError, match=message):
        tiny.predict(**prompts)
    assert leases(tiny.manager) == 0


@pytest.mark.usefixtures("fresh_cache")
def test_wrong_input_is_refused_before_anything_is_computed(tiny, monkeypatch):
    monkeypatch.setattr(SamModel, "encode", lambda self, x: pytest.fail("encoded for nothing"))
    with pytest.raises(InvalidPromptError):
        tiny.predict()
    with pytest.raises(InvalidPromptError):
        tiny.predict(points=[(500, 5)])
    with pytest.raises(InvalidSettingError, match=r"unknown settings \['points_per_line'\]"):
        tiny.automatic(points_per_line=3)
    with pytest.raises(InvalidSettingError, match="points_per_side must be a whole number"):
        tiny.automatic(points_per_side=0)
    with pytest.raises(InvalidSettingError, match="region must have the shape of the image"):
        tiny.automatic(region=np.ones((5, 5)))


def test_unknown_models_are_refused_with_a_list(micrograph, manager):
    segmenter = Segmenter(micrograph.image, "sam_vit_z", manager=manager)
    for ask in (lambda: segmenter.predict(points=[(5, 5)]), segmenter.automatic, segmenter.encode):
        with pytest.raises(UnknownModelError, match=r"no model 'sam_vit_z'; there are .*mobile_"):
            ask()


@pytest.mark.parametrize("edge", [(-0.5, -0.5), (191.5, 255.5)])
def test_points_on_the_edge_are_inside(tiny, edge):
    assert len(tiny.predict(points=[edge])) == 3


# ---- short of memory --------------------------------------------------------------------


def fail_first(monkeypatch, owner, name, times):
    """Let a method run out of memory the first times it is called."""
    original, calls = getattr(owner, name), 0

    def method(self, *arguments, **options):
        nonlocal calls
        calls += 1
        if calls <= times:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.1 GiB")
        return original(self, *arguments, **options)

    monkeypatch.setattr(owner, name, method)


@pytest.mark.usefixtures("fresh_cache")
@pytest.mark.parametrize(
    ("owner", "name", "doing"),
    [
        (SamModel, "encode", "encoding the image"),
        (MultiPromptDecoder, "context", "decoding prompts"),
        (MultiPromptDecoder, "tokens", "decoding prompts"),
        (MultiPromptDecoder, "masks", "decoding prompts"),
    ],
)
def test_short_of_memory(tiny, monkeypatch, fresh_cache, owner, name, doing):
    # Giving memory back has tests of its own, and takes long beside a large program.
    monkeypatch.setattr(memory, "return_memory", lambda *_, **options: None)
    expected = tiny.predict(points=[(90, 100)])
    fresh_cache.clear()
    with monkeypatch.context() as patch:
        fail_first(patch, owner, name, 1)
        answer = tiny.predict(points=[(90, 100)])
    np.testing.assert_allclose(answer.logits, expected.logits, atol=1e-4)
    fresh_cache.clear()
    with monkeypatch.context() as patch:
        fail_first(patch, owner, name, 100)
        with pytest.raises(DeviceMemoryError, match=rf"{doing}.*3\.1 GiB") as caught:
            tiny.predict(points=[(90, 100)])
    # The message says how much the models hold, and the allocator's own error is gone.
    assert "MB" in str(caught.value)
    assert leases(tiny.manager) == 0
    assert len(tiny.predict(points=[(90, 100)])) == 3


# ---- the rest ---------------------------------------------------------------------------


@pytest.mark.usefixtures("fresh_cache")
def test_knows_whether_it_is_encoded(tiny):
    assert not tiny.is_encoded
    embedding = tiny.encode()
    assert tiny.is_encoded
    assert tiny.encode() is embedding
    assert embedding.image_shape == SHAPE


def test_uses_the_manager_of_the_process_by_default(micrograph):
    from phasesam.models.manager import get_manager

    assert Segmenter(micrograph.image).manager is get_manager()


def test_image_is_not_changed(micrograph, manager):
    image = micrograph.image.copy()
    image.flags.writeable = False
    segmenter = Segmenter(image, "tiny", manager=manager)
    segmenter.predict(points=[(90, 100)])
    np.testing.assert_array_equal(segmenter.image, micrograph.image)


class TestAdapters:
    PROMPT = {"points": [(60.0, 80.0)], "multimask_output": False}  # noqa: RUF012

    @pytest.fixture
    def path(self, tmp_path, make_adapter):
        return make_adapter(tmp_path / "powder.safetensors")

    def test_answers_are_the_adapters(self, micrograph, manager, path, tiny):
        seg = Segmenter(micrograph.image, "tiny", adapter=path, manager=manager)
        plain = tiny.predict(**self.PROMPT).logits
        whole = seg.predict(**self.PROMPT).logits
        assert not np.allclose(whole, plain, atol=0.1)
        manager.set_strength("tiny", path, 0)
        assert np.array_equal(seg.predict(**self.PROMPT).logits, plain)
        manager.set_strength("tiny", path, 0.5)
        half = seg.predict(**self.PROMPT).logits
        assert not np.allclose(half, whole, atol=0.1)
        assert not np.allclose(half, plain, atol=0.1)
        manager.set_strength("tiny", path, 1)
        assert np.array_equal(seg.predict(**self.PROMPT).logits, whole)

    def test_trained_again_under_the_same_name(self, micrograph, manager, path, make_adapter):
        seg = Segmenter(micrograph.image, "tiny", adapter=path, manager=manager)
        old = seg.predict(**self.PROMPT).logits
        make_adapter(path, seed=1)
        assert not seg.is_encoded
        new = seg.predict(**self.PROMPT).logits
        assert not np.allclose(new, old, atol=0.1)
        fresh = Segmenter(micrograph.image, "tiny", adapter=str(path), manager=manager)
        assert np.array_equal(fresh.predict(**self.PROMPT).logits, new)
        assert len([m for m in manager.resident() if m.adapter == str(path)]) == 1

    def test_automatic_masks_keep_the_strength_they_began_with(self, micrograph, manager, path):
        seg = Segmenter(micrograph.image, "tiny", adapter=path, manager=manager)
        settings = {"points_per_side": 2, "iou_floor": 0, "stability_floor": 0, "crop_n_layers": 1}
        expected = seg.automatic(**settings)

        def change(done, total):
            manager.set_strength("tiny", path, 0.1)

        found = seg.automatic(**settings, progress=change)
        assert np.array_equal(found.scores, expected.scores)
        assert [m.strength for m in manager.resident() if m.adapter == str(path)] in ([], [0.1])
        assert not np.array_equal(seg.automatic(**settings).scores, expected.scores)

    def test_of_another_model(self, micrograph, manager, path):
        seg = Segmenter(micrograph.image, adapter=path, manager=manager)
        with pytest.raises(CheckpointError, match="made for other weights: it names tiny"):
            seg.encode()
        with pytest.raises(UnknownModelError, match="no adapter 'gone'"):
            Segmenter(micrograph.image, "tiny", adapter="gone", manager=manager).encode()

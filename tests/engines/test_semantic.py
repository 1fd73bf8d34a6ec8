from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from phasesam.core.errors import CancelledError, InvalidSettingError, UnknownModelError
from phasesam.core.levels import intensity_levels
from phasesam.core.types import Prompts
from phasesam.engines import semantic
from phasesam.engines.prompting import predict
from phasesam.engines.segmenter import Segmenter
from phasesam.engines.semantic import NO_CLASS, PhaseMap, segment_classes
from phasesam.evaluation.clicks import ClickedObject, segmenter_predictor
from phasesam.models.adapter_card import AdapterCard
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapters import load_trainable
from phasesam.models.class_decoder import class_logits
from phasesam.models.detail_head import detail_picture
from phasesam.models.sam import SamModel, build_model

ONE_CLICK = ClickedObject(np.array([[60.0, 80.0]]), np.array([1]))
CLASSES = ("matrix", "particle", "pore")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_adapter):
    return make_adapter(tmp_path_factory.mktemp("a") / "whole.safetensors", classes=CLASSES)


@pytest.fixture(scope="module")
def windowed(tmp_path_factory, make_adapter):
    path = tmp_path_factory.mktemp("a") / "windowed.safetensors"
    return make_adapter(path, classes=CLASSES, window=128)


@pytest.fixture
def seg(micrograph, manager):
    return Segmenter(micrograph.image, "tiny", manager=manager)


@pytest.fixture
def encodings(monkeypatch):
    seen, original = [], SamModel.encode
    monkeypatch.setattr(SamModel, "encode", lambda m, x: seen.append(1) or original(m, x))
    return seen


@pytest.fixture(scope="module")
def reference(whole):
    """The unfolded adapter, and its logits of a picture, enlarged as SAM enlarges masks."""
    model = load_trainable(build_model("tiny"), whole)[0].eval()

    def logits(rgb, image=None):
        from phasesam.core.coordinates import resize_image_longest_side

        resized = resize_image_longest_side(rgb)
        with torch.inference_mode():
            seen = detail_picture(resized, intensity_levels(rgb if image is None else image), 1024)
            low = class_logits(model, model.encode(model.preprocess(resized)).features, seen)
        big = functional.interpolate(low, (1024, 1024), mode="bilinear", align_corners=False)
        cut = big[..., : resized.shape[0], : resized.shape[1]]
        return functional.interpolate(cut, rgb.shape[:2], mode="bilinear", align_corners=False)[0]

    return logits


def test_a_whole_image(seg, whole, reference):
    found = segment_classes(seg, whole, orientations=1)
    expected = reference(seg.rgb).softmax(0).numpy()
    assert isinstance(found, PhaseMap)
    assert (found.labels.dtype, found.labels.shape) == (np.uint8, (192, 256))
    assert (found.classes, found.window, found.data_bar) == (CLASSES, None, None)
    np.testing.assert_allclose(found.probabilities, expected, atol=2e-4)
    assert np.mean(found.labels != expected.argmax(0)) < 1e-3
    np.testing.assert_allclose(found.confidence, expected.max(0), atol=2e-4)
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-5)
    shares = np.bincount(found.labels.ravel(), minlength=3) / found.labels.size
    np.testing.assert_allclose(found.fractions, shares)
    assert np.count_nonzero(found.fractions) > 1


def test_logits_are_enlarged_before_a_class_is_chosen(seg, whole, reference):
    """Enlarged classes have edges of four pixels; enlarged logits cut across them."""
    labels = segment_classes(seg, whole).labels
    with torch.inference_mode():
        coarse = reference(seg.rgb)[:, ::4, ::4].argmax(0).repeat_interleave(4, 0)
    assert np.any(labels != coarse.repeat_interleave(4, 1).numpy())


def test_windows_are_averaged_logits(seg, windowed, reference):
    found = segment_classes(seg, windowed, overlap=0.4, orientations=1)
    assert found.window == 128
    total, weight = np.zeros((3, 192, 256)), np.zeros((192, 256))
    ramp = np.minimum(np.arange(128) + 0.5, 127.5 - np.arange(128))
    for y0, x0, y1, x1 in semantic.tiles((192, 256), 128, 51):
        crop = np.ascontiguousarray(seg.rgb[y0:y1, x0:x1])
        total[:, y0:y1, x0:x1] += reference(crop, seg.rgb).numpy() * ramp[:, None] * ramp
        weight[y0:y1, x0:x1] += ramp[:, None] * ramp
    expected = torch.from_numpy(total / weight).softmax(0).numpy()
    np.testing.assert_allclose(found.probabilities, expected, atol=5e-4)
    assert np.mean(found.labels != expected.argmax(0)) < 2e-3


def test_strips_do_not_show(seg, windowed, monkeypatch):
    found = []
    for strip in (1, 20_000, 1 << 26):
        monkeypatch.setattr(semantic, "_STRIP_BYTES", strip)
        found.append(segment_classes(seg, windowed, overlap=0, orientations=1))
    for other in found[1:]:
        np.testing.assert_allclose(found[0].probabilities, other.probabilities, atol=1e-6)
        assert np.mean(found[0].labels != other.labels) < 1e-4


def test_window_of_the_card_can_be_overruled(seg, windowed, whole, encodings):
    once = {"orientations": 1}
    on_whole = segment_classes(seg, windowed, window=0, **once)
    assert on_whole.window is None
    assert len(encodings) == 1
    assert segment_classes(seg, whole, window=140, overlap=0, **once).window == 140
    assert len(encodings) == 1 + 4
    # One window that holds all of the image is the whole image.
    again = segment_classes(seg, windowed, window=300, **once)
    assert len(encodings) == 1 + 4
    assert np.array_equal(again.labels, on_whole.labels)


def test_prompts_are_answered_as_without_it(micrograph, manager, whole):
    """What an adapter has learnt of maps does no harm to clicks and automatic masks."""
    adapted = Segmenter(micrograph.image, "tiny", adapter=whole, manager=manager)
    base = Segmenter(micrograph.image, "tiny", manager=manager)
    click = {"points": [(60.0, 80.0)], "labels": [1]}
    before = adapted.predict(**click)
    mapped = segment_classes(adapted)
    assert np.array_equal(mapped.labels, segment_classes(base, whole).labels)
    for found in (before, adapted.predict(**click)):
        np.testing.assert_array_equal(found.logits, base.predict(**click).logits)
        np.testing.assert_array_equal(found.scores, base.predict(**click).scores)
    clicked = [segmenter_predictor(s)([ONE_CLICK])[0][1].logits for s in (adapted, base)]
    np.testing.assert_array_equal(clicked[0], clicked[1])
    masks = [
        s.automatic(points_per_side=4).filter(pred_iou=0, stability=0) for s in (adapted, base)
    ]
    np.testing.assert_array_equal(masks[0].to_labels(), masks[1].to_labels())
    # With its own weights the answer would be another one.
    embedding = base.encode()
    version = manager.adapter_version("tiny", whole)
    with manager.lease("tiny", version) as model:
        own = predict(model, manager, embedding, Prompts.build(**click))
    assert not np.allclose(own.logits, before.logits, atol=1e-2)


def test_prompts_and_maps_share_an_embedding(
    micrograph, manager, tmp_path, make_adapter, encodings, fresh_cache
):
    """Where the adapter leaves the encoder as it is."""
    config = AdapterConfig(encoder=(), decoder_rank=2)
    adapter = make_adapter(tmp_path / "d.safetensors", classes=CLASSES, config=config)
    seg = Segmenter(micrograph.image, "tiny", adapter=adapter, manager=manager)
    seg.predict(points=[(60.0, 80.0)])
    segment_classes(seg)
    # The picture turned upside down is another one.
    assert len(encodings) == 1 + 1


def test_strength(seg, whole):
    """Class tokens stay as they are; what they look at becomes that of the base."""
    full = segment_classes(seg, whole).probabilities
    try:
        seg.manager.set_strength("tiny", whole, 0)
        assert not np.allclose(segment_classes(seg, whole).probabilities, full, atol=1e-3)
    finally:
        seg.manager.set_strength("tiny", whole, 1)
    assert np.array_equal(segment_classes(seg, whole).probabilities, full)


def test_an_array_is_read_with_the_adapters_base(micrograph, whole, seg):
    found = segment_classes(micrograph.image, whole)
    np.testing.assert_allclose(
        found.probabilities, segment_classes(seg, whole).probabilities, atol=1e-5
    )


def test_data_bar_belongs_to_no_class(micrograph, manager, windowed):
    with_bar = np.concatenate([micrograph.image, np.zeros((40, 256), np.uint8)])
    seg = Segmenter(with_bar, "tiny", manager=manager)
    seg.data_bar = 192
    found = segment_classes(seg, windowed, orientations=1)
    assert found.labels.shape == (232, 256)
    assert found.data_bar == 192
    assert np.all(found.labels[192:] == NO_CLASS)
    assert found.labels[:192].max() < 3
    assert not found.probabilities[:, 192:].any()
    assert found.fractions.sum() == pytest.approx(1)
    bare = Segmenter(micrograph.image, "tiny", manager=manager)
    without = segment_classes(bare, windowed, orientations=1)
    assert np.array_equal(found.labels[:192], without.labels)


@pytest.mark.parametrize("shape", [(50, 300), (300, 50), (1, 40), (97, 96)])
def test_narrow_images(manager, windowed, shape):
    image = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    found = segment_classes(Segmenter(image, "tiny", manager=manager), windowed)
    assert found.labels.shape == shape
    assert np.isfinite(found.probabilities).all()


def test_progress_and_stop(seg, windowed):
    seen = []
    segment_classes(seg, windowed, overlap=0, progress=lambda *step: seen.append(step))
    assert seen == [(i, 8) for i in range(1, 9)]
    asked = []
    with pytest.raises(CancelledError):
        segment_classes(seg, windowed, should_stop=lambda: asked.append(1) or len(asked) > 3)
    assert [m.leases for m in seg.manager.resident() if m.leases] == []


def test_memory_of_large_images(manager, windowed, monkeypatch):
    """Windows go when their rows are finished; probabilities are not kept."""
    side, alive = 4000, []
    plane = np.random.default_rng(0).normal(size=(3, 256, 256)).astype(np.float32)
    most = []

    def window(self, model, box, flip, embedding):
        y0, x0, y1, x1 = box
        return semantic._Window(box, plane, semantic.raster((y1 - y0, x1 - x0)))

    def finish(self, waiting, start, stop, original=semantic._Mapping._finish):
        most.append(len(waiting))
        alive.append(max(item.box[2] - item.box[0] for item in waiting))
        original(self, waiting, start, stop)

    monkeypatch.setattr(semantic._Mapping, "_window", window)
    monkeypatch.setattr(semantic._Mapping, "_finish", finish)
    monkeypatch.setattr(semantic, "_KEPT_BYTES", 10**6)
    seg = Segmenter(np.zeros((side, 700), np.uint8), "tiny", manager=manager)
    for orientations in (1, 2):
        most.clear()
        found = segment_classes(seg, windowed, window=256, overlap=0.25, orientations=orientations)
        assert len(most) > 15
        assert max(most) <= 2 * 4 * orientations
    assert found.probabilities is None
    assert found.confidence is None
    assert set(np.unique(found.labels)) == {0, 1, 2}
    kept = segment_classes(seg, windowed, window=512, keep_probabilities=True)
    assert kept.probabilities.shape == (3, side, 700)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"overlap": -0.1}, "overlap must be within"), ({"overlap": 0.95}, "overlap must be within"),
     ({"window": -1}, "window of 0 pixels"), ({"orientations": 3}, "1, 2 or 4 orientations")],
)  # fmt: skip
def test_settings_that_make_no_sense(seg, whole, settings, message):
    with pytest.raises(InvalidSettingError, match=message):
        segment_classes(seg, whole, **settings)


def test_adapters_without_classes(seg, tmp_path, make_adapter):
    with pytest.raises(InvalidSettingError, match="needs an adapter with classes, got none"):
        segment_classes(seg)
    path = make_adapter(tmp_path / "a.safetensors")
    with pytest.raises(InvalidSettingError, match=r"no classes: .* the task 'promptable'"):
        segment_classes(seg, path)
    with pytest.raises(UnknownModelError, match="no adapter"):
        segment_classes(seg, "gone")


@pytest.mark.parametrize(
    ("said", "expected"), [(None, None), (0, None), (512, 512), ("x", None), (-3, None)]
)
def test_window_of_a_card(said, expected):
    card = AdapterCard(AdapterConfig(), "tiny", "0", "semantic", CLASSES, {"window": said})
    assert card.window == expected


def test_the_contrast_of_a_recording_does_not_matter(micrograph, manager, tmp_path, make_adapter):
    """An adapter that was trained on spread intensities sees them spread."""
    path = make_adapter(tmp_path / "a.safetensors", classes=CLASSES, stretch=True)
    grey = micrograph.image
    low, high = np.percentile(grey, (0.5, 99.5))
    full = np.clip((grey - low) / (high - low) * 255, 0, 255).round().astype(np.uint8)
    found = [
        segment_classes(
            Segmenter(image, "tiny", manager=manager), path, window=window, orientations=1
        ).labels
        for image in (full, (full // 3 + 60).astype(np.uint8))
        for window in (0, 128)
    ]
    assert np.mean(found[0] != found[2]) < 0.02
    assert np.mean(found[1] != found[3]) < 0.02


@pytest.mark.parametrize("window", [0, 90])
def test_a_mirrored_image_has_the_mirrored_map(micrograph, manager, whole, window):
    """What is averaged over all orientations does not depend on how the sample lay."""
    image = micrograph.image[:80, :130]

    def mapped(picture, orientations):
        seg = Segmenter(picture, "tiny", manager=manager)
        steps = []
        found = segment_classes(
            seg, whole, window=window, overlap=0.25, orientations=orientations,
            progress=lambda done, total: steps.append((done, total)),
        )  # fmt: skip
        assert steps[-1][0] == steps[-1][1]
        assert steps[-1][1] % orientations == 0
        return found.probabilities

    for orientations, flips in ((4, (np.flipud, np.fliplr)), (2, (lambda a: a[::-1, ::-1],))):
        straight = mapped(image, orientations)
        for flip in flips:
            turned = mapped(np.ascontiguousarray(flip(image)), orientations)
            back = np.stack([flip(plane) for plane in turned])
            np.testing.assert_allclose(back, straight, atol=1e-3)
    assert np.abs(mapped(image, 1) - straight).max() > 1e-2

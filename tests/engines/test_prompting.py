from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from phasesam.core.errors import InvalidPromptError
from phasesam.core.types import Prompts
from phasesam.engines import prompting
from phasesam.engines.embedding import embed
from phasesam.engines.prompting import check_prompts, predict
from phasesam.engines.rendering import raster
from phasesam.models import registry
from phasesam.models.model_spec import ModelSpec

HQ = ModelSpec(name="tiny_hq", title="Tiny HQ", architecture="tiny", decoder="hq")
SHAPE = (192, 256)


class Asker:
    """Puts prompts to one model about the micrograph."""

    def __init__(self, name, rgb, manager):
        self.name, self.manager = name, manager
        self.embedding = embed(rgb, model=name, adapter=None, manager=manager)

    def __call__(self, points=None, labels=None, boxes=None, mask=None, **options):
        prompts = Prompts.build(points, labels, boxes, mask)
        with self.manager.lease(self.name) as model:
            return predict(model, self.manager, self.embedding, prompts, **options)


@pytest.fixture(scope="module")
def rgb(micrograph):
    return np.repeat(micrograph.image[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def ask(rgb, manager):
    return Asker("tiny", rgb, manager)


@pytest.fixture(scope="module")
def ask_hq(rgb, manager):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._REGISTERED, HQ.name, HQ)
        yield Asker(HQ.name, rgb, manager)
        manager.unload(HQ.name)


def test_three_scales_or_one(ask):
    three, one = ask([(90, 100)]), ask([(90, 100)], multimask_output=False)
    assert (len(three), len(one)) == (3, 1)
    assert three.shape == SHAPE
    assert three.logits.shape == (3, 256, 256)
    assert three.logits.dtype == np.float32
    assert np.isnan(three.points).all()
    assert ((three.stability >= 0) & (three.stability <= 1)).all()
    assert not np.array_equal(one.masks[0], three.masks[0])


def test_answers_do_not_share_memory(ask):
    first = ask([(90, 100)])
    kept = first.logits.copy()
    ask([(20, 200)])
    np.testing.assert_array_equal(first.logits, kept)


@pytest.mark.parametrize("threshold", [-2.0, 0.0, 1.5])
def test_threshold_cuts_the_logits(ask, threshold):
    answer = ask([(90, 100)], threshold=threshold)
    for plane, mask in zip(answer.logits, answer.masks, strict=True):
        np.testing.assert_array_equal(mask, raster(SHAPE).render(plane) > threshold)


def test_a_mask_may_be_empty(ask):
    answer = ask([(90, 100)], threshold=1000)
    assert answer.areas.tolist() == [0, 0, 0]
    assert not answer.masks.any()


def test_several_boxes_give_the_best_mask_of_each(ask):
    boxes = [(10, 20, 60, 70), (80, 100, 150, 200), (0, 0, 192, 256)]
    together = ask(boxes=boxes)
    assert len(together) == 3
    for index, box in enumerate(boxes):
        alone = ask(boxes=[box])
        best = int(alone.scores.argmax())
        assert together.scores[index] == pytest.approx(alone.scores[best], abs=1e-5)
        difference = together.masks[index] ^ alone.masks[best]
        assert np.count_nonzero(difference) <= 2
    single = ask(boxes=boxes, multimask_output=False)
    assert single.scores[1] == pytest.approx(
        ask(boxes=[boxes[1]], multimask_output=False).scores[0], abs=1e-5
    )


@pytest.mark.parametrize(
    ("prompts", "logits", "message"),
    [
        ({}, None, "expected at least one point, box or mask, got none"),
        ({"points": [], "boxes": []}, None, "expected at least one point, box or mask"),
        (
            {"points": [(1, 1)], "boxes": [(0, 0, 9, 9), (5, 5, 9, 9)]},
            None,
            "several boxes mean several objects, each without points or a mask; got 2 boxes and 1",
        ),
        ({"boxes": [(0, 0, 9, 9)] * 2, "mask": np.ones(SHAPE)}, None, "several boxes mean"),
        ({"boxes": [(0, 0, 9, 9)] * 2}, np.zeros((256, 256)), "several boxes mean"),
        ({"mask": np.ones(SHAPE)}, np.zeros((256, 256)), "a mask or logits to start from, got bo"),
    ],
)
def test_prompts_that_do_not_go_together(prompts, logits, message):
    with pytest.raises(InvalidPromptError, match=message):
        check_prompts(Prompts.build(**prompts), logits)


def test_logits_alone_are_a_prompt(ask):
    first = ask([(90, 100)])
    assert len(ask(logits=first.logits[0])) == 3


@pytest.mark.parametrize("shape", [(3, 256, 256), (1, 256, 256), (128, 128), (192, 256)])
def test_logits_are_one_plane(ask, shape):
    with pytest.raises(InvalidPromptError, match=r"one plane of shape \(256, 256\), got \("):
        ask([(90, 100)], logits=np.zeros(shape, np.float32))


def test_logits_are_not_changed(ask):
    logits = np.full((256, 256), -3.0, np.float32)
    logits.flags.writeable = False
    ask([(90, 100)], logits=logits)
    assert (logits == -3).all()


@pytest.mark.parametrize(
    ("shape", "input_size", "used"),
    [((192, 256), (768, 1024), (192, 256)), ((400, 100), (1024, 256), (256, 64))],
)
def test_mask_prompt_is_shrunk_as_the_image_was(manager, shape, input_size, used):
    mask = np.zeros(shape, bool)
    mask[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = True
    with manager.lease("tiny") as model:
        plane = prompting._mask_input(model, Prompts(mask=mask), None, input_size)
    assert plane is not None
    assert plane.shape == (1, 1, 256, 256)
    inside = (plane[0, 0] > 0).numpy()
    expected = np.zeros((256, 256), bool)
    expected[used[0] // 4 : used[0] // 2, used[1] // 4 : used[1] // 2] = True
    np.testing.assert_array_equal(inside, expected)
    assert (plane[0, 0, : used[0], : used[1]].abs() > 5).all()
    # The padding is neither inside nor outside.
    assert not plane[0, 0, used[0] :].any()
    assert not plane[0, 0, :, used[1] :].any()


def test_the_smallest_mask_prompt_does_not_vanish(manager):
    mask = np.zeros((2000, 2000), bool)
    mask[900, 1400] = True
    with manager.lease("tiny") as model:
        plane = prompting._mask_input(model, Prompts(mask=mask), None, (1024, 1024))
    assert plane is not None
    assert torch.nonzero(plane[0, 0] > 0).tolist() == [[115, 179]]


def test_a_mask_prompt_changes_the_answer(ask):
    mask = np.zeros(SHAPE, bool)
    mask[40:90, 60:130] = True
    without, with_mask = ask([(60, 100)]), ask([(60, 100)], mask=mask)
    assert not np.array_equal(without.logits, with_mask.logits)
    assert len(ask(mask=mask)) == 3


@pytest.mark.parametrize("multimask", [False, True])
def test_hq_gives_one_mask_as_published(ask_hq, rgb, multimask):
    answer = ask_hq([(60, 100), (70, 110), (10, 10)], [1, 1, 0], multimask_output=multimask)
    assert len(answer) == 1
    embedding = ask_hq.embedding
    with ask_hq.manager.lease(HQ.name) as model, torch.inference_mode():
        xy = torch.tensor([[[100.0, 60.0], [110.0, 70.0], [10.0, 10.0]]]) * 4
        sparse, dense = model.prompt_encoder(
            points=(xy, torch.tensor([[1, 1, 0]])), boxes=None, masks=None
        )
        logits, scores = model.mask_decoder(
            image_embeddings=embedding.features,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            hq_token_only=False,
            interm_embeddings=list(embedding.intermediate),
        )
    np.testing.assert_allclose(answer.logits, logits[0], atol=1e-3)
    np.testing.assert_allclose(answer.scores, scores[0], atol=1e-5)


def test_hq_with_several_boxes(ask_hq):
    boxes = [(10, 20, 60, 70), (80, 100, 150, 200)]
    together = ask_hq(boxes=boxes)
    assert len(together) == 2
    for index, box in enumerate(boxes):
        alone = ask_hq(boxes=[box])
        np.testing.assert_allclose(together.logits[index], alone.logits[0], atol=1e-3)


def test_embedding_in_another_place_than_the_model(ask):
    """Features come as they were kept; the decoder takes its own precision."""
    exact = ask([(90, 100)])
    kept = ask.embedding
    ask.embedding = replace(kept, features=kept.features.double())
    try:
        np.testing.assert_allclose(ask([(90, 100)]).logits, exact.logits, atol=1e-4)
    finally:
        ask.embedding = kept

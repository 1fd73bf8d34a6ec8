"""Points for many objects give what asking for one object after the other gives."""

from __future__ import annotations

import numpy as np
import pytest

from phasesam import Segmenter
from phasesam.engines.object_prompting import ObjectPrompt, predict_objects


@pytest.fixture(scope="module")
def segmenter(micrograph, manager) -> Segmenter:
    return Segmenter(micrograph.image, model="tiny", manager=manager)


def ask(segmenter, prompts, multimask_output):
    with segmenter.manager.lease("tiny") as model:
        return predict_objects(
            model,
            segmenter.manager,
            segmenter.encode(),
            prompts,
            multimask_output=multimask_output,
        )


def one_by_one(segmenter, prompt, multimask_output):
    answer = segmenter.predict(
        prompt.points,
        prompt.labels,
        logits=prompt.logits,
        multimask_output=multimask_output,
    )
    best = int(np.argmax(answer.scores))
    return answer.mask(best), float(answer.scores[best]), answer.logits[best]


def points(seed: int, count: int) -> ObjectPrompt:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    labels[0] = 1
    return ObjectPrompt(rng.uniform((0, 0), (191, 255), (count, 2)), labels)


@pytest.mark.parametrize("multimask_output", [True, False])
def test_equals_single_predictions(segmenter, multimask_output):
    prompts = [points(seed, 1 + seed % 2) for seed in range(11)]
    for prompt, answer in zip(prompts, ask(segmenter, prompts, multimask_output), strict=True):
        mask, score, logits = one_by_one(segmenter, prompt, multimask_output)
        np.testing.assert_allclose(answer.logits, logits, atol=2e-4)
        assert answer.score == pytest.approx(score, abs=1e-4)
        full = np.zeros(segmenter.shape, bool)
        full[answer.mask.slices] = answer.mask.array()
        # A logit of about zero may fall on either side.
        assert np.count_nonzero(full != mask) <= 2


def test_earlier_logits_are_refined(segmenter):
    first = [points(seed, 1) for seed in range(3)]
    answers = ask(segmenter, first, True)
    again = [
        ObjectPrompt(prompt.points, prompt.labels, answer.logits)
        for prompt, answer in zip(first, answers, strict=True)
    ]
    mixed = [again[0], first[1], again[2]]
    for prompt, answer in zip(mixed, ask(segmenter, mixed, False), strict=True):
        np.testing.assert_allclose(
            answer.logits, one_by_one(segmenter, prompt, False)[2], atol=2e-4
        )


def test_answers_do_not_share_memory(segmenter):
    first, second = ask(segmenter, [points(0, 1), points(1, 1)], True)
    before = second.logits.copy()
    first.logits[:] = 0
    np.testing.assert_array_equal(second.logits, before)


def test_nothing_asked_nothing_answered(segmenter):
    assert ask(segmenter, [], True) == []

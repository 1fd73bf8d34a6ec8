from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from phasesam.models.decoder_state import Workspace
from phasesam.models.mask_decoder import MultiPromptDecoder
from phasesam.models.model_spec import ModelSpec
from phasesam.models.sam import EncoderOutput, SamModel, build_model

KINDS = ("point", "points", "box", "points and box", "mask", "point and mask")
HQ = ModelSpec(name="tiny_hq", title="Tiny HQ", architecture="tiny", decoder="hq")


@pytest.fixture(scope="module", autouse=True)
def _few_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def discs() -> np.ndarray:
    """Discs of three sizes on a noisy ground, 768 x 1024."""
    y, x = np.mgrid[:768, :1024]
    grey = 50 + np.random.default_rng(0).normal(0, 8, y.shape)
    for step, radius in ((256, 90), (170, 45), (90, 18)):
        inside = (y % step - step // 2) ** 2 + (x % step - step // 2) ** 2 < radius**2
        grey = np.where(inside, grey.mean() + radius + 0.1 * (y % step), grey)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


class Encoded:
    """A model and what its encoder makes of one picture."""

    def __init__(self, model: SamModel) -> None:
        self.model = model
        with torch.inference_mode():
            self.output: EncoderOutput = model.encode(model.preprocess(discs()))

    @torch.inference_mode()
    def embed(self, kind: str, batch: int, seed: int = 0) -> tuple[Any, Any]:
        """Embed prompts of one kind: sparse (batch, n, C) and dense (1, C, 64, 64)."""
        rng = torch.Generator().manual_seed(seed)
        size = torch.tensor([1024.0, 768.0])
        points = boxes = masks = None
        if kind in ("point", "point and mask"):
            points = (torch.rand(batch, 1, 2, generator=rng) * size, torch.ones(batch, 1))
        elif "points" in kind:
            labels = torch.randint(0, 2, (batch, 3), generator=rng).float()
            points = (torch.rand(batch, 3, 2, generator=rng) * size, labels)
        if "box" in kind:
            corner = torch.rand(batch, 2, generator=rng) * size * 0.6
            boxes = torch.cat([corner, corner + 50 + 300 * torch.rand(batch, 2, generator=rng)], 1)
        if "mask" in kind:
            masks = 5 * torch.randn(1, 1, 256, 256, generator=rng)
        sparse, dense = self.model.prompt_encoder(points=points, boxes=boxes, masks=masks)
        return sparse.expand(batch, -1, -1), dense[:1]

    @torch.inference_mode()
    def decode(
        self, decoder: MultiPromptDecoder, sparse: torch.Tensor, dense: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All four masks, (batch, 4, 256, 256), and scores, (batch, 4)."""
        context = decoder.context(self.output.features, self.output.intermediate, dense)
        hidden, keys, scores = decoder.tokens(context, sparse)
        return decoder.masks(context, hidden, keys, (0, 1, 2, 3)).float().clone(), scores

    @torch.inference_mode()
    def expected(
        self, sparse: torch.Tensor, dense: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same by ``segment_anything.modeling.MaskDecoder``."""
        return self.model.mask_decoder.predict_masks(
            image_embeddings=self.output.features,
            image_pe=self.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )


@torch.no_grad()
def with_biases(spec: ModelSpec | str) -> SamModel:
    """Generated weights have neither biases nor norms that do something; trained ones do."""
    model = build_model(spec)
    rng = torch.Generator().manual_seed(5)
    for tensor in model.mask_decoder.parameters():
        if tensor.ndim == 1:
            tensor += 0.2 * torch.randn(tensor.shape, generator=rng)
    return model


@pytest.fixture(scope="module")
def tiny() -> Encoded:
    return Encoded(with_biases("tiny"))


@pytest.fixture(scope="module")
def mobile() -> Encoded:
    return Encoded(build_model("mobile_sam"))


@pytest.fixture(scope="module")
def hq() -> Encoded:
    return Encoded(with_biases(HQ))


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert found.shape == expected.shape
    error = float((found - expected).abs().max() / expected.abs().max())
    assert error < tolerance, f"relative error {error:.2g}"


def iou(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return (one & other).sum((-2, -1)) / (one | other).sum((-2, -1)).clamp(min=1)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_published_decoder(tiny, kind, batch):
    sparse, dense = tiny.embed(kind, batch)
    masks, scores = tiny.decode(
        MultiPromptDecoder(tiny.model), sparse, dense if "mask" in kind else None
    )
    expected_masks, expected_scores = tiny.expected(sparse, dense)
    assert_close(masks, expected_masks)
    assert_close(scores, expected_scores, 1e-5)


@pytest.mark.parametrize(("kind", "batch"), [("points and box", 2), ("point and mask", 1)])
def test_equals_the_published_decoder_with_trained_weights(mobile, kind, batch):
    sparse, dense = mobile.embed(kind, batch)
    masks, scores = mobile.decode(
        MultiPromptDecoder(mobile.model), sparse, dense if "mask" in kind else None
    )
    expected_masks, expected_scores = mobile.expected(sparse, dense)
    assert_close(masks, expected_masks)
    assert_close(scores, expected_scores, 1e-5)


def test_prompts_matter_to_the_comparison(tiny):
    """The tolerance is far below what tells two prompts or two mask prompts apart."""
    one, dense = tiny.embed("point", 2)
    masks, _ = tiny.expected(one, dense)
    assert float((masks[0] - masks[1]).abs().max() / masks.abs().max()) > 0.05
    _, from_mask = tiny.embed("point and mask", 2)
    other, _ = tiny.expected(one, from_mask)
    assert float((masks - other).abs().max() / masks.abs().max()) > 0.05


def test_a_context_serves_many_batches(tiny):
    """Buffers of earlier, larger and smaller batches leave no trace."""
    decoder = MultiPromptDecoder(tiny.model)
    features = tiny.output.features.clone()
    with torch.inference_mode():
        context = decoder.context(tiny.output.features)
        for seed, batch in enumerate((3, 1, 5, 2)):
            sparse, dense = tiny.embed("points", batch, seed)
            hidden, keys, scores = decoder.tokens(context, sparse)
            masks = decoder.masks(context, hidden, keys, (0, 1, 2, 3))
            expected_masks, expected_scores = tiny.expected(sparse, dense)
            assert_close(masks, expected_masks)
            assert_close(scores, expected_scores, 1e-5)
    assert torch.equal(tiny.output.features, features)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_prompts_and_scales_may_be_chosen(tiny, dtype):
    decoder = MultiPromptDecoder(tiny.model, dtype)
    sparse, _ = tiny.embed("point", 4)
    context = decoder.context(tiny.output.features)
    hidden, keys, _ = decoder.tokens(context, sparse)
    everything = decoder.masks(context, hidden, keys, (0, 1, 2, 3)).clone()
    chosen = torch.tensor([3, 1])
    some = decoder.masks(context, hidden[chosen], keys[chosen], (2, 1))
    # Products of another shape round otherwise in half precision.
    tolerance = 1e-6 if dtype == torch.float32 else 5e-3
    assert_close(some, everything[chosen][:, [2, 1]], tolerance)


@pytest.mark.parametrize("name", ["tiny", "mobile"])
def test_half_precision_products_change_little(name, request):
    encoded = request.getfixturevalue(name)
    errors, overlaps = [], []
    exact = MultiPromptDecoder(encoded.model, torch.float32)
    rough = MultiPromptDecoder(encoded.model, torch.bfloat16)
    for seed in range(3):
        sparse, _ = encoded.embed("point", 4, seed)
        masks, scores = encoded.decode(exact, sparse, None)
        rough_masks, rough_scores = encoded.decode(rough, sparse, None)
        assert rough_scores.dtype == torch.float32
        errors.append(rough_scores - scores)
        # Masks that SAM itself does not believe in have no sharp edge to compare.
        overlaps.append(iou(masks > 0, rough_masks > 0)[scores > 0.85])
    assert float(torch.cat(errors).square().mean().sqrt()) < 0.01
    assert len(torch.cat(overlaps)) > 10
    assert float(torch.cat(overlaps).min()) > 0.97


def test_half_precision_is_really_used(tiny):
    sparse, _ = tiny.embed("point", 1)
    exact, _ = tiny.decode(MultiPromptDecoder(tiny.model), sparse, None)
    rough, _ = tiny.decode(MultiPromptDecoder(tiny.model, torch.bfloat16), sparse, None)
    assert float((exact - rough).abs().max() / exact.abs().max()) > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("multimask", [False, True])
@torch.inference_mode()
def test_hq_equals_the_published_decoder(hq, multimask, dtype):
    """The HQ token refines the single mask, or the best one of three."""
    decoder = MultiPromptDecoder(hq.model, dtype)
    sparse, dense = hq.embed("points", 3)
    expected_masks, expected_scores = hq.model.mask_decoder(
        image_embeddings=hq.output.features,
        image_pe=hq.model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense.expand(3, -1, -1, -1),
        multimask_output=multimask,
        hq_token_only=False,
        interm_embeddings=list(hq.output.intermediate),
    )
    context = decoder.context(hq.output.features, hq.output.intermediate)
    hidden, keys, scores = decoder.tokens(context, sparse)
    scales = (1, 2, 3) if multimask else (0,)
    masks = decoder.masks(context, hidden, keys, scales).float()
    best = scores[:, list(scales)].argmax(dim=1)
    found = masks[torch.arange(3), best][:, None]
    found_scores = scores[:, list(scales)][torch.arange(3), best][:, None]
    assert_close(found, expected_masks, 1e-4 if dtype == torch.float32 else 0.03)
    assert_close(found_scores, expected_scores, 1e-5 if dtype == torch.float32 else 1e-2)


@torch.inference_mode()
def test_hq_uses_the_early_features(hq):
    decoder = MultiPromptDecoder(hq.model)
    sparse, _ = hq.embed("point", 1)
    without = tuple(torch.zeros_like(t) for t in hq.output.intermediate)
    answers = []
    for intermediate in (hq.output.intermediate, without):
        context = decoder.context(hq.output.features, intermediate)
        hidden, keys, _ = decoder.tokens(context, sparse)
        answers.append(decoder.masks(context, hidden, keys, (0,)).clone())
    assert float((answers[0] - answers[1]).abs().max()) > 0.1


def test_other_transformers_are_refused():
    model = build_model("tiny")
    model.mask_decoder.transformer.layers.append(torch.nn.Identity())
    with pytest.raises(ValueError, match="two-layer transformer, got 3"):
        MultiPromptDecoder(model)


def test_workspace_reuses_and_grows():
    workspace, like = Workspace(), torch.empty(0)
    first = workspace.take("a", (2, 3), like)
    assert workspace.take("a", (3,), like).data_ptr() == first.data_ptr()
    assert workspace.take("b", (2, 3), like).data_ptr() != first.data_ptr()
    larger = workspace.take("a", (4, 3), like)
    assert larger.shape == (4, 3)
    other = workspace.take("a", (2, 3), like.to(torch.bfloat16))
    assert (other.dtype, other.shape) == (torch.bfloat16, (2, 3))
    workspace.clear()
    assert workspace._buffers == {}

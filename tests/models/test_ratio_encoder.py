from __future__ import annotations

import pytest
import torch

from phasesam.core.errors import InvalidSettingError
from phasesam.models.adapter_card import AdapterCard
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapters import attach, load_trainable, save_adapter, weights_hash
from phasesam.models.class_decoder import ClassHints, class_logits
from phasesam.models.ratio_encoder import KINDS, build_ratio_encoder, coordinates
from phasesam.models.sam import build_model

SHARES = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
UNKNOWN = torch.full((2, 3), torch.nan)


def config(kind="none", *, boxes=False):
    return AdapterConfig(
        encoder=(), rank=2, decoder_rank=2, detail=False, ratio=kind, class_boxes=boxes
    )


@pytest.fixture(scope="module")
def base():
    return build_model("tiny")


@pytest.fixture(scope="module")
def features():
    return torch.randn((2, 64, 64, 64), generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def disturbed(model):
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.class_decoder.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=draw)
    return model.eval()


@torch.inference_mode()
def logits(model, features, shares=None, errors=None, boxes=None):
    return class_logits(model, features, hints=ClassHints(shares, errors, boxes))


def test_located_starts_as_what_sam_knows_to_mean_nothing(base, features):
    """The embedding is untouched, and each phase adds the token of a point that is none."""
    encoder = build_ratio_encoder("located", 3, base.prompt_encoder)
    with torch.inference_mode():
        found, prompts = encoder(features, SHARES)
    assert torch.equal(found, features)
    neutral = base.prompt_encoder.not_a_point_embed.weight.expand(2, 3, -1)
    torch.testing.assert_close(prompts, neutral)


def test_it_depends_on_what_is_told(base, features, kind):
    model = disturbed(attach(base, config(kind), n_classes=3))
    first, other = logits(model, features, SHARES), logits(model, features, SHARES.flip(0))
    assert (first - other).abs().max() > 1e-3
    torch.testing.assert_close(logits(model, features, UNKNOWN), logits(model, features))


def test_images_of_a_batch_do_not_touch_each_other(base, features, kind):
    model = disturbed(attach(base, config(kind), n_classes=3))
    both = logits(model, features, SHARES)
    alone = logits(model, features[1:], SHARES[1:])
    torch.testing.assert_close(both[1:], alone, atol=1e-3, rtol=1e-4)


def test_global_is_a_map_that_knows_no_image(base, features):
    """As published: 0.7 of the embedding, and 0.3 of a linear map of the shares."""
    encoder = build_ratio_encoder("global", 3, base.prompt_encoder)
    with torch.inference_mode():
        found, prompts = encoder(features, SHARES)
        added = found - 0.7 * features
        other = encoder(features.flip(0), SHARES)[0] - 0.7 * features.flip(0)
        wanted = SHARES @ encoder.maps.weight.T + encoder.maps.bias
    assert prompts is None
    torch.testing.assert_close(added, other, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(added.flatten(1), 0.3 * wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["spatial", "located"])
def test_the_others_put_it_where_the_image_says(base, features, kind):
    encoder = build_ratio_encoder(kind, 3, base.prompt_encoder)
    if kind == "located":
        torch.nn.init.normal_(encoder.mix.weight)
    with torch.inference_mode():
        one = encoder(features, SHARES)[0] - encoder(features, SHARES.flip(0))[0]
        other = features.flip(0)
        two = encoder(other, SHARES)[0] - encoder(other, SHARES.flip(0))[0]
    assert (one - two).abs().max() > 0.01 * one.abs().max()


def test_located_is_told_errors_and_knows_the_unknown(base, features):
    model = disturbed(attach(base, config("located"), n_classes=3))
    exact = logits(model, features, SHARES)
    unsure = logits(model, features, SHARES, torch.full((2, 3), 0.1))
    assert (exact - unsure).abs().max() > 1e-3
    partly = SHARES.clone()
    partly[:, 1] = torch.nan
    absent = SHARES.clone()
    absent[:, 1] = 0
    found = logits(model, features, partly)
    assert torch.isfinite(found).all()
    assert (found - logits(model, features, absent)).abs().max() > 1e-3
    # An unknown share has no error.
    told = torch.full((2, 3), 0.0)
    told[:, 1] = 0.3
    torch.testing.assert_close(logits(model, features, partly, told), found)


def test_located_learns_to_hear_within_a_few_steps(base, features):
    """What all views agree on: there is more of a phase where its share is larger."""
    torch.manual_seed(0)
    encoder = build_ratio_encoder("located", 3, base.prompt_encoder)
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    draw = torch.Generator().manual_seed(2)
    towards = torch.randn((3, 64, 1, 1), generator=draw)
    losses = []
    for _ in range(40):
        shares = torch.distributions.Dirichlet(torch.ones(3)).sample((2,))
        wanted = torch.einsum("bk,kchw->bchw", shares - 1 / 3, towards)
        found, prompts = encoder(features, shares)
        # The prompts are to say it, too.
        losses.append(
            (found - features - wanted).square().mean() / wanted.square().mean()
            + (prompts.mean(1) - encoder.neutral.mean(0) - wanted[..., 0, 0]).square().mean()
            / wanted.square().mean()
        )
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    first, last = (
        sum(float(x.detach()) for x in part) / 10 for part in (losses[:10], losses[-10:])
    )
    assert last < 0.5 * first


def test_gradients_reach_everything(base, features, kind):
    model = disturbed(attach(base, config(kind, boxes=True), n_classes=3))
    partly = SHARES.clone()
    partly[0, 0] = torch.nan
    boxes = torch.full((2, 3, 4), torch.nan)
    boxes[0, 1] = torch.tensor([10.0, 20.0, 300.0, 400.0])
    found = class_logits(model, features, hints=ClassHints(partly, None, boxes))
    torch.nn.functional.cross_entropy(
        found, torch.zeros((2, 256, 256), dtype=torch.long)
    ).backward()
    for name, parameter in model.class_decoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_save_and_load(base, features, tmp_path, kind):
    model = disturbed(attach(base, config(kind, boxes=True), n_classes=3))
    card = AdapterCard(
        config(kind, boxes=True), "tiny", weights_hash(base), "semantic", ("a", "b", "c")
    )
    save_adapter(model, card, tmp_path / "a.safetensors")
    again, found = load_trainable(base, tmp_path / "a.safetensors")
    assert found == card
    torch.testing.assert_close(
        logits(again.eval(), features, SHARES), logits(model, features, SHARES), atol=0, rtol=0
    )


def test_prompts_on_the_same_weights_know_nothing_of_it(base, kind):
    """What is added is for class maps alone."""
    names = {n for n, p in attach(base, config(kind), n_classes=3).named_parameters()}
    plain = {n for n, p in attach(base, config(), n_classes=3).named_parameters()}
    assert plain < names
    assert all(name.startswith("class_decoder.ratio.") for name in names - plain)


def test_what_is_not_known_is_refused(base, features):
    plain = attach(base, config(), n_classes=3)
    with pytest.raises(InvalidSettingError, match="trained without phase fractions"):
        logits(plain, features, SHARES)
    with pytest.raises(InvalidSettingError, match="trained without boxes"):
        logits(plain, features, boxes=torch.zeros(2, 3, 4))
    model = attach(base, config("global", boxes=True), n_classes=3)
    with pytest.raises(InvalidSettingError, match=r"2 images and 3 phases, got \(2, 2\)"):
        logits(model, features, SHARES[:, :2])
    with pytest.raises(InvalidSettingError, match=r"box for each of 3 classes of 2 images"):
        logits(model, features, boxes=torch.zeros(2, 4))
    with pytest.raises(InvalidSettingError, match="global, spatial, located, got 'x'"):
        build_ratio_encoder("x", 3, base.prompt_encoder)


def test_boxes_are_embedded_as_sam_does(base):
    model = attach(base, config(boxes=True), n_classes=3)
    boxes = torch.full((2, 3, 4), torch.nan)
    boxes[0, 1] = torch.tensor([10.0, 20.0, 300.0, 400.0])
    boxes[1, 2] = torch.tensor([0.0, 5.0, 1023.0, 900.0])
    with torch.inference_mode():
        found = model.class_decoder.boxes(base.prompt_encoder, boxes, 2)
        for image, number in ((0, 1), (1, 2)):
            wanted, _ = base.prompt_encoder(
                points=None, boxes=boxes[image, number][None], masks=None
            )
            torch.testing.assert_close(found[image, 2 * number : 2 * number + 2], wanted[0])
        none = base.prompt_encoder.not_a_point_embed.weight.expand(2, -1)
        torch.testing.assert_close(found[0, :2], none)


def test_coordinates():
    found = coordinates(5)
    assert found.shape == (3, 5, 5)
    assert found[0, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert found[1, :, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert (found[2, 2, 2], found.min(), found[0].max()) == (-1, -1, 1)

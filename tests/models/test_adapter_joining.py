"""An adapter on an adapter: in memory, and made into one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from phasesam.core.errors import CheckpointError
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapter_joining import join
from phasesam.models.adapter_loading import AdapterVersion, fingerprint_of
from phasesam.models.adapter_store import content_hash, import_adapter
from phasesam.models.adapters import (
    AdapterCard,
    adapter_tensors,
    attach,
    load_trainable,
    save_adapter,
)
from phasesam.models.manager import ModelManager
from phasesam.models.mask_decoder import MultiPromptDecoder
from phasesam.models.model_spec import ModelSpec
from phasesam.models.sam import build_model

UPPER = AdapterConfig(encoder=(), rank=3, decoder_rank=3, alpha=5)
LOWER = {
    "encoder only": AdapterConfig(rank=2, decoder="none"),
    "both": AdapterConfig(rank=2, decoder_rank=4, alpha=7, rslora=False),
    "query and value": AdapterConfig(encoder=("qv",), rank=2, decoder="none", iou_head=True),
    "Conv-LoRA": AdapterConfig(method="conv_lora", rank=2, decoder_rank=2),
    "decoder whole": AdapterConfig(encoder=(), decoder="full"),
}
SPECS = {
    "tiny": "tiny",
    "tiny_hq": ModelSpec(name="tiny_hq", title="Tiny HQ", architecture="tiny", decoder="hq"),
}


@pytest.fixture(autouse=True)
def _store(tmp_path, monkeypatch):
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def manager():
    manager = ModelManager(
        device="cpu", builder=lambda spec, **callbacks: build_model(spec), find_spec=SPECS.get
    )
    yield manager
    assert [model for model in manager.resident() if model.leases] == []
    manager.unload_all()


def write(base, config, path, seed=0, classes=()):
    """Save an adapter that visibly changes a leased model."""
    model = attach(base, config, len(classes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in adapter_tensors(model, config).values():
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    task = "semantic" if classes else "promptable"
    card = AdapterCard(config, base.spec.name, fingerprint_of(base), task, tuple(classes))
    save_adapter(model, card, path)
    return path


@pytest.fixture
def stacked(manager, tmp_path):
    """Put `UPPER` on another adapter in the store: returns the version."""

    def make(config, strength=1.0, model="tiny", classes=()):
        with manager.lease(model) as base:
            import_adapter(write(base, config, tmp_path / "l.safetensors", 1, classes), "below")
        manager.set_strength(model, "below", strength)
        lower = manager.adapter_version(model, "below")
        with manager.lease(model, lower) as below:
            path = write(below, UPPER, tmp_path / "upper.safetensors", seed=2)
        return AdapterVersion("upper", path, content_hash(path), changes_encoder=False, under=lower)

    return make


def answer(model):
    """Logits and scores of a click on a fixed picture, from pixels on."""
    generator = torch.Generator().manual_seed(3)
    picture = torch.randn(1, 3, 1024, 1024, generator=generator)
    point = (torch.tensor([[[300.0, 400.0]]]), torch.ones(1, 1))
    with torch.inference_mode():
        encoded = model.encode(picture)
        sparse, _ = model.prompt_encoder(points=point, boxes=None, masks=None)
        decoder = MultiPromptDecoder(model)
        context = decoder.context(encoded.features, encoded.intermediate)
        hidden, keys, scores = decoder.tokens(context, sparse)
        return torch.cat([decoder.masks(context, hidden, keys, (0, 1, 2, 3)).flatten(), scores[0]])


def difference(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", LOWER)
def test_joined_is_one_on_the_other(manager, stacked, tmp_path, kind):
    version = stacked(LOWER[kind], strength=0.6)
    with manager.lease("tiny", version) as model, manager.lease("tiny", version.under) as below:
        expected = answer(model)
        assert difference(expected, answer(below)) > 1e-3
    with manager.lease("tiny") as base:
        joined, card = join(base, version.under, version)
        save_adapter(joined, card, tmp_path / "joined.safetensors")
    with manager.lease("tiny", tmp_path / "joined.safetensors") as model:
        assert difference(answer(model), expected) < 1e-5


def test_joined_on_sam_hq_and_with_classes(manager, stacked, tmp_path):
    config = AdapterConfig(rank=2, decoder_rank=2, hq="lora")
    version = stacked(config, model="tiny_hq", classes=("matrix", "pore"))
    with manager.lease("tiny_hq", version) as model:
        expected = answer(model)
    with manager.lease("tiny_hq") as base:
        joined, card = join(base, version.under, version)
        assert card.classes == ("matrix", "pore")
        save_adapter(joined, card, tmp_path / "joined.safetensors")
    with manager.lease("tiny_hq", tmp_path / "joined.safetensors") as model:
        assert model.class_decoder is not None
        assert difference(answer(model), expected) < 1e-5


def test_only_lora_on_the_decoder_is_joined(manager, stacked):
    version = stacked(LOWER["both"])
    with manager.lease("tiny") as base, pytest.raises(CheckpointError, match="decoder only"):
        join(base, version.under, replace(version, path=version.under.path))


def test_what_is_put_on_conv_lora_is_the_decoder_alone(manager, stacked):
    version = stacked(LOWER["Conv-LoRA"])
    with manager.lease("tiny", version.under) as below:
        model, _ = load_trainable(below, version.path)
        names = adapter_tensors(model, UPPER)
        assert all(name.startswith("mask_decoder.") for name in names)
        trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
        assert len(trained) == len(names)


def test_embeddings_are_those_of_the_adapter_below(manager, stacked):
    version = stacked(LOWER["both"])
    assert version.embedding_key == version.under.embedding_key is not None
    alone = replace(version, under=None)
    assert alone.embedding_key is None
    both = replace(version, changes_encoder=True)
    assert both.embedding_key not in (version.embedding_key, alone.embedding_key, None)
    assert both.embedding_key != replace(both, under=None).embedding_key


def test_it_leaves_with_the_adapter_below(manager, stacked, tmp_path):
    """An adapter trained again takes what was put on its former content with it."""
    version = stacked(LOWER["both"])
    manager.load("tiny", version)
    assert [m.adapter for m in manager.resident()] == [None, "below", "upper"]
    with manager.lease("tiny") as base:
        path = write(base, LOWER["both"], tmp_path / "again.safetensors", seed=5)
    import_adapter(path, "below", replace=True)
    manager.load("tiny", "below")
    assert [m.adapter for m in manager.resident()] == [None, "below"]
    manager.unload("tiny", "below")
    assert [m.adapter for m in manager.resident()] == [None]


def test_it_leaves_when_the_strength_below_changes(manager, stacked):
    version = stacked(LOWER["both"])
    manager.load("tiny", version)
    manager.set_strength("tiny", "below", 0.3)
    assert [m.adapter for m in manager.resident()] == [None]


def test_unloading_the_adapter_below_unloads_both(manager, stacked):
    version = stacked(LOWER["both"])
    manager.load("tiny", version)
    assert manager.unload("tiny", "below") > 0
    assert [m.adapter for m in manager.resident()] == [None]


def test_an_adapter_that_was_written_since_is_not_joined(manager, stacked, tmp_path):
    version = stacked(LOWER["both"])
    with manager.lease("tiny") as leased:
        write(leased, LOWER["both"], version.under.path, seed=9)
        with pytest.raises(CheckpointError, match="was written since it was chosen"):
            join(leased, version.under, version)

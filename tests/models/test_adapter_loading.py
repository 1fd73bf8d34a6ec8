from __future__ import annotations

import threading

import pytest
import torch

from phasesam.core.errors import CheckpointError, InvalidSettingError, UnknownModelError
from phasesam.models import adapter_store, memory
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapter_loading import AdapterVersion, load_adapter
from phasesam.models.adapter_store import get_adapter, import_adapter, remove_adapter
from phasesam.models.adapters import (
    AdapterCard,
    adapter_tensors,
    attach,
    load_trainable,
    save_adapter,
    weights_hash,
)
from phasesam.models.manager import ModelManager
from phasesam.models.mask_decoder import MultiPromptDecoder
from phasesam.models.registry import get_spec
from phasesam.models.sam import build_model

CONFIG = AdapterConfig(rank=2, decoder_rank=2)


@pytest.fixture(autouse=True)
def _store(tmp_path, monkeypatch):
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def base():
    return build_model("tiny")


@pytest.fixture
def trained(base, tmp_path):
    """Make an adapter of the tiny model in the store: ``trained(name, seed=0, config=...)``."""

    def train(name, seed=0, config=CONFIG, base_hash=None):
        model = attach(base, config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for tensor in adapter_tensors(model, config).values():
                tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
        path = tmp_path / f"{name}-{seed}.safetensors"
        save_adapter(model, AdapterCard(config, "tiny", base_hash or weights_hash(base)), path)
        return import_adapter(path, name, replace=True).path

    return train


@pytest.fixture
def builds():
    return []


@pytest.fixture
def manager(builds):
    def build(spec, **callbacks):
        builds.append(spec.name)
        return build_model(spec)

    manager = ModelManager(device="cpu", builder=build)
    yield manager
    assert [model for model in manager.resident() if model.leases] == []
    manager.unload_all()


def decode(model):
    """Logits of two clicks on a fixed embedding, as prompts and automatic masks ask for them."""
    features = torch.randn(1, 64, 64, 64, generator=torch.Generator().manual_seed(3))
    points = (torch.tensor([[[300.0, 400.0]], [[10.0, 900.0]]]), torch.ones(2, 1))
    with torch.inference_mode():
        sparse, _ = model.prompt_encoder(points=points, boxes=None, masks=None)
        decoder = MultiPromptDecoder(model)
        context = decoder.context(features)
        hidden, keys, scores = decoder.tokens(context, sparse)
        return torch.cat([decoder.masks(context, hidden, keys, (1, 2, 3)).flatten(1), scores], 1)


def close(found, expected):
    return bool((found - expected).norm() < 1e-5 * expected.norm())


def test_decoder_lora_acts_on_the_fast_decoder(manager, trained, base):
    """It reads weights itself, so that LoRA layers beside them would go unnoticed."""
    path = trained("powder")
    slow = load_trainable(base, path)[0].eval()
    points = (torch.tensor([[[300.0, 400.0]]]), torch.ones(1, 1))
    features = torch.randn(1, 64, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        sparse, dense = slow.prompt_encoder(points=points, boxes=None, masks=None)
        expected, scores = slow.mask_decoder(
            image_embeddings=features,
            image_pe=slow.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
    with manager.lease("tiny", "powder") as model:
        found = decode(model)[0]
    assert close(found[: expected.numel()], expected.flatten())
    torch.testing.assert_close(found[-3:], scores[0], atol=1e-5, rtol=1e-5)
    assert not close(found, decode(base)[0])


def test_several_on_one_base(manager, trained, builds):
    """Their other weights are those of the base, and switching loads nothing anew."""
    for seed, name in enumerate(("powder", "pores", "steel")):
        trained(name, seed)
    with manager.lease("tiny") as plain:
        shared = memory.storages(plain)
        total = memory.module_bytes(plain)
        results = [decode(plain)]
        for name in ("powder", "pores", "steel"):
            with manager.lease("tiny", name) as model:
                own = set(memory.storages(model)) - set(shared)
                assert len(set(memory.storages(model)) & set(shared)) > len(own)
                assert model.image_encoder.patch_embed.proj.weight is (
                    plain.image_encoder.patch_embed.proj.weight
                )
                results.append(decode(model))
    sizes = {model.adapter: model.bytes for model in manager.resident()}
    assert set(sizes) == {None, "powder", "pores", "steel"}
    assert all(0 < sizes[name] < 0.5 * total for name in ("powder", "pores", "steel"))
    for name, expected in zip((None, "powder", "pores", "steel") * 3, results * 3, strict=True):
        with manager.lease("tiny", name) as model:
            assert torch.equal(decode(model), expected)
    assert len({tuple(result[0, :8].tolist()) for result in results}) == 4
    assert builds == ["tiny"]
    assert manager.unload("tiny", "pores") == sizes["pores"]
    with manager.lease("tiny", "powder") as model:
        assert torch.equal(decode(model), results[1])


def test_strength(manager, trained, base, builds):
    trained("powder")
    with manager.lease("tiny", "powder") as model:
        whole = decode(model)
    assert manager.adapter_strength("tiny", "powder") == 1
    manager.set_strength("tiny", "powder", 0)
    with manager.lease("tiny", "powder") as model:
        assert torch.equal(decode(model), decode(base))
    manager.set_strength("tiny", "powder", 0.5)
    with manager.lease("tiny", "powder") as model:
        half = decode(model)
    assert not close(half, whole)
    assert not close(half, decode(base))
    assert [(m.adapter, m.strength) for m in manager.resident()] == [(None, 1.0), ("powder", 0.5)]
    manager.set_strength("tiny", "powder", 1)
    with manager.lease("tiny", "powder") as model:
        assert torch.equal(decode(model), whole)
    assert builds == ["tiny"]
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidSettingError, match="within 0–1"):
            manager.set_strength("tiny", "powder", wrong)


def test_a_computation_ends_with_the_strength_it_began_with(manager, trained):
    trained("powder")
    with manager.lease("tiny", "powder") as old:
        before = decode(old)
        manager.set_strength("tiny", "powder", 0.3)
        assert torch.equal(decode(old), before)
        with manager.lease("tiny", "powder") as new:
            assert new is not old
        leaving = {m.strength: m.leaving for m in manager.resident() if m.adapter}
        assert leaving == {1.0: True, 0.3: False}
    assert [m.strength for m in manager.resident() if m.adapter] == [0.3]


def test_strengths_belong_to_one_base(manager, trained):
    path = trained("powder")
    manager.set_strength("tiny", path, 0.25)
    assert manager.adapter_strength("tiny", "powder") == 0.25
    assert manager.adapter_strength("mobile_sam", "powder") == 1


def test_trained_again_under_the_same_name(manager, trained, builds):
    path = trained("powder", seed=1)
    with manager.lease("tiny", "powder") as first:
        old = decode(first)
        pinned = manager.adapter_version("tiny", "powder")
        assert trained("powder", seed=2) == path
        with manager.lease("tiny", "powder") as second:
            new = decode(second)
        assert not close(new, old)
        # Who holds the old one goes on with it.
        assert torch.equal(decode(first), old)
        with manager.lease("tiny", pinned) as third:
            assert third is first
    assert [m.adapter for m in manager.resident()] == [None, "powder"]
    assert first.mask_decoder.transformer.layers[0].self_attn.q_proj.weight.is_meta
    assert builds == ["tiny"]
    with pytest.raises(CheckpointError, match="written while it was being loaded"):
        manager.load("tiny", pinned)


def test_the_same_content_under_two_names_is_encoded_once(manager, trained):
    trained("powder")
    import_adapter(get_adapter("powder").path, "copy")
    one, two = (manager.adapter_version("tiny", name) for name in ("powder", "copy"))
    assert one.embedding_key == two.embedding_key != None  # noqa: E711


def test_embeddings_of_the_base(manager, trained):
    """An adapter that leaves the encoder alone, or does not act, needs none of its own."""
    trained("decoder", config=AdapterConfig(encoder=(), decoder_rank=2))
    assert manager.adapter_version("tiny", "decoder").embedding_key is None
    trained("powder")
    assert "@1.0" in manager.adapter_version("tiny", "powder").embedding_key
    manager.set_strength("tiny", "powder", 0)
    assert manager.adapter_version("tiny", "powder").embedding_key is None


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [("powder", CheckpointError, "made for other weights: it names tiny"),
     ("gone", UnknownModelError, "no adapter 'gone'")],
)  # fmt: skip
def test_what_does_not_fit(manager, trained, name, error, message):
    trained("powder", base_hash="0" * 64)
    with pytest.raises(error, match=message):
        manager.load("tiny", name)
    # The base is there, idle, and can be used.
    assert [m.leases for m in manager.resident()] in ([], [0])
    with manager.lease("tiny") as model:
        decode(model)


def test_names_and_paths_mean_the_same(manager, trained, tmp_path, monkeypatch):
    path = trained("powder")
    monkeypatch.chdir(path.parent)
    for adapter in ("powder", path, str(path), path.name):
        with manager.lease("tiny", adapter) as model:
            decode(model)
    loaded = {m.adapter for m in manager.resident() if m.adapter}
    assert loaded == {"powder", str(path)}
    assert manager.unload("tiny", path) > 0
    assert {m.adapter for m in manager.resident()} == {None}


def test_removed_from_the_store(manager, trained):
    trained("powder")
    manager.load("tiny", "powder")
    remove_adapter("powder")
    assert manager.unload("tiny", "powder") > 0
    with pytest.raises(UnknownModelError):
        manager.load("tiny", "powder")


def test_loading_in_inference_mode_and_by_many_threads(manager, trained):
    trained("powder")
    trained("pores", seed=1)
    expected = {}
    for name in ("powder", "pores"):
        with manager.lease("tiny", name) as model:
            expected[name] = decode(model)
    manager.unload_all()
    faults = []

    def work(name):
        with torch.inference_mode():
            for _ in range(3):
                with manager.lease("tiny", name) as model:
                    if any(p.is_inference() for p in model.parameters()):
                        faults.append("inference tensors")
                    if not torch.equal(manager.retry(lambda m=model: decode(m)), expected[name]):
                        faults.append(name)
                manager.unload("tiny", name)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("powder", "pores") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_strength_moves_while_others_compute(manager, trained):
    """Whatever a lease gets, it is one strength, whole and unchanging."""
    trained("powder")
    strengths = (0.0, 0.5, 1.0)
    expected = []
    for strength in strengths:
        manager.set_strength("tiny", "powder", strength)
        with manager.lease("tiny", "powder") as model:
            expected.append(decode(model))
    ended = threading.Event()
    faults, looks = [], []

    def look():
        while not ended.is_set():
            with manager.lease("tiny", "powder") as model:
                first, second = decode(model), decode(model)
            looks.append(next((i for i, e in enumerate(expected) if torch.equal(first, e)), -1))
            if looks[-1] < 0 or not torch.equal(first, second):
                faults.append(looks[-1])

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for step in range(12):
        manager.set_strength("tiny", "powder", strengths[step % 3])
        seen = len(looks)
        while len(looks) < seen + 2 and all(thread.is_alive() for thread in threads):
            ended.wait(0.001)
    ended.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert set(looks) == {0, 1, 2}
    manager.set_strength("tiny", "powder", 1)
    assert len([m for m in manager.resident() if m.adapter]) <= 1


def test_a_base_is_fingerprinted_once(base, trained, monkeypatch):
    calls = []
    real = weights_hash
    monkeypatch.setattr(
        "phasesam.models.adapters.weights_hash", lambda model: calls.append(1) or real(model)
    )
    fresh = build_model(get_spec("tiny"))
    for seed, name in enumerate(("powder", "pores")):
        path = trained(name, seed)
        version = AdapterVersion(name, path, adapter_store.content_hash(path))
        load_adapter(fresh, version)
    assert len(calls) == 1


def test_a_version_keeps_its_card(manager, make_adapter, tmp_path):
    path = make_adapter(tmp_path / "a.safetensors", classes=("a", "b"), window=48)
    version = manager.adapter_version("tiny", path)
    make_adapter(path, classes=("x", "y", "z"), window=40, seed=1)
    assert version.card.classes == ("a", "b")
    assert version.card.window == 48
    assert manager.adapter_version("tiny", path).card.classes == ("x", "y", "z")
    unread = AdapterVersion("a", path, "0" * 64)
    with pytest.raises(CheckpointError, match="was written since it was chosen"):
        _ = unread.card

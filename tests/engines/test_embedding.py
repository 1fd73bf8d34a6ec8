from __future__ import annotations

import numpy as np
import pytest
import torch

from phasesam.core.coordinates import resize_image_longest_side
from phasesam.core.errors import CancelledError, UnknownModelError
from phasesam.engines import embedding_cache
from phasesam.engines.embedding import embed, encode, fingerprint, is_embedded
from phasesam.engines.embedding_cache import EmbeddingCache
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.manager import ModelManager
from phasesam.models.registry import get_spec
from phasesam.models.sam import SamModel


@pytest.fixture
def rgb(micrograph):
    return np.repeat(micrograph.image[:60, :90, None], 3, axis=2)


@pytest.fixture
def encoded(monkeypatch):
    """Shapes of everything that is encoded from now on."""
    seen, original = [], SamModel.encode

    def encode(self, x):
        seen.append(tuple(x.shape))
        return original(self, x)

    monkeypatch.setattr(SamModel, "encode", encode)
    return seen


def leases(manager):
    return sum(model.leases for model in manager.resident())


def test_encodes_what_the_model_sees(manager, rgb):
    with manager.lease("tiny") as model:
        features, intermediate, input_size = encode(model, rgb, manager)
        resized = resize_image_longest_side(rgb)
        with torch.inference_mode():
            expected = model.encode(model.preprocess(resized)).features
    assert input_size == resized.shape[:2] == (683, 1024)
    assert intermediate == ()
    assert features.dtype == torch.float32
    assert torch.allclose(features, expected, atol=1e-5)


@pytest.mark.usefixtures("fresh_cache")
def test_embeds_once(manager, rgb, encoded):
    arguments = {"model": "tiny", "adapter": None, "manager": manager}
    assert not is_embedded(rgb, **arguments)
    first = embed(rgb, **arguments)
    assert is_embedded(rgb, **arguments)
    assert embed(rgb.copy(), **arguments) is first
    assert encoded == [(1, 3, 1024, 1024)]
    assert first.image_shape == (60, 90)
    assert first.input_size == (683, 1024)
    assert first.features.device.type == "cpu"
    # Inference tensors could not be used for training later.
    assert not first.features.is_inference()


@pytest.mark.usefixtures("fresh_cache")
def test_another_picture_or_precision_is_another_embedding(manager, rgb, encoded):
    embed(rgb, model="tiny", adapter=None, manager=manager)
    brighter = rgb + np.uint8(1)
    assert not is_embedded(brighter, "tiny", None, manager)
    assert not is_embedded(rgb, "mobile_sam", None, manager)
    other = ModelManager(device="cpu", precision="bf16")
    assert not is_embedded(rgb, "tiny", None, other)
    assert is_embedded(rgb, "tiny", None, ModelManager(device="cpu", precision="fp32"))
    embed(brighter, model="tiny", adapter=None, manager=manager)
    assert len(encoded) == 2


@pytest.mark.usefixtures("fresh_cache")
def test_half_precision_is_close_and_comes_in_fp32(manager, rgb):
    exact = embed(rgb, model="tiny", adapter=None, manager=manager)
    other = ModelManager(device="cpu", precision="bf16")
    rough = embed(rgb, model="tiny", adapter=None, manager=other)
    assert rough.key.precision == "bfloat16"
    assert rough.features.dtype == torch.float32
    error = (rough.features - exact.features).norm() / exact.features.norm()
    assert 1e-5 < float(error) < 0.05


@pytest.mark.usefixtures("fresh_cache")
@pytest.mark.parametrize("asked", [1, 2, 3])
def test_stops_before_it_encodes(manager, rgb, encoded, asked):
    count = 0

    def should_stop():
        nonlocal count
        count += 1
        return count >= asked

    with pytest.raises(CancelledError):
        embed(rgb, model="tiny", adapter=None, manager=manager, should_stop=should_stop)
    assert encoded == []
    assert leases(manager) == 0
    assert not is_embedded(rgb, "tiny", None, manager)


@pytest.mark.usefixtures("fresh_cache")
def test_a_failure_leaves_nothing_behind(manager, rgb, monkeypatch):
    def fail(self, x):
        raise ValueError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(SamModel, "encode", fail)
        with pytest.raises(ValueError, match="broken"):
            embed(rgb, model="tiny", adapter=None, manager=manager)
    assert leases(manager) == 0
    assert embed(rgb, model="tiny", adapter=None, manager=manager).image_shape == (60, 90)


def test_fingerprint_tells_weights_apart():
    assert fingerprint("mobile_sam") == get_spec("mobile_sam").sha256
    assert fingerprint("tiny") == "tiny"
    assert fingerprint("sam_vit_b") != fingerprint("sam_vit_l")
    with pytest.raises(UnknownModelError, match="there is no model 'sam_vit_x'"):
        fingerprint("sam_vit_x")


@pytest.mark.usefixtures("fresh_cache")
class TestAdapters:
    """An embedding belongs to the content and the strength of an adapter, not to its name."""

    @pytest.fixture
    def path(self, tmp_path, make_adapter):
        return make_adapter(tmp_path / "powder.safetensors")

    def test_by_content_and_strength(self, manager, rgb, path, encoded):
        plain = embed(rgb, model="tiny", adapter=None, manager=manager)
        whole = embed(rgb, model="tiny", adapter=path, manager=manager)
        assert not torch.allclose(whole.features, plain.features, atol=1e-3)
        manager.set_strength("tiny", path, 0.5)
        assert not is_embedded(rgb, "tiny", path, manager)
        half = embed(rgb, model="tiny", adapter=path, manager=manager)
        assert not torch.allclose(half.features, whole.features, atol=1e-3)
        copy = path.with_name("other name.safetensors")
        copy.write_bytes(path.read_bytes())
        assert embed(rgb, model="tiny", adapter=copy, manager=manager) is whole
        manager.set_strength("tiny", path, 1)
        assert embed(rgb, model="tiny", adapter=path, manager=manager) is whole
        assert len(encoded) == 3

    def test_at_strength_zero_it_is_that_of_the_base(self, manager, rgb, path, encoded):
        manager.set_strength("tiny", path, 0)
        zero = embed(rgb, model="tiny", adapter=path, manager=manager)
        assert embed(rgb, model="tiny", adapter=None, manager=manager) is zero
        assert len(encoded) == 1

    def test_decoder_only(self, manager, rgb, tmp_path, make_adapter, encoded):
        config = AdapterConfig(encoder=(), decoder_rank=2)
        path = make_adapter(tmp_path / "decoder.safetensors", config=config)
        plain = embed(rgb, model="tiny", adapter=None, manager=manager)
        assert embed(rgb, model="tiny", adapter=path, manager=manager) is plain
        assert len(encoded) == 1

    def test_trained_again(self, manager, rgb, path, make_adapter, encoded):
        old = embed(rgb, model="tiny", adapter=path, manager=manager)
        make_adapter(path, seed=1)
        assert not is_embedded(rgb, "tiny", path, manager)
        new = embed(rgb, model="tiny", adapter=path, manager=manager)
        assert not torch.allclose(new.features, old.features, atol=1e-3)
        assert len(encoded) == 2

    def test_on_disk_too(self, manager, rgb, path, make_adapter, tmp_path, monkeypatch, encoded):
        folder = tmp_path / "embeddings"
        keys = []
        for seed in (0, 1):
            monkeypatch.setattr(embedding_cache, "_cache", EmbeddingCache(folder=folder))
            make_adapter(path, seed=seed)
            keys.append(embed(rgb, model="tiny", adapter=path, manager=manager).key)
        assert keys[0] != keys[1]
        monkeypatch.setattr(embedding_cache, "_cache", EmbeddingCache(folder=folder))
        assert embed(rgb, model="tiny", adapter=path, manager=manager).key == keys[1]
        assert len(encoded) == 2

"""Learning while annotating, with the tiny model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from phasesam.core.errors import CancelledError, InvalidSettingError
from phasesam.core.mask_set import MaskCrop
from phasesam.engines import embedding_cache
from phasesam.engines.embedding_cache import Embedding, EmbeddingCache, EmbeddingKey
from phasesam.engines.segmenter import Segmenter
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapter_store import get_adapter, import_adapter
from phasesam.models.manager import ModelManager
from phasesam.models.model_spec import ModelSpec
from phasesam.models.sam import build_model
from phasesam.training.annotation_examples import on_frame, targets_of
from phasesam.training.annotation_history import Example, LearningConfig, LearntState
from phasesam.training.annotation_learner import AnnotationLearner
from phasesam.training.prompt_rounds import choose_objects
from phasesam.training.views import plain_view

QUICK = LearningConfig(steps=2, learning_rate=2e-3, replayed=1)
HQ = ModelSpec(name="tiny_hq", title="Tiny HQ", architecture="tiny", decoder="hq")


def disc_image(seed: int = 0) -> tuple[NDArray[np.uint8], list[MaskCrop]]:
    """Bright discs on a dark ground, and their masks."""
    rng = np.random.default_rng(seed)
    image = np.full((96, 128), 60, np.uint8)
    y, x = np.mgrid[:96, :128]
    masks = []
    for cy, cx in ((24, 30), (24, 90), (70, 30), (70, 90)):
        disc = (y - cy) ** 2 + (x - cx) ** 2 <= rng.integers(8, 16) ** 2
        image[disc] = 180
        masks.append(MaskCrop.from_array(disc))
    return image, masks


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch: pytest.MonkeyPatch) -> EmbeddingCache:
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))
    cache = EmbeddingCache()
    monkeypatch.setattr(embedding_cache, "_cache", cache)
    return cache


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def manager() -> Iterator[ModelManager]:
    manager = ModelManager(device="cpu", precision="fp32")
    yield manager
    assert [model.leases for model in manager.resident() if model.leases] == []
    manager.unload_all()


@pytest.fixture(scope="module")
def embeddings() -> dict[int, Embedding]:
    """What was encoded already, by seed."""
    return {}


@pytest.fixture
def scene(
    manager: ModelManager, cache: EmbeddingCache, embeddings: dict[int, Embedding]
) -> Callable[..., tuple[Segmenter, Embedding, list[MaskCrop]]]:
    def make(seed: int = 0) -> tuple[Segmenter, Embedding, list[MaskCrop]]:
        image, masks = disc_image(seed)
        segmenter = Segmenter(image, "tiny", manager=manager)
        if seed in embeddings:
            cache.put(embeddings[seed])
        embeddings[seed] = segmenter.encode()
        return segmenter, embeddings[seed], masks

    return make


def learner_of(manager: ModelManager, config: LearningConfig = QUICK) -> AnnotationLearner:
    return AnnotationLearner("tiny", None, config, manager)


def present(learner: AnnotationLearner) -> LearntState:
    state = learner.history.present
    assert state is not None
    return state


def answer(segmenter: Segmenter, learner: AnnotationLearner) -> NDArray[np.float32]:
    logits = segmenter.with_adapter(learner.version).predict(points=[(24, 30)]).logits
    assert logits is not None
    return logits


def test_loss_falls(manager, scene) -> None:
    _, embedding, masks = scene()
    learner = learner_of(manager, replace(QUICK, steps=5))
    assert learner.add(embedding, masks[0])
    first = present(learner).losses
    assert len(first) <= 6
    assert min(first) < 0.98 * first[0]
    assert learner.add(embedding, masks[0])
    assert present(learner).losses[0] < 0.98 * first[0]
    assert present(learner).count == 2


def test_answers_come_closer_to_the_masks_that_were_added(manager, scene) -> None:
    """Also on an object that nothing was learnt from."""
    segmenter, embedding, masks = scene()
    learner = learner_of(manager, replace(QUICK, steps=6, learning_rate=1e-2))
    for mask in masks[:3]:
        learner.add(embedding, mask)

    def error(version) -> float:
        logits = segmenter.with_adapter(version).predict(points=[(70, 90)]).logits
        truth = targets_of([Example.of(embedding, masks[3])])[0].masks[0, :192].numpy()
        return float(np.abs(1 / (1 + np.exp(-logits[:, :192])) - truth).mean((1, 2)).min())

    assert error(learner.version) < 0.7 * error(None)


def test_undo_is_exact(manager, scene) -> None:
    segmenter, embedding, masks = scene()
    learner = learner_of(manager)
    plain = answer(segmenter, learner)
    answers, states = [plain], [None]
    for mask in masks[:3]:
        learner.add(embedding, mask)
        states.append(present(learner))
        answers.append(answer(segmenter, learner))
    assert len({a.tobytes() for a in answers}) == 4
    weights = {name: tensor.clone() for name, tensor in states[1].weights.items()}
    for step in (2, 1, 0):
        assert learner.history.undo()
        assert learner.history.present is states[step]
        np.testing.assert_array_equal(answer(segmenter, learner), answers[step])
    assert learner.version is None
    assert not learner.history.undo()
    for step in (1, 2, 3):
        assert learner.history.redo()
        np.testing.assert_array_equal(answer(segmenter, learner), answers[step])
    assert not learner.history.redo()
    assert all(torch.equal(weights[name], t) for name, t in states[1].weights.items())


def test_going_on_after_undo_is_as_if_it_had_not_been(manager, scene) -> None:
    _, embedding, masks = scene()
    straight, detour = learner_of(manager), learner_of(manager)
    straight.add(embedding, masks[0])
    straight.add(embedding, masks[2])
    detour.add(embedding, masks[0])
    detour.add(embedding, masks[1])
    detour.history.undo()
    detour.add(embedding, masks[2])
    assert not detour.history.undone
    one, two = present(straight), present(detour)
    assert one.losses == two.losses
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)
    assert one.version.content_hash == two.version.content_hash


def test_memory_is_bounded(manager, scene) -> None:
    _, embedding, masks = scene()
    config = replace(QUICK, steps=1, kept=3, undoable=2, trials=2)
    learner = learner_of(manager, config)
    for number in range(6):
        learner.add(embedding, masks[number % 4], source=number)
    state = present(learner)
    assert [example.source for example in state.examples] == [3, 4, 5]
    assert len(state.trials) == 2
    assert state.count == 6
    assert len(learner.history.states()) == 3
    folder = state.version.path.parent
    assert len(list(folder.iterdir())) == 3
    assert learner.history.undo()
    assert learner.history.undo()
    assert not learner.history.undo()
    learner.history.clear()
    del state
    assert list(folder.iterdir()) == []
    del learner
    assert not folder.exists()


def test_nothing_stale_is_served(manager, scene, cache: EmbeddingCache) -> None:
    segmenter, embedding, masks = scene()
    manager.unload_all()
    learner = learner_of(manager)
    versions = []
    for mask in masks[:3]:
        learner.add(embedding, mask)
        learner.prepare(present(learner))
        versions.append(learner.version)
        assert [m.adapter for m in manager.resident()] == [None, versions[-1].name]
    assert len({version.content_hash for version in versions}) == 3
    assert len({version.path for version in versions}) == 3
    found = [segmenter.with_adapter(v).predict(points=[(24, 30)]).logits for v in versions]
    assert len({logits.tobytes() for logits in found}) == 3
    # The encoder is that of the base: nothing was encoded anew.
    assert {version.embedding_key for version in versions} == {None}
    assert len(cache) == 1
    assert segmenter.with_adapter(versions[0]).encode() is segmenter.encode()
    learner.release()
    assert [m.adapter for m in manager.resident()] == [None]


def test_objects_of_several_images_are_learnt_together(manager, scene) -> None:
    _, one, masks = scene(0)
    _, two, others = scene(1)
    learner = learner_of(manager, replace(QUICK, replayed=3))
    learner.add(one, masks[0], source="one")
    learner.add(two, others[1], source="two")
    state = present(learner)
    assert [example.key for example in state.examples] == [one.key, two.key]
    assert one.key != two.key
    assert min(state.losses) < state.losses[0]
    assert len(state.trials) == 1


def test_an_embedding_that_is_gone_is_left_out(manager, scene, cache: EmbeddingCache) -> None:
    _, one, masks = scene(0)
    learner = learner_of(manager, replace(QUICK, replayed=3))
    learner.add(one, masks[0])
    cache.clear()
    assert not learner.add(one, masks[1])
    _, two, others = scene(1)
    assert learner.add(two, others[0])
    assert len(present(learner).examples) == 2


def test_replay_is_as_the_caller_says(manager, scene) -> None:
    _, embedding, masks = scene()
    learner = learner_of(manager)
    for number in range(3):
        learner.add(embedding, masks[number], source=number)
    examples = present(learner).examples
    changed = replace(examples[2], mask=masks[3])
    new = Example.of(embedding, masks[3], source=3)
    state = learner.learn([new], replay=[examples[0], changed])
    assert state is not None
    assert [(e.source, e.mask) for e in state.examples] == [
        (0, masks[0]), (2, masks[3]), (3, masks[3]),
    ]  # fmt: skip
    assert learner.history.present is not state
    assert state.sources == {3}


def test_effect_is_measured_before_an_object_is_learnt(manager, scene) -> None:
    _, embedding, masks = scene()
    learner = learner_of(manager)
    learner.add(embedding, masks[0])
    assert present(learner).effect is None
    learner.add(embedding, masks[1])
    first = present(learner).effect
    assert first is not None
    assert first.before != first.after
    again = learner_of(manager, replace(QUICK, learning_rate=1e-12))
    again.add(embedding, masks[0])
    again.add(embedding, masks[1])
    nothing = present(again).effect
    assert nothing is not None
    assert nothing.before == nothing.after == first.before


def test_steps_that_do_not_lower_the_loss_end_it(manager, scene) -> None:
    """And are taken back."""
    _, embedding, masks = scene()
    config = replace(QUICK, steps=9, patience=1, learning_rate=30.0)
    learner = learner_of(manager, config)
    learner.add(embedding, masks[0])
    state = present(learner)
    best = int(np.argmin(state.losses))
    assert len(state.losses) == best + 2 < 10
    assert state.losses[-1] > state.losses[best]
    shorter = learner_of(manager, replace(config, steps=max(best, 1)))
    shorter.add(embedding, masks[0])
    assert present(shorter).losses == state.losses[: max(best, 1) + 1]
    for name, tensor in present(shorter).weights.items():
        assert torch.equal(tensor, state.weights[name])


def test_cancelled(manager, scene) -> None:
    _, embedding, masks = scene()
    learner = learner_of(manager)
    learner.add(embedding, masks[0])
    state, asked = present(learner), []

    def should_stop() -> bool:
        asked.append(1)
        return len(asked) > 4

    with pytest.raises(CancelledError):
        learner.learn([Example.of(embedding, masks[1])], should_stop=should_stop)
    assert learner.history.present is state
    assert [m.leases for m in manager.resident() if m.leases] == []


def test_specks_and_whole_images_teach_nothing(manager) -> None:
    embedding = Segmenter(
        disc_image()[0].repeat(2, 0).repeat(2, 1), "tiny", manager=manager
    ).encode()
    learner = learner_of(manager)
    speck = np.zeros((192, 256), bool)
    speck[5, 5] = True
    assert not learner.add(embedding, MaskCrop.from_array(speck))
    assert not learner.add(embedding, MaskCrop.from_array(~np.zeros_like(speck)))
    assert not learner.add(embedding, MaskCrop.from_array(np.zeros_like(speck)))
    assert learner.history.present is None


def test_targets_are_those_of_training(scene) -> None:
    image, masks = disc_image()
    labels = np.zeros(image.shape, np.int32)
    for number, mask in enumerate(masks, 1):
        labels[mask.slices][mask.array()] = number
    view = plain_view(np.stack([image] * 3, 2), labels)
    wanted = choose_objects(view.labels, None, np.random.default_rng(0))
    _, embedding, _ = scene()
    found, used = targets_of([Example.of(embedding, mask) for mask in masks])
    assert len(used) == 4
    torch.testing.assert_close(found.masks, wanted.masks, atol=0, rtol=0)
    torch.testing.assert_close(found.weight, wanted.weight, atol=0, rtol=0)
    assert torch.equal(found.fine, wanted.fine)
    assert torch.equal(found.known, wanted.known)


def test_what_lies_below_the_picture_is_left_out() -> None:
    """A mask may reach into the data bar, which the model does not see."""
    key = EmbeddingKey("image", "rgb8", "tiny", "weights")
    mask = MaskCrop.from_array(np.ones((60, 20), bool), 60, 100)
    frame = on_frame(Example(key, (100, 200), (512, 1024), mask))
    rows, columns = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))
    assert (rows[0], rows[-1]) == (round(60 * 5.12), 511)
    assert (columns[0], columns[-1]) == (512, round(120 * 5.12) - 1)


def test_kept_as_an_ordinary_adapter(manager, scene) -> None:
    segmenter, embedding, masks = scene()
    learner = learner_of(manager)
    with pytest.raises(InvalidSettingError, match="nothing was learnt"):
        learner.keep("discs")
    learner.add(embedding, masks[0])
    entry = learner.keep("discs")
    assert entry.card is not None
    assert entry.card.details["objects"] == 1
    kept = segmenter.with_adapter("discs").predict(points=[(24, 30)]).logits
    np.testing.assert_array_equal(kept, answer(segmenter, learner))
    with pytest.raises(InvalidSettingError, match="already"):
        learner.keep("discs")


def test_on_an_adapter(manager, scene, make_adapter, tmp_path, cache: EmbeddingCache) -> None:
    """Learnt on top of it, at the strength chosen; kept, both are one adapter of the base."""
    path = make_adapter(tmp_path / "a.safetensors", config=AdapterConfig(rank=2, decoder_rank=2))
    import_adapter(path, "powder")
    manager.set_strength("tiny", "powder", 0.5)
    image, masks = disc_image()
    segmenter = Segmenter(image, "tiny", adapter="powder", manager=manager)
    embedding = segmenter.encode()
    before = segmenter.predict(points=[(24, 30)]).logits
    learner = AnnotationLearner("tiny", "powder", QUICK, manager)
    learner.add(embedding, masks[0])
    learner.prepare(present(learner))
    assert len(cache) == 1
    assert learner.version.embedding_key == learner.under.embedding_key is not None
    after = answer(segmenter, learner)
    assert not np.array_equal(after, before)
    np.testing.assert_array_equal(segmenter.predict(points=[(24, 30)]).logits, before)
    learner.keep("both")
    assert get_adapter("both").card.config.decoder_rank == 2 + QUICK.rank
    kept = segmenter.with_adapter("both").predict(points=[(24, 30)]).logits
    np.testing.assert_allclose(kept, after, atol=1e-3)
    manager.set_strength("tiny", "powder", 1.0)


def test_on_phases_as_on_their_base(manager, scene, make_adapter, tmp_path) -> None:
    """They leave prompts to it, and so does what is learnt while annotating."""
    segmenter, embedding, masks = scene()
    phases = make_adapter(tmp_path / "map.safetensors", classes=("matrix", "pore"))
    learner = AnnotationLearner("tiny", str(phases), QUICK, manager)
    assert learner.under is None
    assert segmenter.with_adapter(str(phases)).encode() is embedding
    learner.add(embedding, masks[0])
    assert learner.keep("onbase").card.base == "tiny"
    kept = segmenter.with_adapter("onbase").predict(points=[(24, 30)]).logits
    np.testing.assert_array_equal(kept, answer(segmenter, learner))


def test_sam_hq(monkeypatch: pytest.MonkeyPatch, cache: EmbeddingCache) -> None:
    manager = ModelManager(
        device="cpu", builder=lambda spec, **callbacks: build_model(spec), find_spec=lambda name: HQ
    )
    image, masks = disc_image()
    with manager.lease("tiny_hq") as model, torch.no_grad():
        picture = np.repeat(np.repeat(np.stack([image] * 3, 2), 8, 0), 8, 1)
        output = model.encode(model.preprocess(picture))
    key = EmbeddingKey("image", "rgb8", "tiny_hq", "weights")
    embedding = cache.put(
        Embedding(key, output.features, output.intermediate, (768, 1024), (96, 128))
    )
    learner = AnnotationLearner("tiny_hq", None, QUICK, manager)
    assert learner.add(embedding, masks[0])
    assert min(present(learner).losses) < present(learner).losses[0]
    learner.prepare(present(learner))
    manager.unload_all()


@pytest.mark.parametrize("change", [{"steps": 0}, {"kept": 0}, {"learning_rate": 0.0}])
def test_settings_that_make_no_sense(change) -> None:
    with pytest.raises(InvalidSettingError):
        LearningConfig(**change)

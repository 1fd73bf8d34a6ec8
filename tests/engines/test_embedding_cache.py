from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from phasesam.core.errors import CancelledError, InvalidSettingError
from phasesam.engines import embedding_cache as cache_module
from phasesam.engines.embedding_cache import (
    Embedding,
    EmbeddingCache,
    EmbeddingKey,
    get_embedding_cache,
    keepable,
)
from phasesam.engines.embedding_folder import EmbeddingFolder

SIZE = 4 * 4 * 8 * 8  # Bytes of one of the embeddings below.


def key(image: str = "a", **changes: object) -> EmbeddingKey:
    return replace(EmbeddingKey(image, "percentile", "tiny", "abc"), **changes)


def make(embedding_key: EmbeddingKey, hq: bool = False) -> Embedding:
    generator = torch.Generator().manual_seed(sum(embedding_key.image_hash.encode()))
    features = torch.randn(1, 4, 8, 8, generator=generator)
    intermediate = (torch.randn(1, 8, 8, 3, generator=generator),) if hq else ()
    return Embedding(embedding_key, features, intermediate, (1024, 683), (1536, 1024))


class Maker:
    """Computes embeddings and counts how often."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, embedding_key: EmbeddingKey) -> Callable[[], Embedding]:
        def compute() -> Embedding:
            self.made.append(embedding_key.image_hash)
            return make(embedding_key)

        return compute

    def ask(self, cache: EmbeddingCache, *images: str) -> list[Embedding]:
        return [cache.get_or_compute(key(i), self(key(i))) for i in images]


@pytest.fixture
def maker() -> Maker:
    return Maker()


def assert_equal(one: Embedding, other: Embedding) -> None:
    assert one.key == other.key
    assert torch.equal(one.features, other.features)
    assert len(one.intermediate) == len(other.intermediate)
    assert all(map(torch.equal, one.intermediate, other.intermediate))
    assert (one.input_size, one.image_shape) == (other.input_size, other.image_shape)


class TestMemory:
    def test_computes_once(self, maker: Maker) -> None:
        cache = EmbeddingCache()
        assert cache.get(key()) is None
        first, again = maker.ask(cache, "a", "a")
        assert again is first
        assert maker.made == ["a"]
        assert key() in cache
        assert (len(cache), cache.nbytes) == (1, SIZE)

    @pytest.mark.parametrize(
        "changes",
        [
            {"image_hash": "b"},
            {"normalisation": "range"},
            {"model": "mobile_sam"},
            {"model_fingerprint": "abd"},
            {"adapter": "powder"},
            {"version": 2},
            {"precision": "bfloat16"},
        ],
    )
    def test_no_embedding_serves_another_key(self, changes: dict[str, object]) -> None:
        cache = EmbeddingCache()
        cache.put(make(key()))
        assert cache.get(key(**changes)) is None

    def test_the_one_unused_for_longest_leaves(self, maker: Maker) -> None:
        cache = EmbeddingCache(2 * SIZE)
        maker.ask(cache, "a", "b", "a", "c", "a", "b")
        assert maker.made == ["a", "b", "c", "b"]
        assert cache.nbytes == 2 * SIZE

    def test_larger_than_the_memory(self, maker: Maker) -> None:
        cache = EmbeddingCache(SIZE - 1)
        (embedding,) = maker.ask(cache, "a")
        assert_equal(embedding, make(key()))
        assert len(cache) == 0

    def test_clear(self, maker: Maker) -> None:
        cache = EmbeddingCache()
        maker.ask(cache, "a")
        cache.clear()
        assert key() not in cache
        assert cache.nbytes == 0

    def test_of_something_else(self) -> None:
        cache = EmbeddingCache()
        with pytest.raises(InvalidSettingError, match=r"image_hash='a'.*image_hash='b'"):
            cache.get_or_compute(key("a"), lambda: make(key("b")))
        assert len(cache) == 0

    def test_negative_size(self) -> None:
        with pytest.raises(InvalidSettingError, match="got -1"):
            EmbeddingCache(-1)


def test_what_is_kept_is_on_the_cpu_in_fp32_and_alone() -> None:
    with torch.inference_mode():
        batch = torch.ones(5, 4, 8, 8, dtype=torch.bfloat16) / 3
        embedding = Embedding(key(), batch[2:3], (batch[:1].float(),), (8, 8), (9, 9))
        kept = keepable(embedding)
    assert kept.features.dtype == torch.float32
    assert torch.equal(kept.features, batch[2:3].float())
    for tensor in (kept.features, *kept.intermediate):
        assert tensor.untyped_storage().nbytes() == SIZE
        assert not tensor.is_inference()
        assert not tensor.requires_grad
    assert kept.nbytes == 2 * SIZE
    moved = kept.to("meta")
    assert moved.features.is_meta
    assert moved.intermediate[0].is_meta
    assert not kept.features.is_meta


class TestThreads:
    def test_one_computes_the_others_wait(self) -> None:
        cache = EmbeddingCache()
        made = []

        def slow() -> Embedding:
            made.append(threading.get_ident())
            time.sleep(0.05)
            return make(key())

        with ThreadPoolExecutor(8) as pool:
            results = [pool.submit(cache.get_or_compute, key(), slow) for _ in range(8)]
            assert len({id(result.result(10)) for result in results}) == 1
        assert len(made) == 1

    def test_different_images_do_not_wait_for_each_other(self) -> None:
        cache = EmbeddingCache()
        barrier = threading.Barrier(2, timeout=10)

        def together(image: str) -> Embedding:
            def compute() -> Embedding:
                barrier.wait()
                return make(key(image))

            return cache.get_or_compute(key(image), compute)

        with ThreadPoolExecutor(2) as pool:
            assert len(list(pool.map(together, "ab"))) == 2

    def test_a_failure_is_not_shared(self, maker: Maker) -> None:
        cache = EmbeddingCache()
        begun, go = threading.Event(), threading.Event()

        def fail() -> Embedding:
            begun.set()
            go.wait(10)
            raise CancelledError("stopped")

        with ThreadPoolExecutor(2) as pool:
            failing = pool.submit(cache.get_or_compute, key(), fail)
            begun.wait(10)
            waiting = pool.submit(cache.get_or_compute, key(), maker(key()))
            time.sleep(0.02)
            go.set()
            with pytest.raises(CancelledError):
                failing.result(10)
            assert_equal(waiting.result(10), make(key()))
        assert cache._flights == {}

    def test_waiting_can_be_cancelled(self) -> None:
        cache = EmbeddingCache()
        begun, go = threading.Event(), threading.Event()

        def slow() -> Embedding:
            begun.set()
            go.wait(10)
            return make(key())

        with ThreadPoolExecutor(1) as pool:
            working = pool.submit(cache.get_or_compute, key(), slow)
            begun.wait(10)
            with pytest.raises(CancelledError):
                cache.get_or_compute(key(), slow, should_stop=lambda: True)
            go.set()
            working.result(10)

    def test_asking_for_itself_does_not_hang(self, maker: Maker) -> None:
        cache = EmbeddingCache()
        embedding = cache.get_or_compute(key(), lambda: cache.get_or_compute(key(), maker(key())))
        assert_equal(embedding, make(key()))


class TestDisk:
    def test_outlives_the_program(self, tmp_path: Path, maker: Maker) -> None:
        embedding = make(key(), hq=True)
        EmbeddingCache(folder=tmp_path).put(embedding)
        cache = EmbeddingCache(folder=tmp_path)
        assert key() in cache
        assert len(cache) == 0
        assert_equal(cache.get_or_compute(key(), maker(key())), embedding)
        assert maker.made == []
        assert [path.suffix for path in tmp_path.iterdir()] == [".zarr"]

    def test_is_read_back_when_it_has_left_the_memory(self, tmp_path: Path, maker: Maker) -> None:
        cache = EmbeddingCache(SIZE, tmp_path)
        maker.ask(cache, "a", "b", "a")
        assert maker.made == ["a", "b"]

    def test_an_interrupted_stack_resumes(self, tmp_path: Path, maker: Maker) -> None:
        def interrupted() -> Embedding:
            raise KeyboardInterrupt

        cache = EmbeddingCache(folder=tmp_path)
        maker.ask(cache, "plane 0", "plane 1")
        with pytest.raises(KeyboardInterrupt):
            cache.get_or_compute(key("plane 2"), interrupted)
        # A third plane was being written when the program died.
        done = EmbeddingFolder(tmp_path).path(key("plane 1"))
        half = tmp_path / ".partial-1-2"
        shutil.copytree(done, half)
        (half / "features" / "zarr.json").unlink()
        maker.made.clear()
        planes = [f"plane {index}" for index in range(4)]
        resumed = maker.ask(EmbeddingCache(folder=tmp_path), *planes)
        assert maker.made == ["plane 2", "plane 3"]
        for embedding, plane in zip(resumed, planes, strict=True):
            assert_equal(embedding, make(key(plane)))

    def test_a_program_killed_while_writing(self, tmp_path: Path) -> None:
        code = (
            "import os, sys, torch, zarr; from pathlib import Path;"
            "from phasesam.engines import embedding_folder as module;"
            "from phasesam.engines.embedding_cache import *;"
            "fill = module._fill; module._fill = lambda *a: (fill(*a), os._exit(9));"
            "key = EmbeddingKey('a', 'n', 'm', 'f'); x = torch.zeros(1, 4, 8, 8);"
            "EmbeddingCache(folder=sys.argv[1]).put(Embedding(key, x, (), (8, 8), (8, 8)))"
        )
        run = subprocess.run([sys.executable, "-c", code, tmp_path], check=False, timeout=60)
        assert run.returncode == 9
        (left,) = tmp_path.iterdir()
        assert left.name.startswith(".partial-")
        assert EmbeddingKey("a", "n", "m", "f") not in EmbeddingCache(folder=tmp_path)
        long_ago = time.time() - 2 * 24 * 3600
        os.utime(left, (long_ago, long_ago))
        EmbeddingCache(folder=tmp_path).put(make(key()))
        assert not left.exists()

    @pytest.mark.parametrize("damage", ["chunk lost", "chunk cut", "bit flipped", "metadata"])
    def test_damage_is_found_and_repaired(
        self, tmp_path: Path, maker: Maker, damage: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        EmbeddingCache(folder=tmp_path).put(make(key()))
        path = EmbeddingFolder(tmp_path).path(key())
        (chunk,) = (path / "features" / "c").rglob("0/0/0/0")
        content = bytearray(chunk.read_bytes())
        if damage == "chunk lost":
            chunk.unlink()
        elif damage == "chunk cut":
            chunk.write_bytes(content[:100])
        elif damage == "bit flipped":
            content[50] ^= 1
            chunk.write_bytes(content)
        else:
            (path / "features" / "zarr.json").write_text("{", encoding="utf-8")
        (embedding,) = maker.ask(EmbeddingCache(folder=tmp_path), "a")
        assert_equal(embedding, make(key()))
        assert maker.made == ["a"]
        assert "damaged" in caplog.text
        maker.ask(EmbeddingCache(folder=tmp_path), "a")
        assert maker.made == ["a"]
        assert [p.name for p in tmp_path.iterdir()] == [path.name]

    @pytest.mark.parametrize("field", ["format", "key"])
    def test_other_versions_are_ignored(self, tmp_path: Path, maker: Maker, field: str) -> None:
        EmbeddingCache(folder=tmp_path).put(make(key()))
        attributes = EmbeddingFolder(tmp_path).path(key()) / "zarr.json"
        old, new = {
            "format": ('"format": 1', '"format": 0'),
            "key": ('"version": 1', '"version": 0'),
        }[field]
        text = attributes.read_text(encoding="utf-8")
        assert old in text
        attributes.write_text(text.replace(old, new), encoding="utf-8")
        cache = EmbeddingCache(folder=tmp_path)
        assert key() not in cache
        maker.ask(cache, "a")
        assert maker.made == ["a"]
        assert key() in EmbeddingCache(folder=tmp_path)

    @pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC])
    def test_goes_on_when_it_cannot_write(
        self,
        tmp_path: Path,
        maker: Maker,
        number: int,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        tries = []

        def fill(path: Path, embedding: Embedding) -> None:
            tries.append(path)
            path.mkdir()
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("phasesam.engines.embedding_folder._fill", fill)
        cache = EmbeddingCache(folder=tmp_path)
        with caplog.at_level(logging.WARNING):
            maker.ask(cache, "a", "b", "a", "b")
        assert maker.made == ["a", "b"]
        assert list(tmp_path.iterdir()) == []
        assert os.strerror(number) in caplog.text
        # A full disk may have room later, a missing permission is not asked for twice.
        assert len(tries) == (1 if number == errno.EACCES else 2)

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path, maker: Maker) -> None:
        (tmp_path / "file").write_text("")
        cache = EmbeddingCache(folder=tmp_path / "file" / "cache")
        maker.ask(cache, "a", "a")
        assert maker.made == ["a"]
        assert key("b") not in cache

    def test_two_programs_that_write_the_same(self, tmp_path: Path) -> None:
        with ThreadPoolExecutor(4) as pool:
            caches = [EmbeddingCache(folder=tmp_path) for _ in range(4)]
            for future in [pool.submit(cache.put, make(key())) for cache in caches]:
                future.result(20)
        found = EmbeddingCache(folder=tmp_path).get(key())
        assert found is not None
        assert_equal(found, make(key()))
        assert len(list(tmp_path.iterdir())) == 1

    def test_clear_takes_only_what_is_ours(self, tmp_path: Path, maker: Maker) -> None:
        cache = EmbeddingCache(folder=tmp_path)
        maker.ask(cache, "a")
        (tmp_path / "notes.txt").write_text("mine")
        cache.clear()
        assert key() in cache
        cache.clear(disk=True)
        assert key() not in cache
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


class TestProcessWide:
    @pytest.fixture(autouse=True)
    def _fresh(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cache_module, "_cache", None)

    def test_there_is_one(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            caches = [pool.submit(get_embedding_cache) for _ in range(8)]
            assert len({id(cache.result(10)) for cache in caches}) == 1

    def test_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PHASESAM_EMBEDDINGS", str(tmp_path))
        monkeypatch.setenv("PHASESAM_EMBEDDINGS_MEMORY", "2MB")
        assert get_embedding_cache().folder == tmp_path
        assert get_embedding_cache().max_bytes == 2_000_000

    def test_bad_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PHASESAM_EMBEDDINGS_MEMORY", "lots")
        with pytest.raises(InvalidSettingError, match=r"PHASESAM_EMBEDDINGS_MEMORY: .*'lots'"):
            get_embedding_cache()


def test_looking_imports_neither_torch_nor_zarr(tmp_path: Path) -> None:
    EmbeddingCache(folder=tmp_path).put(make(key()))
    code = (
        "import sys; from phasesam.engines.embedding_cache import EmbeddingCache, EmbeddingKey;"
        "cache = EmbeddingCache(folder=sys.argv[1]);"
        "assert EmbeddingKey('a', 'percentile', 'tiny', 'abc') in cache;"
        "assert EmbeddingKey('b', 'percentile', 'tiny', 'abc') not in cache;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'zarr')))"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path], check=False, timeout=60)
    assert run.returncode == 0

from __future__ import annotations

import hashlib
import http.server
import io
import os
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import xxhash

from phasesam.core.errors import CancelledError, CheckpointError, DownloadError
from phasesam.models import download as downloads
from phasesam.models.catalog import BUILT_IN
from phasesam.models.model_spec import ModelSpec


def weights(seed: int = 0, count: int = 300_000) -> bytes:
    buffer = io.BytesIO()
    numbers = torch.randn(count, generator=torch.Generator().manual_seed(seed))
    torch.save({"mask_decoder.x": numbers}, buffer)
    return buffer.getvalue()


GOOD, OTHER = weights(), weights(1)
PAGE = b"<!DOCTYPE html><html><body>Please sign in</body></html>"


class Server(http.server.ThreadingHTTPServer):
    """Serves GOOD under most paths, and trouble under some."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.contents = {"/other.pth": OTHER, "/page.pth": PAGE}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if "missing" in self.path:
            self.send_error(404)
            return
        content = self.server.contents.get(self.path, GOOD)
        self.send_response(200)
        if "no_length" not in self.path:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if "truncated" in self.path or "no_length" in self.path:
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PHASESAM_MODELS", raising=False)
    monkeypatch.delenv("PHASESAM_MIRROR", raising=False)
    return tmp_path / "cache" / "models"


def spec_of(server: Server, path: str = "/good.pth", **changes: object) -> ModelSpec:
    spec = ModelSpec(
        name="m",
        title="Model M",
        architecture="vit_b",
        url=server.address + path,
        sha256=hashlib.sha256(GOOD).hexdigest(),
        size_bytes=len(GOOD),
        filename="m.pth",
    )
    return replace(spec, **changes)


def assert_nothing_left(cache: Path) -> None:
    assert not cache.exists() or list(cache.iterdir()) == []


def test_fetches_checks_and_reports(server, cache):
    calls = []
    path = downloads.download(spec_of(server), lambda done, total: calls.append((done, total)))
    assert path == cache / "m.pth"
    assert path.read_bytes() == GOOD
    assert [entry.name for entry in cache.iterdir()] == ["m.pth"]
    assert calls[-1] == (len(GOOD), len(GOOD))
    assert len(calls) > 3
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert downloads.find(spec_of(server)) == path
    downloads.check(spec_of(server), path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/truncated.pth", "could not fetch Model M"),
        ("/no_length.pth", "instead of the"),
        ("/missing.pth", "404.*PHASESAM_MODELS.*PHASESAM_MIRROR"),
        ("/other.pth", "is not the expected file.*expected sha256"),
        ("/page.pth", "bytes instead of"),
    ],
)
def test_refuses_trouble_and_leaves_nothing(server, cache, path, message):
    with pytest.raises(DownloadError, match=message) as caught:
        downloads.download(spec_of(server, path))
    assert server.address in str(caught.value)
    assert_nothing_left(cache)


@pytest.mark.parametrize("path", ["/page.pth", "/no_length.pth"])
def test_refuses_what_is_no_weights_file_even_without_checksum(server, cache, path):
    with pytest.raises(DownloadError, match=r"did not give the weights"):
        downloads.download(spec_of(server, path, sha256=None))
    assert_nothing_left(cache)


def test_refuses_a_wrong_checksum_of_another_kind(server, cache):
    right = "md5:" + hashlib.md5(GOOD, usedforsecurity=False).hexdigest()
    spec = spec_of(server, "/other.pth", sha256=None, other_hash=right)
    with pytest.raises(DownloadError, match=r"expected md5"):
        downloads.download(spec)
    assert_nothing_left(cache)
    downloads.download(replace(spec, url=server.address + "/good.pth"))


def test_xxh128_is_checked(server, cache):
    right = "xxh128:" + xxhash.xxh128_hexdigest(GOOD)
    spec = spec_of(server, "/other.pth", sha256=None, other_hash=right)
    with pytest.raises(DownloadError, match=r"expected xxh128"):
        downloads.download(spec)
    assert_nothing_left(cache)
    path = downloads.download(replace(spec, url=server.address + "/good.pth"))
    downloads.check(spec, path)
    cache.joinpath("m.pth.sha256").unlink()
    path.write_bytes(OTHER)
    with pytest.raises(CheckpointError, match=r"expected xxh128"):
        downloads.check(spec, path)
    assert not cache.joinpath("m.pth.sha256").exists()


def test_what_checks_built_in_models_is_a_dependency():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    names = {text.partition(">")[0] for text in project["project"]["dependencies"]}
    used = {spec.other_hash.partition(":")[0] for spec in BUILT_IN if spec.other_hash}
    assert used == {"md5", "xxh128"}
    assert {"pooch", "xxhash"} <= names


@pytest.mark.parametrize("factor", [0.5, 0.94, 1.06])
def test_refuses_another_size_than_the_rounded_one(server, cache, tmp_path, factor):
    spec = spec_of(server, sha256=None, size_bytes=int(len(GOOD) / factor))
    with pytest.raises(DownloadError, match=r"expected about .* MB, got 1\.2 MB; nothing was"):
        downloads.download(spec)
    assert_nothing_left(cache)
    (tmp_path / "m.pth").write_bytes(GOOD)
    with pytest.raises(CheckpointError, match=r"expected about .* MB, got 1\.2 MB"):
        downloads.check(spec, tmp_path / "m.pth")
    assert not cache.joinpath("m.pth.sha256").exists()


@pytest.mark.parametrize("factor", [0.96, 1.04])
def test_rounded_sizes_are_no_exact_ones(server, factor):
    spec = spec_of(server, sha256=None, size_bytes=int(len(GOOD) / factor))
    downloads.check(spec, downloads.download(spec))


def test_file_accepted_without_today_s_checksum_is_no_measure(server, cache, tmp_path):
    cache.mkdir(parents=True)
    pin = cache / "m.pth.sha256"
    pin.write_text(hashlib.sha256(OTHER).hexdigest() + "\n")
    right = "xxh128:" + xxhash.xxh128_hexdigest(GOOD)
    spec = spec_of(server, sha256=None, other_hash=right)
    (tmp_path / "m.pth").write_bytes(OTHER)
    with pytest.raises(CheckpointError, match=r"expected xxh128"):
        downloads.check(spec, tmp_path / "m.pth")
    downloads.download(spec)
    assert pin.read_text().split() == [hashlib.sha256(GOOD).hexdigest(), right]


def test_stops_and_leaves_nothing(server, cache):
    calls = []

    def should_stop() -> bool:
        calls.append(len(list(cache.iterdir())))
        return len(calls) > 2

    with pytest.raises(CancelledError, match=r"download of m stopped"):
        downloads.download(spec_of(server), should_stop=should_stop)
    assert calls[0] == 1
    assert_nothing_left(cache)


def test_error_of_the_callback_passes_and_leaves_nothing(server, cache):
    def progress(done: int, total: int) -> None:
        raise KeyError("broken dock")

    with pytest.raises(KeyError, match="broken dock"):
        downloads.download(spec_of(server), progress)
    assert_nothing_left(cache)


def test_failure_keeps_the_file_that_was_there(server, cache):
    path = downloads.download(spec_of(server))
    with pytest.raises(DownloadError):
        downloads.download(spec_of(server, "/other.pth"))
    assert path.read_bytes() == GOOD


def test_nobody_answers(server, cache):
    spec = spec_of(server, url="http://127.0.0.1:9/m.pth")
    with pytest.raises(DownloadError, match=r"could not fetch.*PHASESAM_MODELS"):
        downloads.download(spec)
    assert_nothing_left(cache)


def test_mirror_is_asked_instead_of_the_publisher(server, cache, monkeypatch):
    monkeypatch.setenv("PHASESAM_MIRROR", server.address + "/copies/")
    spec = spec_of(server, url="http://127.0.0.1:9/original.pth")
    assert downloads.download(spec).read_bytes() == GOOD
    assert server.asked == ["/copies/m.pth"]


def test_unpublished_weights_cannot_be_fetched(server):
    with pytest.raises(DownloadError, match=r"not published anywhere"):
        downloads.download(spec_of(server, url=None))


def test_first_download_is_pinned(server, cache):
    spec = spec_of(server, sha256=None, size_bytes=None)
    path = downloads.download(spec)
    pin = cache / "m.pth.sha256"
    assert pin.read_text().strip() == hashlib.sha256(GOOD).hexdigest()
    downloads.check(spec, path)
    with pytest.raises(DownloadError, match=r"first seen: .*m\.pth\.sha256"):
        downloads.download(replace(spec, url=server.address + "/other.pth"))
    assert path.read_bytes() == GOOD
    path.write_bytes(OTHER)
    with pytest.raises(CheckpointError, match=r"not the published file"):
        downloads.check(spec, path)


def test_spoilt_file_is_noticed(server):
    spec = spec_of(server)
    path = downloads.download(spec)
    downloads.check(spec, path)
    spoilt = bytearray(GOOD)
    spoilt[len(spoilt) // 2] ^= 1
    path.write_bytes(spoilt)
    os.utime(path, (1, 1))
    with pytest.raises(CheckpointError, match=r"expected sha256.*Replace the file"):
        downloads.check(spec, path)


def test_offline_folder_comes_first(server, tmp_path, monkeypatch):
    offline = tmp_path / "offline"
    offline.mkdir()
    (offline / "m.pth").write_bytes(GOOD)
    monkeypatch.setenv("PHASESAM_MODELS", str(offline))
    spec = spec_of(server)
    downloads.download(spec)
    assert downloads.find(spec) == offline / "m.pth"
    monkeypatch.delenv("PHASESAM_MODELS")
    assert downloads.find(spec) != offline / "m.pth"


def test_first_file_of_the_offline_folder_is_pinned_elsewhere(server, cache, tmp_path, monkeypatch):
    offline = tmp_path / "offline"
    offline.mkdir()
    (offline / "m.pth").write_bytes(GOOD)
    monkeypatch.setenv("PHASESAM_MODELS", str(offline))
    spec = spec_of(server, sha256=None)
    downloads.check(spec, offline / "m.pth")
    assert [entry.name for entry in offline.iterdir()] == ["m.pth"]
    assert (cache / "m.pth.sha256").is_file()
    (offline / "m.pth").write_bytes(OTHER)
    with pytest.raises(CheckpointError, match=r"not the published file"):
        downloads.check(spec, offline / "m.pth")


def test_md5_of_a_file_on_disk_is_checked(server, tmp_path):
    right = "md5:" + hashlib.md5(GOOD, usedforsecurity=False).hexdigest()
    spec = spec_of(server, sha256=None, other_hash=right)
    (tmp_path / "m.pth").write_bytes(OTHER)
    with pytest.raises(CheckpointError, match=r"expected md5"):
        downloads.check(spec, tmp_path / "m.pth")


def test_no_room_on_the_disk(server, cache):
    with pytest.raises(DownloadError, match=r"needs 1000000000000 MB, but .* has only"):
        downloads.download(spec_of(server, size_bytes=10**18))
    assert_nothing_left(cache)
    assert server.asked == []


def test_disk_full_in_the_middle(server, cache, monkeypatch):
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloads._Reporter, "update", full)
    with pytest.raises(DownloadError, match=r"No space left"):
        downloads.download(spec_of(server))
    assert_nothing_left(cache)


def test_no_permission_to_write(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match=r"cannot store weights in"):
        downloads.download(spec_of(server))


def test_removes_what_killed_processes_left(server, cache):
    cache.mkdir(parents=True)
    old, new = cache / ".abc.m.pth.part", cache / ".def.m.pth.part"
    for part in (old, new):
        part.write_bytes(b"half")
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    downloads.download(spec_of(server))
    assert not old.exists()
    assert new.exists()

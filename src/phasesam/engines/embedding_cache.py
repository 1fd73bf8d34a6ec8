"""Embeddings: what the image encoder makes of an image, kept so that it is made once.

An `Embedding` is a frozen value with a key that says everything it depends on. The cache keeps
the latest in memory and, if it has a folder, all of them on disk (`embedding_folder`). They
stay on the CPU in fp32, so that results from the cache are equal to fresh ones and the model
manager remains the only owner of device memory.

Importing this file imports neither torch nor zarr.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from phasesam.core.errors import CancelledError, InvalidSettingError
from phasesam.core.types import StopCallback
from phasesam.models.memory import parse_bytes

if TYPE_CHECKING:
    import torch

    from phasesam.engines.embedding_folder import EmbeddingFolder

FOLDER_VARIABLE = "PHASESAM_EMBEDDINGS"
MEMORY_VARIABLE = "PHASESAM_EMBEDDINGS_MEMORY"
EMBEDDING_VERSION = 1
"""Goes up when the same key would give other numbers."""

DEFAULT_BYTES = 2**30

# How often a waiting thread looks whether it should stop, in seconds.
_POLL = 0.05


@dataclass(frozen=True)
class EmbeddingKey:
    """Everything an embedding depends on.

    Attributes
    ----------
    image_hash : str
        Hash of the pixels that were encoded.
    normalisation : str
        How they were turned into 8-bit RGB.
    model : str
        Name of the model in the registry.
    model_fingerprint : str
        What tells apart two models of the same name, such as the checksum of the weights.
    adapter : str or None
        Content hash and strength of the adapter on the model; None where it leaves the
        embedding as it is.
    version : int
        `EMBEDDING_VERSION` of the program that made it.
    precision : str
        Number format of the computation, such as ``"float32"``.
    """

    image_hash: str
    normalisation: str
    model: str
    model_fingerprint: str
    adapter: str | None = None
    version: int = EMBEDDING_VERSION
    precision: str = "float32"


@dataclass(frozen=True, eq=False)
class Embedding:
    """Features of one image. Treat the tensors as read-only: they are shared.

    Attributes
    ----------
    key : EmbeddingKey
        What it was made from.
    features : (1, c, 64, 64) float32 tensor
        The image embedding; 256 channels in SAM.
    intermediate : tuple of (1, 64, 64, c') float32 tensors
        Early features for SAM-HQ's decoder; empty for other models.
    input_size : (int, int)
        Height and width of the resized image within the square that was encoded.
    image_shape : (int, int)
        Height and width of the image in pixels.
    """

    key: EmbeddingKey
    features: torch.Tensor
    intermediate: tuple[torch.Tensor, ...]
    input_size: tuple[int, int]
    image_shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in (self.features, *self.intermediate))

    def to(self, device: torch.device | str) -> Embedding:
        """Return it with its tensors on a device; the cache keeps the one on the CPU."""
        return replace(
            self,
            features=self.features.to(device),
            intermediate=tuple(t.to(device) for t in self.intermediate),
        )


def keepable(embedding: Embedding) -> Embedding:
    """Return an embedding on the CPU, in fp32, that keeps no other memory alive."""
    import torch

    def own(tensor: torch.Tensor) -> torch.Tensor:
        kept = tensor.detach().to("cpu", torch.float32).contiguous()
        is_part = kept.untyped_storage().nbytes() > kept.numel() * kept.element_size()
        # An inference tensor could not be used for fine-tuning later.
        return kept.clone() if is_part or kept.is_inference() else kept

    with torch.inference_mode(False), torch.no_grad():
        features = own(embedding.features)
        intermediate = tuple(own(tensor) for tensor in embedding.intermediate)
    return replace(embedding, features=features, intermediate=intermediate)


@dataclass
class _Flight:
    """An embedding that some thread is computing."""

    thread: int
    landed: threading.Event


class EmbeddingCache:
    """The embeddings used last, in memory and optionally on disk. Safe for threads.

    Parameters
    ----------
    max_bytes : int
        Bytes of embeddings kept in memory; the one unused for longest leaves first.
    folder : path, optional
        Where embeddings are kept on disk, too. Without permission to write there the cache
        goes on in memory and notes it in the log.

    Raises
    ------
    InvalidSettingError
        If ``max_bytes`` is negative.
    """

    def __init__(
        self, max_bytes: int = DEFAULT_BYTES, folder: str | os.PathLike[str] | None = None
    ) -> None:
        if max_bytes < 0:
            raise InvalidSettingError(f"expected 0 bytes or more for embeddings, got {max_bytes}")
        self._max_bytes = max_bytes
        self._folder = Path(folder).expanduser() if folder is not None else None
        self._disk: EmbeddingFolder | None = None
        self._lock = threading.Lock()
        self._kept: OrderedDict[EmbeddingKey, Embedding] = OrderedDict()
        self._flights: dict[EmbeddingKey, _Flight] = {}

    @property
    def folder(self) -> Path | None:
        """Where embeddings are kept on disk."""
        return self._folder

    @property
    def max_bytes(self) -> int:
        """Bytes of embeddings kept in memory at most."""
        return self._max_bytes

    @property
    def nbytes(self) -> int:
        """Bytes of the embeddings in memory."""
        with self._lock:
            return sum(embedding.nbytes for embedding in self._kept.values())

    def __len__(self) -> int:
        """Count the embeddings in memory."""
        with self._lock:
            return len(self._kept)

    def __contains__(self, key: EmbeddingKey) -> bool:
        """Whether an embedding is here, without reading it from disk."""
        with self._lock:
            if key in self._kept:
                return True
        disk = self._open_disk()
        return disk is not None and key in disk

    def get(self, key: EmbeddingKey) -> Embedding | None:
        """Return an embedding from memory or disk; None if there is none."""
        found = self._recall(key)
        if found is None:
            disk = self._open_disk()
            found = disk.read(key) if disk is not None else None
            if found is not None:
                self._keep(found)
        return found

    def put(self, embedding: Embedding) -> Embedding:
        """Keep an embedding in memory and on disk; return the copy that is kept."""
        kept = keepable(embedding)
        self._keep(kept)
        self._write(kept)
        return kept

    def get_or_compute(
        self,
        key: EmbeddingKey,
        compute: Callable[[], Embedding],
        *,
        should_stop: StopCallback | None = None,
    ) -> Embedding:
        """Return an embedding, computing it if need be; threads that ask meanwhile wait.

        Call it without a lease and without the manager's execution lock, which ``compute``
        takes: the thread that computes may need what a waiting thread holds.

        Parameters
        ----------
        key : EmbeddingKey
            What is asked for.
        compute : callable
            Makes it. If it fails in another thread, this one tries with its own.
        should_stop : callable, optional
            Asked while waiting for another thread.

        Returns
        -------
        Embedding
            On the CPU, in fp32.

        Raises
        ------
        CancelledError
            If the user asked to stop.
        InvalidSettingError
            If ``compute`` returns an embedding of something else.
        """
        me = threading.get_ident()
        while True:
            with self._lock:
                found = self._touch(key)
                if found is not None:
                    return found
                flight = self._flights.get(key)
                if flight is None:
                    flight = self._flights[key] = _Flight(me, threading.Event())
                    break
            if flight.thread == me:
                return self._compute(key, compute)
            if should_stop is not None and should_stop():
                raise CancelledError("cancelled by the user")
            flight.landed.wait(_POLL)
        fresh = False
        try:
            embedding = self.get(key)
            if embedding is None:
                fresh = True
                embedding = self._compute(key, compute)
                self._keep(embedding)
        finally:
            with self._lock:
                del self._flights[key]
            flight.landed.set()
        if fresh:
            self._write(embedding)
        return embedding

    def clear(self, *, disk: bool = False) -> None:
        """Forget all embeddings in memory; with ``disk``, also those on disk."""
        with self._lock:
            self._kept.clear()
        folder = self._open_disk() if disk else None
        if folder is not None:
            folder.clear()

    def _compute(self, key: EmbeddingKey, compute: Callable[[], Embedding]) -> Embedding:
        embedding = keepable(compute())
        if embedding.key != key:
            raise InvalidSettingError(f"expected an embedding of {key}, got one of {embedding.key}")
        return embedding

    def _recall(self, key: EmbeddingKey) -> Embedding | None:
        with self._lock:
            return self._touch(key)

    def _touch(self, key: EmbeddingKey) -> Embedding | None:
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def _keep(self, embedding: Embedding) -> None:
        with self._lock:
            self._kept[embedding.key] = embedding
            self._kept.move_to_end(embedding.key)
            size = sum(kept.nbytes for kept in self._kept.values())
            while size > self._max_bytes:
                _, oldest = self._kept.popitem(last=False)
                size -= oldest.nbytes

    def _write(self, embedding: Embedding) -> None:
        disk = self._open_disk()
        if disk is not None:
            disk.write(embedding)

    def _open_disk(self) -> EmbeddingFolder | None:
        if self._folder is None:
            return None
        from phasesam.engines.embedding_folder import EmbeddingFolder

        with self._lock:
            if self._disk is None:
                self._disk = EmbeddingFolder(self._folder)
            return self._disk


_cache: EmbeddingCache | None = None
_cache_lock = threading.Lock()


def get_embedding_cache() -> EmbeddingCache:
    """Return the cache of this process; it is made when it is first asked for.

    The variable ``PHASESAM_EMBEDDINGS`` names a folder for embeddings on disk,
    ``PHASESAM_EMBEDDINGS_MEMORY`` the memory for them, such as ``2GB``.

    Raises
    ------
    InvalidSettingError
        If the amount of memory makes no sense; the message names the variable.
    """
    global _cache
    if _cache is None:
        with _cache_lock:
            if _cache is None:
                folder = os.environ.get(FOLDER_VARIABLE, "").strip()
                _cache = EmbeddingCache(_memory_limit(), folder or None)
    return _cache


def _memory_limit() -> int:
    text = os.environ.get(MEMORY_VARIABLE, "").strip()
    if not text:
        return DEFAULT_BYTES
    try:
        return parse_bytes(text)
    except InvalidSettingError as error:
        raise InvalidSettingError(f"{MEMORY_VARIABLE}: {error}") from error

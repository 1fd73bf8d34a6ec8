"""Embeddings on disk: one small zarr group for each, written whole or not at all.

::

    FOLDER/
     +-- 3f2a...c1.zarr/      named after the key; attributes hold the key and checksums
     |    +-- features/       (1, c, 64, 64) float32
     |    +-- intermediate_0/ (1, 64, 64, c') float32
     +-- .partial-.../        being written; renamed when complete

An interrupted run over a stack leaves the planes it has finished, and the next one goes on from
there. What is damaged, half-written or of another version counts as absent and is replaced.

Importing this file, and asking whether an embedding is here, imports neither torch nor zarr.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phasesam.engines.embedding_cache import Embedding, EmbeddingKey

_LOG = logging.getLogger(__name__)

_FORMAT = 1
_SUFFIX = ".zarr"
_PARTIAL = ".partial-"

# A partial folder of this age, in seconds, belongs to a program that has died.
_ABANDONED = 24 * 3600

_READ_ERRORS = (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError)
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


class EmbeddingFolder:
    """Reads and writes embeddings in a folder, which other programs may use as well.

    Nothing is raised when that fails: the log says why, and the embedding is computed again.

    Parameters
    ----------
    folder : path
        Made when the first embedding is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writable = True
        self._tidied = False

    def __contains__(self, key: EmbeddingKey) -> bool:
        """Whether an embedding of this key seems to be here, going by its attributes."""
        try:
            attributes = json.loads((self.path(key) / "zarr.json").read_text(encoding="utf-8"))
            return _fits(attributes["attributes"], key)
        except _READ_ERRORS:
            return False

    def path(self, key: EmbeddingKey) -> Path:
        """Return where an embedding is kept."""
        text = json.dumps(asdict(key), sort_keys=True)
        return self._folder / (hashlib.sha256(text.encode()).hexdigest()[:40] + _SUFFIX)

    def read(self, key: EmbeddingKey) -> Embedding | None:
        """Read an embedding; None if it is not here, damaged, or of another version."""
        path = self.path(key)
        if not path.is_dir():
            return None
        try:
            return self._read(path, key)
        except _READ_ERRORS as error:
            _LOG.warning("embedding %s is damaged and will be replaced: %s", path, error)
            return None

    def _read(self, path: Path, key: EmbeddingKey) -> Embedding | None:
        import torch
        import zarr

        group = zarr.open_group(path, mode="r", zarr_format=3)
        attributes: dict[str, Any] = dict(group.attrs)
        if not _fits(attributes, key):
            return None
        tensors = []
        for name, checksum in attributes["crc32"].items():
            array = np.ascontiguousarray(group[name][...])  # type: ignore[index]
            if array.dtype != np.float32 or _checksum(array) != checksum:
                raise ValueError(f"the checksum of {name} does not fit")
            tensors.append(torch.from_numpy(array))
        features, *intermediate = tensors
        height, width = attributes["input_size"]
        rows, columns = attributes["image_shape"]
        return Embedding(key, features, tuple(intermediate), (height, width), (rows, columns))

    def write(self, embedding: Embedding) -> bool:
        """Write an embedding; return whether it is on disk now."""
        if not self._writable:
            return False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._tidy()
            with self._partial() as partial:
                _fill(partial, embedding)
                self._publish(partial, embedding.key)
        except OSError as error:
            if error.errno in _READ_ONLY:
                self._writable = False
                _LOG.warning(
                    "embeddings are kept in memory only, %s: %s", self._folder, error.strerror
                )
            else:
                _LOG.warning("an embedding could not be kept in %s: %s", self._folder, error)
            return False
        return True

    def clear(self) -> None:
        """Remove all embeddings from the folder, and nothing else."""
        for path in self._folder.glob(f"*{_SUFFIX}"):
            shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def _partial(self) -> Iterator[Path]:
        """Give a folder of its own that is gone afterwards."""
        partial = self._folder / f"{_PARTIAL}{os.getpid()}-{uuid.uuid4().hex}"
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _publish(self, partial: Path, key: EmbeddingKey) -> None:
        """Put a complete embedding in its place."""
        path = self.path(key)
        with self._partial() as old:
            if path.exists():
                with contextlib.suppress(FileNotFoundError):
                    path.rename(old)
            try:
                partial.rename(path)
            except OSError as error:
                # Another program was faster; its embedding is as good.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise

    def _tidy(self) -> None:
        """Remove, once, what programs have left behind that died while writing."""
        if self._tidied:
            return
        self._tidied = True
        for path in self._folder.glob(f"{_PARTIAL}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(path, ignore_errors=True)


def _fits(attributes: dict[str, Any], key: EmbeddingKey) -> bool:
    return attributes.get("format") == _FORMAT and attributes.get("key") == asdict(key)


def _checksum(array: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


def _fill(path: Path, embedding: Embedding) -> None:
    """Write a whole embedding into a new zarr group; its attributes come last."""
    import zarr

    arrays: dict[str, NDArray[np.float32]] = {"features": embedding.features.numpy()}
    for index, tensor in enumerate(embedding.intermediate):
        arrays[f"intermediate_{index}"] = tensor.numpy()
    group = zarr.open_group(path, mode="w", zarr_format=3)
    for name, array in arrays.items():
        # Features hardly compress; one chunk is one file.
        group.create_array(name, data=array, chunks=array.shape, compressors=None)
    group.attrs.update(
        {
            "format": _FORMAT,
            "key": asdict(embedding.key),
            "crc32": {name: _checksum(array) for name, array in arrays.items()},
            "input_size": list(embedding.input_size),
            "image_shape": list(embedding.image_shape),
        }
    )

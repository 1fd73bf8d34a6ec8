"""Keeps what the frozen part of the encoder made of each view, so that it runs once.

Trainings that differ in what comes after can share a store, see `shared_features`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from phasesam.models.free_memory import free_memory, has_room
from phasesam.models.split_encoder import FrozenFeatures

_SHARE_OF_FREE_MEMORY = 0.3
_LEFT_FREE = 2 << 30


class FeatureStore:
    """Features by name: in memory up to a limit, the others on disk.

    Half precision, which is closer to the values than images are to reality, and half the size.

    Parameters
    ----------
    folder : Path
        Where to put what does not fit into memory; emptied by `clear`.
    limit : int, optional
        Bytes in memory; three tenths of what is free when left out. Less is kept where the
        training leaves less.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self._folder = folder
        self._limit = int(_SHARE_OF_FREE_MEMORY * free_memory()) if limit is None else limit
        self._kept: dict[str, FrozenFeatures] = {}
        self._on_disk: set[str] = set()
        self._weights: dict[str, dict[str, Tensor]] = {}
        self._owner = ""
        self._writes = True
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._kept) + len(self._on_disk)

    def serve(self, owner: str) -> None:
        """Forget everything that is not of `owner`, so that several trainings can share a store.

        Parameters
        ----------
        owner : str
            Fingerprint of all that features depend on, besides their name.
        """
        if owner != self._owner:
            self.clear()
            self._owner = owner

    def get(self, name: str, compute: Callable[[], FrozenFeatures]) -> FrozenFeatures:
        """Look features up, or compute and keep them.

        Parameters
        ----------
        name : str
            The view; a file name.
        compute : callable
            Runs the frozen part.

        Returns
        -------
        FrozenFeatures
            On the CPU in half precision, the same at the first and every later call; computed again
        where there is no room to keep them.
        """
        if name in self._kept:
            return self._kept[name]
        file = self._folder / f"{name}.safetensors"
        if name in self._on_disk:
            tensors = load_file(file)
            return FrozenFeatures(tensors.pop("activation"), _in_order(tensors))
        features = compute().to("cpu", torch.float16)
        # What the training itself needs has been taken by the second step at the latest.
        if self.nbytes + features.nbytes <= self._limit and has_room(features.nbytes):
            self._kept[name] = features
            self.nbytes += features.nbytes
        elif self._has_room_on_disk():
            tensors = {str(i): t.contiguous() for i, t in enumerate(features.intermediate)}
            try:
                save_file({"activation": features.activation.contiguous(), **tensors}, file)
                self._on_disk.add(name)
            except (OSError, SafetensorError):
                # What was to be kept is computed again.
                self._writes = False
                with suppress(OSError):
                    file.unlink(missing_ok=True)
        return features

    def _has_room_on_disk(self) -> bool:
        """Whether checkpoint and adapter, which lie on the same disk, have room besides."""
        if self._writes:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._writes = shutil.disk_usage(self._folder).free > _LEFT_FREE
            except OSError:
                self._writes = False
        return self._writes

    def learn(self, name: str, module: nn.Module, learn: Callable[[], None]) -> bool:
        """Train a small module, or give it the weights that it got from the same training before.

        Parameters
        ----------
        name : str
            Of the training; the weights that the module begins with are told apart besides.
        module : nn.Module
            What is trained.
        learn : callable
            Trains it.

        Returns
        -------
        bool
            Whether it was trained now.
        """
        digest = xxhash.xxh3_128(name.encode())
        for tensor in module.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        key = digest.hexdigest()
        if key in self._weights:
            module.load_state_dict(self._weights[key])
            return False
        learn()
        self._weights[key] = {k: t.detach().cpu().clone() for k, t in module.state_dict().items()}
        return True

    def remove_leftovers(self) -> None:
        """Remove what a process that was killed has left in the folder; nobody finds it again."""
        for file in self._folder.glob("*.safetensors"):
            if file.stem not in self._on_disk:
                with suppress(OSError):
                    file.unlink()

    def clear(self) -> None:
        """Forget everything, on disk too."""
        self._weights.clear()
        self._kept.clear()
        self.nbytes = 0
        for name in self._on_disk:
            (self._folder / f"{name}.safetensors").unlink(missing_ok=True)
        self._on_disk.clear()


@contextmanager
def shared_features(folder: Path) -> Iterator[FeatureStore]:
    """Keep features for several trainings, and forget them at the end.

    Parameters
    ----------
    folder : Path
        Of the trainings; what does not fit into memory waits in a folder of its own there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="features-", dir=folder) as waiting:
        yield FeatureStore(Path(waiting))


def _in_order(tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return tuple(tensors[str(index)] for index in range(len(tensors)))

"""Keeps what the frozen part of the encoder made of each view, so that it runs once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from phasesam.models.split_encoder import FrozenFeatures

_SHARE_OF_FREE_MEMORY = 0.3


class FeatureStore:
    """Features by name: in memory up to a limit, the others on disk.

    Half precision, which is closer to the values than images are to reality, and half the size.

    Parameters
    ----------
    folder : Path
        Where to put what does not fit into memory; emptied by `clear`.
    limit : int, optional
        Bytes in memory; three tenths of what is free when left out.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self._folder = folder
        self._limit = (
            int(_SHARE_OF_FREE_MEMORY * psutil.virtual_memory().available)
            if limit is None
            else limit
        )
        self._kept: dict[str, FrozenFeatures] = {}
        self._on_disk: set[str] = set()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._kept) + len(self._on_disk)

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
            On the CPU in half precision, the same at the first and every later call.
        """
        if name in self._kept:
            return self._kept[name]
        file = self._folder / f"{name}.safetensors"
        if name in self._on_disk:
            tensors = load_file(file)
            return FrozenFeatures(tensors.pop("activation"), _in_order(tensors))
        features = compute().to("cpu", torch.float16)
        if self.nbytes + features.nbytes <= self._limit:
            self._kept[name] = features
            self.nbytes += features.nbytes
        else:
            self._folder.mkdir(parents=True, exist_ok=True)
            tensors = {str(i): t.contiguous() for i, t in enumerate(features.intermediate)}
            save_file({"activation": features.activation.contiguous(), **tensors}, file)
            self._on_disk.add(name)
        return features

    def clear(self) -> None:
        """Forget everything, on disk too."""
        self._kept.clear()
        self.nbytes = 0
        for name in self._on_disk:
            (self._folder / f"{name}.safetensors").unlink(missing_ok=True)
        self._on_disk.clear()


def _in_order(tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return tuple(tensors[str(index)] for index in range(len(tensors)))

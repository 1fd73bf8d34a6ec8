"""Adapters in memory: which version of one is meant, and how it gets onto its base.

A version is one content of the file at one strength. It is part of what tells models in memory
apart, so nobody ever computes with weights of two kinds: an adapter that was trained again, or
whose strength was changed, is another model, and the old one leaves when nobody uses it. On a
base in memory that takes a tenth of a second, because all other weights are shared.

Importing this file does not import torch.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from phasesam.core.errors import CheckpointError, InvalidSettingError
from phasesam.models import adapter_store

if TYPE_CHECKING:
    from torch import nn

    from phasesam.models.adapter_card import AdapterCard
    from phasesam.models.sam import SamModel

_LOADING = threading.Lock()
# By the hash of the file; some kilobytes each.
_cards: dict[str, AdapterCard] = {}
_base_hashes: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


@dataclass(frozen=True)
class AdapterVersion:
    """One content of an adapter, at one strength.

    Attributes
    ----------
    name : str
        Name in the store; the path for a file elsewhere.
    path : Path
        The file.
    content_hash : str
        Hash of what it holds.
    strength : float
        How much of it acts, 0–1.
    changes_encoder : bool
        Whether it changes the image encoder at all, and not only what comes after it.
    under : AdapterVersion or None
        The adapter that it is put on, where it was not trained on the base itself.
    """

    name: str
    path: Path
    content_hash: str
    strength: float = 1.0
    changes_encoder: bool = True
    under: AdapterVersion | None = None

    @property
    def card(self) -> AdapterCard:
        """What is known about this content, even if the file holds another one by now.

        Raises
        ------
        CheckpointError
            If the file was written since, and nobody has read this content here.
        """
        if self.content_hash not in _cards:
            card = adapter_store.card_of(self.path)
            self.refuse_other_content()
            _cards[self.content_hash] = card
        return _cards[self.content_hash]

    def refuse_other_content(self, since: str = "since it was chosen") -> None:
        """Raise a `CheckpointError` if the file holds another content by now."""
        if adapter_store.content_hash(self.path) != self.content_hash:
            raise CheckpointError(f"{self.path} was written {since}; try again")

    @property
    def embedding_key(self) -> str | None:
        """What tells its embeddings from others; None for those of the base."""
        below = None if self.under is None else self.under.embedding_key
        if self.strength == 0 or not self.changes_encoder:
            return below
        own = f"{self.content_hash}@{self.strength!r}"
        return own if below is None else f"{below}+{own}"

    def replaces(self, on_same_base: bool, other: object) -> bool:
        """Whether another version is out of date since this one is the present one."""
        if not isinstance(other, AdapterVersion):
            return False
        if other.under is not None and self.replaces(on_same_base, other.under):
            return True
        if other.path != self.path:
            return False
        changed = on_same_base and other.strength != self.strength
        return changed or other.content_hash != self.content_hash


Adapter = str | os.PathLike[str] | AdapterVersion | None
"""How callers name an adapter: by its name in the store, by its path, or pinned to a version."""


def names(known: object, asked: Adapter) -> bool:
    """Tell whether an adapter in memory is the one that a caller names."""
    if isinstance(known, AdapterVersion) and known.under is not None and names(known.under, asked):
        return True
    if not isinstance(known, AdapterVersion) or isinstance(asked, AdapterVersion):
        return known == asked
    text = "" if asked is None else os.fspath(asked)
    return text == known.name or Path(os.path.abspath(Path(text).expanduser())) == known.path


def title_of(adapter: AdapterVersion | str | None) -> str | None:
    """Write an adapter in memory for people; None for none."""
    return adapter.name if isinstance(adapter, AdapterVersion) else adapter


def prompt_card(adapter: AdapterVersion | str | None) -> AdapterCard | None:
    """Card of the adapter that says how objects are looked for.

    Parameters
    ----------
    adapter : AdapterVersion, str or None
        One that was learnt on top of another leaves that to the one below.

    Returns
    -------
    AdapterCard or None
        None for none, for adapters at no strength, and for those with classes, which leave
        prompts to their base; see `prompt_version`.

    Raises
    ------
    UnknownModelError, CheckpointError
        If there is no such adapter, or it is damaged.
    """
    if not isinstance(adapter, AdapterVersion):
        return None
    if adapter.under is not None:
        return prompt_card(adapter.under)
    card = adapter.card
    return card if card.answers_prompts and adapter.strength > 0 else None


def prompt_version(adapter: AdapterVersion | str | None) -> AdapterVersion | str | None:
    """Return what of an adapter answers prompts.

    Parameters
    ----------
    adapter : AdapterVersion, str or None
        As pinned by the model manager.

    Returns
    -------
    AdapterVersion, str or None
        One with classes leaves prompts to its base, None: what it has learnt of maps would make
        first clicks worse, on some materials by half.

    Raises
    ------
    UnknownModelError, CheckpointError
        If there is no such adapter, or it is damaged.
    """
    if not isinstance(adapter, AdapterVersion) or adapter.under is not None:
        return adapter
    return adapter if adapter.card.answers_prompts else None


class AdapterVersions:
    """Which version of each adapter is the present one. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By content: what takes the name of a removed adapter acts fully.
        self._strengths: dict[tuple[str, Path, str], float] = {}

    def present(self, base: str, adapter: str | os.PathLike[str]) -> AdapterVersion:
        """Return the present version of an adapter on a base.

        Raises
        ------
        UnknownModelError, CheckpointError
            If there is no such adapter, or it is damaged.
        """
        entry = adapter_store.get_adapter(adapter)
        content = entry.content_hash
        if entry.card is not None:
            _cards[content] = entry.card
        with self._lock:
            strength = self._strengths.get((base, entry.path, content), 1.0)
        encoder = entry.card is None or bool(entry.card.config.encoder)
        return AdapterVersion(entry.name, entry.path, content, strength, encoder)

    def strength(self, base: str, adapter: str | os.PathLike[str]) -> float:
        """Return the strength chosen; raises as `present`."""
        entry = adapter_store.get_adapter(adapter)
        with self._lock:
            if not any(known[:2] == (base, entry.path) for known in self._strengths):
                return 1.0  # without reading the file
        content = entry.content_hash
        with self._lock:
            return self._strengths.get((base, entry.path, content), 1.0)

    def set_strength(self, base: str, adapter: str | os.PathLike[str], strength: float) -> None:
        """Choose a strength.

        Raises
        ------
        InvalidSettingError
            If it is not within 0–1.
        UnknownModelError, CheckpointError
            As `present`.
        """
        if not 0 <= strength <= 1:
            raise InvalidSettingError(f"the strength must be within 0–1, got {strength}")
        entry = adapter_store.get_adapter(adapter)
        content = entry.content_hash
        with self._lock:
            self._strengths[base, entry.path, content] = float(strength)


def load_adapter(base: SamModel, version: Any) -> SamModel:
    """Put an adapter on a base and fold it into weights of its own.

    Parameters
    ----------
    base : SamModel
        On its device, with the adapter below where there is one; stays as it is.
    version : AdapterVersion
        Which content and strength.

    Returns
    -------
    SamModel
        Shares all weights with the base that the adapter leaves alone.

    Raises
    ------
    CheckpointError
        If the file is damaged, was made for other weights than those of this base, or has
        another content by now.
    """
    import torch

    from phasesam.models.adapters import load_trainable
    from phasesam.models.merging import FoldedAdapter

    # Weights made in inference mode could never be changed again. New layers draw random
    # numbers before they are filled, from a generator that belongs to all threads.
    with _LOADING, torch.inference_mode(False), torch.no_grad():
        model, card = load_trainable(base, version.path, fingerprint_of(base))
        version.refuse_other_content("while it was being loaded")
        FoldedAdapter(model, base, card.config, version.strength)
    return model


def fingerprint_of(base: SamModel) -> str:
    """Return `weights_hash` of a leased model, which does not change while it is in memory."""
    from phasesam.models.adapters import weights_hash

    if base not in _base_hashes:
        _base_hashes[base] = weights_hash(base)
    return _base_hashes[base]

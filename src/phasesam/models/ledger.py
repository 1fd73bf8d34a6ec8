"""The ledger of the models in memory: who is there, who uses them, who has to go first.

Bookkeeping only: no locks (`phasesam.models.residency` holds one around every call), no torch.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from phasesam.models.adapter_loading import AdapterVersion, title_of
from phasesam.models.memory import format_bytes


class ModelKey(NamedTuple):
    """What makes two copies in memory different."""

    name: str
    adapter: AdapterVersion | str | None
    device: str


@dataclass(frozen=True)
class ResidentModel:
    """One model in memory, as it was when asked.

    Attributes
    ----------
    name : str
        Name in the registry.
    adapter : str or None
        Name of the adapter on top of it.
    bytes : int
        Bytes of its weights; an adapter counts what it adds to its base. While it is
        being loaded: the bytes set aside for it.
    device : str
        Where it is, such as ``"cuda:0"``.
    leases : int
        How many computations use it now.
    loading : bool
        Whether it is still on its way.
    leaving : bool
        Whether it goes as soon as its last lease ends.
    last_used : float
        Seconds since the epoch.
    strength : float
        How much of the adapter acts, 0–1.
    """

    name: str
    adapter: str | None
    bytes: int
    device: str
    leases: int
    loading: bool
    leaving: bool
    last_used: float
    strength: float = 1.0


@dataclass(eq=False)
class Entry:
    """One copy of a model, from the moment somebody asks for it until it is gone.

    Attributes
    ----------
    key : ModelKey
        Which model and where.
    module : torch.nn.Module or None
        The model; None while it is loading and after it has gone.
    bytes : int
        Bytes of its weights, or set aside for them.
    leases : int
        Computations that use it.
    pins : int
        Adapters that stand on it.
    base : Entry or None
        The entry that an adapter stands on.
    loading : bool
        Whether the thread that asked first is still building it.
    retired : bool
        Whether it leaves when it is idle.
    urgent : bool
        Whether a thread that holds a lease waits for it, so that its loading must not
        wait for a lease to end.
    error : BaseException or None
        Why loading failed.
    """

    key: ModelKey
    module: Any = None
    bytes: int = 0
    leases: int = 0
    pins: int = 0
    base: Entry | None = None
    loading: bool = True
    retired: bool = False
    urgent: bool = False
    error: BaseException | None = None
    last_used: float = field(default_factory=time.time)
    turn: int = 0

    @property
    def idle(self) -> bool:
        """Whether nothing would miss it."""
        return not (self.loading or self.leases or self.pins)


class Ledger:
    """All entries, with the rule who goes first: the one unused for longest."""

    def __init__(self) -> None:
        self._entries: dict[ModelKey, Entry] = {}
        self._releasing: set[Entry] = set()
        self._turns = itertools.count(1)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def get(self, key: ModelKey) -> Entry | None:
        """Return the entry of a key; None if there is none."""
        return self._entries.get(key)

    def add(self, entry: Entry) -> None:
        """Write a new entry down."""
        self._entries[entry.key] = entry
        self.touch(entry)

    def remove(self, entry: Entry) -> None:
        """Strike out an entry that never came to be."""
        self._entries.pop(entry.key, None)

    def touch(self, entry: Entry) -> None:
        """Note that a model is in use now, and its base with it."""
        entry.turn = next(self._turns)
        entry.last_used = time.time()
        if entry.base is not None:
            self.touch(entry.base)

    def used(self, device: str, but: Entry | None = None) -> int:
        """Count the bytes on a device: present, set aside, and not yet given back."""
        held = sum(e.bytes for e in self if e.key.device == device and e is not but)
        return held + self.releasing(device)

    def releasing(self, device: str) -> int:
        """Count the bytes on a device that some thread is giving back just now."""
        return sum(e.bytes for e in self._releasing if e.key.device == device)

    def victims(self, device: str, need: int) -> list[Entry] | None:
        """Choose idle models to give back at least ``need`` bytes, least recently used first.

        Returns
        -------
        list of Entry or None
            In the order in which they must go (adapters before their base); None if all
            idle ones together are not enough.
        """
        chosen: list[Entry] = []
        for entry in self._leaving_order(e for e in self if e.key.device == device):
            if need <= 0:
                break
            chosen.append(entry)
            need -= entry.bytes
        return chosen if need <= 0 else None

    def idle(self, entries: Iterable[Entry] | None = None) -> list[Entry]:
        """List all entries (of those given) that can go, in the order in which they must."""
        return list(self._leaving_order(self if entries is None else entries))

    def _leaving_order(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield idle entries by age; a base follows when the last adapter on it has gone."""
        waiting = sorted(
            (e for e in entries if not (e.loading or e.leases)), key=lambda entry: entry.turn
        )
        pins = {id(e): e.pins for e in waiting}
        while True:
            free = next((e for e in waiting if not pins[id(e)]), None)
            if free is None:
                return
            waiting.remove(free)
            if free.base is not None and id(free.base) in pins:
                pins[id(free.base)] -= 1
            yield free

    def begin_release(self, entries: Iterable[Entry]) -> None:
        """Take entries out of reach; their bytes count until `end_release`."""
        for entry in entries:
            self.remove(entry)
            self._releasing.add(entry)
            if entry.base is not None:
                entry.base.pins -= 1

    def end_release(self, entries: Iterable[Entry]) -> None:
        """Note that the memory of these entries has been given back."""
        self._releasing.difference_update(entries)

    def resident(self) -> tuple[ResidentModel, ...]:
        """Describe all entries, in the order in which they were asked for."""
        return tuple(
            ResidentModel(
                entry.key.name,
                title_of(entry.key.adapter),
                entry.bytes,
                entry.key.device,
                entry.leases,
                entry.loading,
                entry.retired,
                entry.last_used,
                getattr(entry.key.adapter, "strength", 1.0),
            )
            for entry in self
        )

    def describe(self, device: str, but: Entry | None = None) -> str:
        """Say for an error message which models are in use on a device."""
        parts = []
        for entry in self:
            if entry.key.device == device and not entry.idle and entry is not but:
                adapter = f" + {title_of(entry.key.adapter)}" if entry.key.adapter else ""
                state = "loading" if entry.loading else f"in use {entry.leases}x"
                if entry.pins and not entry.leases:
                    state = "base of an adapter"
                parts.append(f"{entry.key.name}{adapter} ({format_bytes(entry.bytes)}, {state})")
        return ", ".join(parts) or "none"

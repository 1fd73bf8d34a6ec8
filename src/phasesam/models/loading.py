"""Bringing one model into memory: build, measure, make room, move to the device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from phasesam.models import memory
from phasesam.models.adapter_loading import AdapterVersion, load_adapter, title_of
from phasesam.models.ledger import Entry, ModelKey
from phasesam.models.residency import Request, Residency, shared_storages
from phasesam.models.shortage import ShortageGuard, check_stop

if TYPE_CHECKING:
    import torch

Builder = Callable[..., Any]
"""Called as ``builder(spec, progress=..., should_stop=...)`` with the callbacks that were given;
returns a module on the CPU."""

AdapterLoader = Callable[[Any, Any], Any]
"""Called as ``loader(base, adapter)`` with the base model on its device; returns a module that
may share the base's weights and leaves the base as it is."""


class ModelLoader:
    """Loads models into a `Residency`.

    Parameters
    ----------
    residency : Residency
        Where the models live.
    guard : ShortageGuard
        Frees idle models and tries again when memory runs out.
    builder : callable, optional
        `phasesam.models.sam.build_model` when left out.
    find_spec : callable, optional
        `phasesam.models.registry.get_spec` when left out.
    adapter_loader : callable, optional
        `phasesam.models.adapter_loading.load_adapter` when left out.
    """

    def __init__(
        self,
        residency: Residency,
        guard: ShortageGuard,
        builder: Builder | None = None,
        find_spec: Callable[[str], Any] | None = None,
        adapter_loader: AdapterLoader | None = None,
    ) -> None:
        self._residency = residency
        self._guard = guard
        self._builder = builder
        self._find_spec = find_spec
        self._adapter_loader = adapter_loader or load_adapter
        self._sizes: dict[tuple[str, str | None], int] = {}

    def acquire(
        self,
        name: str,
        adapter: AdapterVersion | str | None,
        device: torch.device,
        request: Request,
    ) -> Entry:
        """Return a model with a lease of the calling thread on it, loading it if need be."""
        entry, must_load = self._residency.borrow(ModelKey(name, adapter, str(device)), request)
        if must_load:
            try:
                self._load(entry, device, request)
            except BaseException as error:
                self._residency.fail(entry, error)
                raise
        return entry

    def _load(self, entry: Entry, device: torch.device, request: Request) -> None:
        name, adapter, _ = entry.key
        if adapter is None:
            spec = self._spec(name)
            module = self._build(
                entry,
                getattr(spec, "size_bytes", None) or 0,
                request,
                lambda: self._construct(spec, request),
            )
            with memory.emptied_on_error(module):
                self._place(module, device, request, name)
            self._residency.settle(entry, module)
            return
        below = adapter.under if isinstance(adapter, AdapterVersion) else None
        base = self.acquire(name, below, device, request.for_base_of(entry))
        try:
            module = self._build(
                entry, 0, request, lambda: self._adapter_loader(base.module, adapter), base
            )
            self._residency.settle(entry, module.eval(), base)
        finally:
            self._residency.end_lease(base, threading.get_ident())

    def _build(
        self,
        entry: Entry,
        guess: int,
        request: Request,
        construct: Callable[[], Any],
        base: Entry | None = None,
    ) -> Any:
        """Build a module and set aside the bytes it has for its device."""
        shared = shared_storages(base)
        key = (entry.key.name, title_of(entry.key.adapter))
        known = self._sizes.get(key)
        expected = self._residency.at_most_budget(entry, guess if known is None else known)
        while True:
            self._residency.reserve(entry, expected, request)
            module = self._guard.twice(construct, f"loading {entry.key.name}")
            with memory.emptied_on_error(module, shared):
                size = memory.module_bytes(module, shared)
                self._sizes[key] = size
                if self._residency.reserve(entry, size, request, wait=False):
                    return module
            # It is larger than expected and there is no room now: wait empty-handed.
            memory.release_module(module, shared)
            del module
            expected = size

    def _place(self, module: Any, device: torch.device, request: Request, name: str) -> None:
        check_stop(request.should_stop)
        if device.type != "cpu":
            self._guard.twice(lambda: module.to(device), f"loading {name} onto {device}")
        module.eval()

    def _spec(self, name: str) -> Any:
        if self._find_spec is not None:
            return self._find_spec(name)
        from phasesam.models.registry import get_spec

        return get_spec(name)

    def _construct(self, spec: Any, request: Request) -> Any:
        if self._builder is not None:
            return self._builder(spec, **request.callbacks())
        from phasesam.models.sam import build_model

        return build_model(spec, **request.callbacks())

"""The model manager: one per process, sole owner of the memory that models fill.

Models are borrowed with `ModelManager.lease`. Whoever borrows one that is not in memory loads it;
whoever comes meanwhile waits for it. Idle models stay until their room is needed, the one unused
for longest leaves first.

Rules for callers, which keep threads from waiting for each other for ever:

* lease first, take `ModelManager.execution_lock` second (`ModelManager.retry` and
  `ModelManager.run_batches` take it for you);
* a thread that already holds a lease or the execution lock never waits for room: its next
  model may exceed the budget until one of the leases ends.

Importing this file, `get_manager`, `ModelManager.status` and `ModelManager.resident` do not
import torch, so a window may call them; loading does, and belongs into a worker thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.models import devices, memory
from phasesam.models.adapter_loading import Adapter, AdapterVersion, AdapterVersions, names
from phasesam.models.computing import DeviceWork
from phasesam.models.devices import DeviceChoice, Settings
from phasesam.models.execution import ExecutionLock
from phasesam.models.figures import ManagerEvents, ManagerStatus, read_status, shortage_report
from phasesam.models.ledger import ModelKey, ResidentModel
from phasesam.models.loading import AdapterLoader, Builder, ModelLoader
from phasesam.models.residency import Request, Residency
from phasesam.models.shortage import ShortageGuard

if TYPE_CHECKING:
    import torch

    from phasesam.models.sam import SamModel

__all__ = ["ManagerEvents", "ManagerStatus", "ModelManager", "ResidentModel", "get_manager"]


class ModelManager(DeviceWork):
    """Loads models, counts who uses them, and keeps them within a memory budget.

    Parameters
    ----------
    device : str, optional
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``; the environment's
        ``PHASESAM_DEVICE`` when left out, else the fastest device there is.
    precision : str, optional
        ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``; else ``PHASESAM_PRECISION``.
    budget_bytes : int, optional
        Bytes that weights may fill on a device; else ``PHASESAM_MEMORY_BUDGET`` (such as
        ``4GB``), else a share of the device's memory.
    builder : callable, optional
        Builds a model; `phasesam.models.sam.build_model` when left out.
    find_spec : callable, optional
        Finds what the builder takes by name; `phasesam.models.registry.get_spec` when left out.
    adapter_loader : callable, optional
        ``loader(base, adapter)`` returns a module that may share the base's weights, and gets
        adapters by the names that callers use. When left out they are looked up in
        `phasesam.models.adapter_store`, and folded into a copy of the base's structure.

    Attributes
    ----------
    events : ManagerEvents
        ``events.changed`` fires after every change, outside all locks, in any thread.
    execution_lock : ExecutionLock
        Held while a model computes: one computation at a time, first come, first served.

    Raises
    ------
    InvalidSettingError
        If an argument or a variable makes no sense.
    """

    def __init__(
        self,
        *,
        device: str | None = None,
        precision: str | None = None,
        budget_bytes: int | None = None,
        builder: Builder | None = None,
        find_spec: Callable[[str], Any] | None = None,
        adapter_loader: AdapterLoader | None = None,
    ) -> None:
        self.events = ManagerEvents()
        self.execution_lock = ExecutionLock()
        self._choice = DeviceChoice(devices.read_settings(device, precision, budget_bytes))
        self._residency = Residency(self._choice.budget, self.events.announce, self.execution_lock)
        self._guard = ShortageGuard(self.execution_lock, self._free, self._report)
        self._versions = AdapterVersions() if adapter_loader is None else None
        self._loader = ModelLoader(self._residency, self._guard, builder, find_spec, adapter_loader)

    @property
    def device(self) -> torch.device:
        """Where the next model goes. Imports torch.

        Raises
        ------
        InvalidSettingError
            If this machine has no such device.
        """
        return self._choice.device

    @property
    def chosen(self) -> Settings:
        """What was asked for: "auto", and None for the budget, where nothing was."""
        return self._choice.settings

    def set_device(self, device: str) -> None:
        """Choose the device for models from now on.

        Idle copies elsewhere leave at once, others when their leases end. Before the first model
        is loaded the choice is not checked against the machine: that means importing torch.

        Parameters
        ----------
        device : str
            ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.

        Raises
        ------
        InvalidSettingError
            If there is no such device; the old one stays.
        """
        self._choice.choose_device(device)
        if self._choice.known is not None:
            chosen = str(self._choice.known)
            self._residency.retire(lambda key: key.device != chosen)
        self.events.announce()

    @property
    def precision(self) -> torch.dtype:
        """Number format to compute in on `device`; weights are kept in fp32. Imports torch."""
        return self._choice.precision(self.device)

    def set_precision(self, precision: str) -> None:
        """Choose ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"`` for computations from now on."""
        self._choice.choose_precision(precision)
        self.events.announce()

    def autocast(self, device: torch.device | None = None) -> AbstractContextManager[object]:
        """Return a block in which torch computes in the precision chosen for a device.

        Parameters
        ----------
        device : torch.device, optional
            Where the leased model is, which after `set_device` may not be `device`.
        """
        device = self.device if device is None else device
        return devices.autocast(device, self._choice.precision(device))

    @property
    def budget_bytes(self) -> int | None:
        """Bytes that weights may fill on the device; None until it is known."""
        return self._choice.budget(str(self._choice.known))

    def set_budget(self, budget_bytes: int | None) -> None:
        """Set the bytes that weights may fill; None is a share of the device's memory.

        Idle models that do not fit any more leave at once.

        Raises
        ------
        InvalidSettingError
            If it is no number (such as ``"4GB"``), or less than one byte.
        """
        self._choice.choose_budget(budget_bytes)
        self._residency.fit(str(self._choice.known))
        self.events.announce()

    @contextmanager
    def lease(
        self,
        name: str,
        adapter: Adapter = None,
        *,
        progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
        timeout: float = 60.0,
    ) -> Iterator[SamModel]:
        """Borrow a model; it stays in memory until the block ends.

        Parameters
        ----------
        name : str
            Name in the registry.
        adapter : str, path or AdapterVersion, optional
            Adapter to put on it, by its name in the store or its path; the weights of the base
            are shared. With an `AdapterVersion` it is exactly that content and strength.
        progress : callable, optional
            ``progress(done, total)`` in bytes while this call downloads weights.
        should_stop : callable, optional
            Asked while waiting and downloading.
        timeout : float
            Longest wait in seconds until other models make room.

        Yields
        ------
        SamModel
            On the device, in evaluation mode. After the block its weights may be taken away.

        Raises
        ------
        UnknownModelError, CheckpointError, DownloadError
            If the model cannot be had.
        DeviceMemoryError
            If there is no room for it; the message says what is in the way.
        CancelledError
            If the user asked to stop.
        """
        request = Request(progress, should_stop, timeout)
        pinned = self.adapter_version(name, adapter)
        entry = self._loader.acquire(name, pinned, self.device, request)
        holder = threading.get_ident()
        try:
            yield entry.module
        finally:
            self._residency.end_lease(entry, holder)

    def load(
        self,
        name: str,
        adapter: Adapter = None,
        *,
        progress: ProgressCallback | None = None,
        should_stop: StopCallback | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Bring a model into memory before it is needed.

        A model that was about to leave (see `unload`) stays.

        Parameters
        ----------
        name, adapter, progress, should_stop, timeout
            As for `lease`, which also names the errors.
        """
        pinned = self.adapter_version(name, adapter)
        self._residency.keep(ModelKey(name, pinned, str(self.device)))
        with self.lease(name, pinned, progress=progress, should_stop=should_stop, timeout=timeout):
            pass

    def adapter_version(self, name: str, adapter: Adapter) -> AdapterVersion | str | None:
        """Look which content and strength an adapter has now, and let older ones leave.

        Parameters
        ----------
        name : str
            The model it is for.
        adapter : str, path or AdapterVersion, optional
            The adapter; a version is returned as it is, and so is None.

        Returns
        -------
        AdapterVersion or None
            To lease what an embedding was made with. Whatever was passed, where the manager
            has an adapter loader of its own.

        Raises
        ------
        UnknownModelError, CheckpointError
            If there is no such adapter, or it is damaged.
        """
        if adapter is None or isinstance(adapter, AdapterVersion):
            return adapter
        if self._versions is None:
            return os.fspath(adapter)
        version = self._versions.present(name, adapter)
        if self._residency.retire(lambda key: version.replaces(key.name == name, key.adapter)):
            self.events.announce()
        return version

    def adapter_strength(self, name: str, adapter: str | os.PathLike[str]) -> float:
        """Tell how much of an adapter acts on a model: 1 unless `set_strength` chose less."""
        return 1.0 if self._versions is None else self._versions.strength(name, adapter)

    def set_strength(self, name: str, adapter: str | os.PathLike[str], strength: float) -> None:
        """Choose how much of an adapter acts from now on: 0 the base, 1 all of it.

        A computation that runs goes on, and ends, with the strength it began with.

        Parameters
        ----------
        name : str
            The model that the adapter is put on.
        adapter : str or path
            The adapter.
        strength : float
            0–1.

        Raises
        ------
        InvalidSettingError
            If it is not within 0–1.
        UnknownModelError, CheckpointError
            As `adapter_version`.
        """
        if self._versions is not None:
            self._versions.set_strength(name, adapter, strength)
            self.adapter_version(name, adapter)
            self.events.announce()

    def unload(self, name: str, adapter: Adapter = None) -> int:
        """Take a model out of memory, on all devices.

        A model in use counts as 0 here and leaves when its last lease ends; who leases it
        before that shares it.

        Parameters
        ----------
        name : str
            The model.
        adapter : str, path or AdapterVersion, optional
            Only this adapter; when left out, the model with all its adapters.

        Returns
        -------
        int
            Bytes freed now.
        """
        freed = self._residency.retire(
            lambda key: key.name == name and (adapter is None or names(key.adapter, adapter))
        )
        self.events.announce()
        return freed

    def unload_all(self) -> int:
        """Take all models out of memory; returns as `unload`."""
        freed = self._residency.retire(lambda key: True)
        self.events.announce()
        return freed

    def evict_idle(self) -> int:
        """Take all models that nobody uses out of memory; return the bytes freed."""
        freed = self._residency.evict_idle()
        self.events.announce()
        return freed

    def _free(self) -> None:
        self._residency.evict_idle()
        device = self._choice.known
        memory.return_memory(() if device is None else (device.type,))

    def _report(self, doing: str, shortage: str) -> str:
        status = self.status()
        return shortage_report(status, self._residency.describe(status.device), doing, shortage)

    def resident(self) -> tuple[ResidentModel, ...]:
        """Describe the models in memory, those being loaded included."""
        return self._residency.resident()

    def status(self) -> ManagerStatus:
        """Read the live figures. Does not import torch."""
        return read_status(self._choice, self._residency.resident())


_manager: ModelManager | None = None
_manager_lock = threading.Lock()


def get_manager() -> ModelManager:
    """Return the manager of this process; it is made when it is first asked for.

    Raises
    ------
    InvalidSettingError
        If one of the variables ``PHASESAM_DEVICE``, ``PHASESAM_PRECISION`` and
        ``PHASESAM_MEMORY_BUDGET`` makes no sense.
    """
    global _manager
    if _manager is None:
        with _manager_lock:
            if _manager is None:
                _manager = ModelManager()
    return _manager

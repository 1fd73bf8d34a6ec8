"""Learning while annotating: a few quick steps on the mask decoder after each object.

The image encoder stays as it is, so cached embeddings serve again, and a small LoRA on the
decoder learns to answer a click with the masks that the user keeps. Earlier objects are learnt
again with each new one, so that they are not forgotten (as in Schön et al., arXiv 2404.08421, only
a light part of the model changes).
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from phasesam.core.errors import InvalidSettingError
from phasesam.core.types import StopCallback
from phasesam.models.adapter_joining import join
from phasesam.models.adapter_loading import AdapterVersion, fingerprint_of, prompt_version
from phasesam.models.adapter_store import AdapterEntry, check_name, content_hash, import_adapter
from phasesam.models.adapters import AdapterCard, save_adapter
from phasesam.training.annotation_history import (
    Example,
    LearningConfig,
    LearningHistory,
    LearntState,
)
from phasesam.training.annotation_update import Student

if TYPE_CHECKING:
    from phasesam.core.mask_set import MaskCrop
    from phasesam.engines.embedding_cache import Embedding
    from phasesam.models.adapter_loading import Adapter
    from phasesam.models.manager import ModelManager
    from phasesam.models.sam import SamModel

NAME = "learnt while annotating"


class AnnotationLearner:
    """Learns from objects one after the other.

    Parameters
    ----------
    model : str
        Name of the model in the registry.
    adapter : str, path or AdapterVersion, optional
        Adapter of the model that the objects are prompted with; what is learnt is put on it.
    config : LearningConfig, optional
        How much is learnt from one object.
    manager : ModelManager, optional
        The process-wide one by default.

    Attributes
    ----------
    history : LearningHistory
        What was learnt, to go back and forth in. `learn` only reads it.
    under : AdapterVersion or None
        The adapter as it was at the start.

    Raises
    ------
    UnknownModelError, CheckpointError
        If there is no such adapter, or it is damaged.
    """

    def __init__(
        self,
        model: str = "mobile_sam",
        adapter: Adapter = None,
        config: LearningConfig | None = None,
        manager: ModelManager | None = None,
    ) -> None:
        if manager is None:
            from phasesam.models.manager import get_manager

            manager = get_manager()
        self.model = model
        self.config = config or LearningConfig()
        self.manager = manager
        under = prompt_version(manager.adapter_version(model, adapter))
        if isinstance(under, str):
            raise InvalidSettingError(f"expected an adapter that is a file, got {under!r}")
        self.under: AdapterVersion | None = under
        self.history = LearningHistory(self.config.undoable)
        self._folder = Path(tempfile.mkdtemp(prefix="phasesam-learnt-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._files = 0

    @property
    def version(self) -> AdapterVersion | None:
        """What was learnt, to be leased or given to a segmenter; None for nothing."""
        state = self.history.present
        return None if state is None else state.version

    def add(
        self,
        embedding: Embedding,
        mask: MaskCrop,
        source: Hashable = None,
        corner: tuple[int, int] = (0, 0),
    ) -> bool:
        """Learn from one object and go on with the result; False if it cannot be learnt from.

        Parameters
        ----------
        embedding : Embedding
            Of its image, from ``Segmenter.encode``, or of a part, from ``Segmenter.look``.
        mask : MaskCrop
            Its pixels.
        source : hashable
            What the caller knows it by.
        corner : (int, int)
            First row and column of the part of the image that was encoded.
        """
        state = self.learn([Example.of(embedding, mask, source, corner)])
        if state is not None:
            self.history.accept(state)
        return state is not None

    def learn(
        self,
        new: Sequence[Example],
        replay: Sequence[Example] | None = None,
        should_stop: StopCallback | None = None,
    ) -> LearntState | None:
        """Work an update out; `history` stays as it is until the result is accepted.

        Parameters
        ----------
        new : sequence of Example
            Objects that were just added.
        replay : sequence of Example, optional
            Earlier objects as they are now; those of the present state when left out.
        should_stop : callable, optional
            Asked before each step.

        Returns
        -------
        LearntState or None
            None if no new object can be learnt from: it is too small, or its embedding is gone.

        Raises
        ------
        CancelledError
            If the user asked to stop.
        ModelError
            If the model cannot be had.
        """
        before = self.history.present
        earlier = tuple(before.examples if before is not None and replay is None else replay or ())
        with self.manager.lease(self.model, self.under, should_stop=should_stop) as base:
            student = Student(base, before, self.config, self.manager, should_stop)
            usable = student.usable(new)
            if not usable:
                return None
            trials = student.try_on(usable)
            descent = student.learn(usable, earlier)
            count = len(usable) + (0 if before is None else before.count)
            version = self._write(student.model, fingerprint_of(base), count)
        state = LearntState(
            weights=descent.weights,
            moments=descent.moments,
            examples=(*earlier, *usable)[-self.config.kept :],
            trials=(*(() if before is None else before.trials), *trials)[-self.config.trials :],
            count=count,
            sources=frozenset(example.source for example in new),
            version=version,
            losses=descent.losses,
        )
        weakref.finalize(state, version.path.unlink, missing_ok=True)
        return state

    def prepare(self, state: LearntState) -> None:
        """Bring a state into memory, for the next click, and let all others of this session go."""
        self.manager.load(self.model, state.version)
        self.release(but=state.version)

    def release(self, but: AdapterVersion | None = None) -> None:
        """Take what was learnt, except one version, out of memory; it comes back on demand."""
        for state in self.history.states():
            if state.version != but:
                self.manager.unload(self.model, state.version)

    def keep(self, name: str) -> AdapterEntry:
        """Put what was learnt into the store of adapters.

        With an adapter below, both become one adapter of the base, with the strength that the
        one below has now.

        Raises
        ------
        InvalidSettingError
            If nothing was learnt yet, or the name is malformed or taken.
        SaveError
            If it cannot be stored.
        """
        state = self.history.present
        if state is None:
            raise InvalidSettingError("nothing was learnt yet that could be kept")
        check_name(name)
        if self.under is None:
            return import_adapter(state.version.path, name)
        path = self._folder / "joined.safetensors"
        try:
            with self.manager.lease(self.model) as base:
                joined, card = join(base, self.under, state.version)
                save_adapter(joined, card, path)
            return import_adapter(path, name)
        finally:
            path.unlink(missing_ok=True)

    def _write(self, model: SamModel, base_hash: str, count: int) -> AdapterVersion:
        """Save what was learnt as a file of its own, so that no two versions are confused."""
        self._files += 1
        path = self._folder / f"{self._files}.safetensors"
        details = {"recipe": NAME, "objects": count}
        card = AdapterCard(self.config.adapter, self.model, base_hash, details=details)
        save_adapter(model, card, path)
        return AdapterVersion(
            NAME, path, content_hash(path), changes_encoder=False, under=self.under
        )

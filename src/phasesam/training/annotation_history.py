"""What was learnt from the objects of a labelling session, step by step, and back again.

Importing this file loads no torch.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from phasesam.core.boxes import contains
from phasesam.core.errors import InvalidSettingError
from phasesam.core.mask_set import MaskCrop
from phasesam.models.adapter_config import AdapterConfig
from phasesam.training.loss_config import LossConfig
from phasesam.training.prompt_config import PromptTraining

if TYPE_CHECKING:
    from phasesam.engines.embedding_cache import Embedding, EmbeddingKey
    from phasesam.models.adapter_loading import AdapterVersion


@dataclass(frozen=True)
class LearningConfig:
    """How much is learnt from one object.

    Attributes
    ----------
    steps : int
        Most steps of the optimiser in one update.
    patience : int
        Steps in a row that do not lower the loss after which an update ends early.
    learning_rate, weight_decay : float
        Of AdamW.
    rank, alpha : int, float
        Of the LoRA on the mask decoder.
    replayed : int
        Earlier objects that are learnt again with a new one.
    together : int
        Most new objects in one update; of more, the others are only replayed later.
    kept : int
        Objects kept for replay; the oldest leave first.
    undoable : int
        Updates that can be taken back.
    trials : int
        Latest objects that the effect is measured on.
    prompts : PromptTraining
        How clicks are simulated.
    loss : LossConfig
        What is minimised.
    seed : int
        Of all chance.
    """

    steps: int = 5
    patience: int = 2
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    rank: int = 4
    alpha: float = 4.0
    replayed: int = 2
    together: int = 4
    kept: int = 50
    undoable: int = 50
    trials: int = 12
    prompts: PromptTraining = field(
        default_factory=lambda: PromptTraining(rounds=1, judged=1, box_share=0.0)
    )
    loss: LossConfig = field(default_factory=LossConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "patience", "together", "kept", "undoable", "trials"):
            if getattr(self, name) < 1:
                raise InvalidSettingError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.replayed < 0 or self.learning_rate <= 0 or self.weight_decay < 0:
            raise InvalidSettingError(
                "expected replayed and weight_decay from 0 and a learning rate above 0, got "
                f"{self.replayed}, {self.weight_decay} and {self.learning_rate}"
            )

    @property
    def adapter(self) -> AdapterConfig:
        """What is put on the model: LoRA on the mask decoder, nothing on the encoder."""
        return AdapterConfig(
            encoder=(),
            decoder="lora",
            rank=self.rank,
            decoder_rank=self.rank,
            alpha=self.alpha,
        )


@dataclass(frozen=True, eq=False)
class Example:
    """One object and where its image's embedding is; the image itself is not kept.

    Attributes
    ----------
    key : EmbeddingKey
        Of the embedding in the cache.
    image_shape, input_size : (int, int)
        Height and width of what was encoded, and of what the model saw of it.
    mask : MaskCrop
        In pixels of the image.
    source : hashable
        What the caller knows the object by.
    corner : (int, int)
        First row and column of the part of the image that was encoded.
    """

    key: EmbeddingKey
    image_shape: tuple[int, int]
    input_size: tuple[int, int]
    mask: MaskCrop
    source: Hashable = None
    corner: tuple[int, int] = (0, 0)

    @property
    def is_whole(self) -> bool:
        """Whether all of the object lies in what was encoded."""
        top, left = self.corner
        height, width = self.image_shape
        return contains((top, left, top + height, left + width), self.mask.box)

    @classmethod
    def of(
        cls,
        embedding: Embedding,
        mask: MaskCrop,
        source: Hashable = None,
        corner: tuple[int, int] = (0, 0),
    ) -> Example:
        """Make an example of an object in an image, or a part of one, that was encoded."""
        shape, size = embedding.image_shape, embedding.input_size
        return cls(embedding.key, shape, size, mask, source, corner)


@dataclass(frozen=True)
class Trial:
    """IoU of the first click on one object, before anything was learnt from this object.

    Attributes
    ----------
    before : float
        Of the model without what was learnt.
    after : float
        With what was learnt from the objects before this one.
    """

    before: float
    after: float


@dataclass(frozen=True, eq=False)
class LearntState:
    """All that was learnt up to one update. Never changed, so that going back is exact.

    Attributes
    ----------
    weights : mapping of str to Tensor
        Of the adapter, on the CPU.
    moments : mapping
        State of the optimiser.
    examples : tuple of Example
        Objects for replay, the latest last.
    trials : tuple of Trial
        The latest.
    count : int
        Objects learnt from in all.
    sources : frozenset
        Sources of the objects that this update was made for.
    version : AdapterVersion
        To be leased or given to a segmenter.
    losses : tuple of float
        Before each step of the update, and after the last.
    """

    weights: Mapping[str, Any]
    moments: Mapping[str, Any]
    examples: tuple[Example, ...]
    trials: tuple[Trial, ...]
    count: int
    sources: frozenset[Hashable]
    version: AdapterVersion
    losses: tuple[float, ...] = ()

    @property
    def effect(self) -> Trial | None:
        """Mean IoU of the first click without and with what was learnt; None if not measured."""
        if not self.trials:
            return None
        count = len(self.trials)
        before = sum(trial.before for trial in self.trials) / count
        return Trial(before, sum(trial.after for trial in self.trials) / count)


class LearningHistory:
    """States one after the other, to go back and forth between.

    Parameters
    ----------
    undoable : int
        How many updates can be taken back at most.
    """

    def __init__(self, undoable: int = 50) -> None:
        self._undoable = undoable
        self._done: list[LearntState | None] = [None]
        self._undone: list[LearntState] = []

    @property
    def present(self) -> LearntState | None:
        """What holds now; None if nothing was learnt."""
        return self._done[-1]

    @property
    def undone(self) -> tuple[LearntState, ...]:
        """What was taken back, what `redo` would bring back first in front."""
        return tuple(reversed(self._undone))

    def states(self) -> tuple[LearntState, ...]:
        """List all states that are kept, those taken back included."""
        return tuple(state for state in (*self._done, *self._undone) if state is not None)

    def accept(self, state: LearntState) -> None:
        """Make an update the present one; what was taken back is lost."""
        self._undone.clear()
        self._done.append(state)
        del self._done[: -(self._undoable + 1)]

    def undo(self) -> bool:
        """Take the last update back; False if that cannot be."""
        if len(self._done) < 2:
            return False
        state = self._done.pop()
        if state is not None:
            self._undone.append(state)
        return True

    def redo(self) -> bool:
        """Bring back what was taken back last; False if there is nothing."""
        if not self._undone:
            return False
        self._done.append(self._undone.pop())
        return True

    def clear(self) -> None:
        """Forget everything."""
        self._done = [None]
        self._undone = []

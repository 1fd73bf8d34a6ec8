"""The training loop: steps, validation, checkpoints, early stopping. Knows no SAM.

What is learnt is the `Objective`; what happens beside is up to callbacks. With several
processes (``accelerate launch``) each takes its share of every batch, and the sums of gradients
are exchanged, so that the result is that of one process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from phasesam.core.errors import CancelledError, TrainingError
from phasesam.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from accelerate import Accelerator

    from phasesam.training.recipes import OptimiserConfig
    from phasesam.training.run_folder import Preview


class Objective(Protocol):
    """What is learnt."""

    def weights(self) -> Mapping[str, Tensor]:
        """All that is trained, by name."""

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights with their learning rates, for an optimiser."""

    def prepare(self, report: Callable[[int, int], None]) -> bool:
        """Do what comes before the first epoch, and tell how far it is: steps done and all.

        Returns whether there was anything to do.
        """

    def samples(self, epoch: int) -> Sequence[Any]:
        """List the samples of an epoch, the same at every call."""

    def learning(self, on: bool) -> None:
        """Switch to training or to validation."""

    def backward(
        self, samples: Sequence[Any], share: float, backward: Callable[[Tensor], None]
    ) -> float:
        """Add up gradients of ``share`` times the loss of each sample; return its sum."""

    def validate(self) -> tuple[dict[str, float], Preview | None]:
        """Figures, "val_score" among them where there is one; a picture."""


@dataclass(frozen=True)
class Progress:
    """Where a training is.

    Attributes
    ----------
    epoch, epochs, step, steps : int
        Done and all.
    seconds_left : float or None
        Estimate.
    best_score : float or None
        Best validation score so far.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    seconds_left: float | None
    best_score: float | None


class Callback:
    """What happens beside the training; all methods may be left out."""

    def on_prepare(self, done: int, total: int) -> None:
        """After every step of what comes before the first epoch."""

    def on_step(self, progress: Progress, loss: float) -> None:
        """After every step."""

    def on_epoch(
        self, progress: Progress, row: Mapping[str, float], preview: Preview | None
    ) -> None:
        """After the validation of an epoch."""

    def on_best(self, row: Mapping[str, float]) -> None:
        """After an epoch whose weights are the best so far."""

    def should_stop(self) -> bool:
        """Asked after every step; True saves and ends."""
        return False


@dataclass(frozen=True)
class TrainerConfig:
    """Length and rhythm of a training.

    Attributes
    ----------
    optimiser : OptimiserConfig
        How weights are moved.
    batch, micro_batch : int
        Samples to a step, and at once in memory.
    epochs : int
        Passes.
    patience : int or None
        Epochs without a better score after which training ends.
    checkpoint : Path or None
        File of the checkpoint, written after every epoch, before the first where something was
        learnt by then, and when a callback asks to stop.
    key : str
        Fingerprint of data and settings, which a checkpoint must have.
    """

    optimiser: OptimiserConfig
    batch: int = 4
    micro_batch: int = 1
    epochs: int = 20
    patience: int | None = None
    checkpoint: Path | None = None
    key: str = ""


_KINDS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": lambda groups, **kw: torch.optim.SGD(groups, momentum=0.9, **kw),
}


@dataclass
class Trainer:
    """Moves weights until they are good.

    Parameters
    ----------
    objective : Objective
        What is learnt.
    config : TrainerConfig
        Length and rhythm.
    accelerator : accelerate.Accelerator
        Device, precision, processes.
    callbacks : sequence of Callback
        What happens beside; in the main process only.
    """

    objective: Objective
    config: TrainerConfig
    accelerator: Accelerator
    callbacks: Sequence[Callback] = ()
    state: TrainingState = field(default_factory=TrainingState)

    def __post_init__(self) -> None:
        optimiser = self.config.optimiser
        self._groups = self.objective.parameter_groups()
        self._optimiser = _KINDS[optimiser.kind](self._groups, weight_decay=optimiser.weight_decay)
        self._rates = [group["lr"] for group in self._optimiser.param_groups]
        self._parameters = [p for group in self._groups for p in group["params"]]
        self._began = time.monotonic()

    def resume(self) -> bool:
        """Go back to the checkpoint, if there is one.

        Raises
        ------
        CheckpointError
            If it is damaged or another training's.
        """
        path = self.config.checkpoint
        if path is None or not path.exists():
            return False
        self.state = load_checkpoint(
            path, self.objective.weights(), self._optimiser, self.config.key
        )
        return True

    def run(self) -> TrainingState:
        """Train to the end.

        Raises
        ------
        CancelledError
            If a callback asked to stop; the checkpoint is that of the last whole step. What
            comes before the first epoch is kept once it is complete.
        TrainingError
            If the loss is not a number any more.
        SaveError
            If a checkpoint cannot be written; the one before is still there.
        """
        self._began = time.monotonic() - self.state.seconds
        if self.state.epoch == 0 and not self.state.is_prepared:
            self._prepare()
        while self.state.epoch < self.config.epochs and not self._is_stale():
            self._epoch()
        return self.state

    def _prepare(self) -> None:
        learnt = self.objective.prepare(self._report_preparation)
        if self.accelerator.num_processes > 1:
            # All did the same, but on some devices not to the last bit.
            from accelerate.utils import broadcast

            for parameter in self._parameters:
                parameter.data.copy_(broadcast(parameter.data.clone()))
        self.state.seconds = self.state.seconds_before = time.monotonic() - self._began
        self.state.is_prepared = True
        # It may have taken as long as some epochs.
        if learnt and self.accelerator.is_main_process:
            self._save()

    def _save(self) -> None:
        if self.config.checkpoint is not None:
            save_checkpoint(
                self.config.checkpoint, self.state, self.objective.weights(), self._optimiser,
                self.config.key,
            )  # fmt: skip

    def _is_stale(self) -> bool:
        patience, state = self.config.patience, self.state
        return (
            patience is not None
            and state.best_score is not None
            and state.epoch - state.best_epoch >= patience
        )

    def _epoch(self) -> None:
        samples = self.objective.samples(self.state.epoch)
        batch = self.config.batch
        steps = math.ceil(len(samples) / batch)
        self.objective.learning(True)
        losses = self.state.losses
        for start in range(len(losses) * batch, len(samples), batch):
            self._schedule(steps)
            losses.append(self._step(samples[start : start + batch]))
            self.state.step += 1
            self._report(losses[-1], steps)
        self.objective.learning(False)
        self.state.epoch += 1
        figures, preview = self.objective.validate()
        row = {
            "epoch": float(self.state.epoch), "step": float(self.state.step),
            "loss": sum(losses) / len(losses), "lr": self._optimiser.param_groups[0]["lr"],
            **figures, "seconds": round(time.monotonic() - self._began, 1),
        }  # fmt: skip
        self.state.rows.append(row)
        self.state.losses = []
        self.state.seconds = time.monotonic() - self._began
        is_best = self._judge(figures.get("val_score"))
        if self.accelerator.is_main_process:
            # What is dearest is saved first: a full disk may keep the rest from being written.
            for callback in self.callbacks if is_best else ():
                callback.on_best(row)
            self._save()
            for callback in self.callbacks:
                callback.on_epoch(self._progress(steps), row, preview)

    def _judge(self, score: float | None) -> bool:
        """Tell whether the weights are the best so far; without scores the newest are."""
        best = self.state.best_score
        if score is not None and best is not None and not score > best:
            return False
        self.state.best_score, self.state.best_epoch = score, self.state.epoch
        return True

    def _schedule(self, steps: int) -> None:
        done = self.state.step / max(1, steps * self.config.epochs)
        factor = self.config.optimiser.factor(done)
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def _step(self, samples: Sequence[Any]) -> float:
        """Move the weights once; returns the mean loss."""
        accelerator = self.accelerator
        mine = samples[accelerator.process_index :: accelerator.num_processes]
        share, loss = 1 / len(samples), 0.0
        for start in range(0, len(mine), self.config.micro_batch):
            part = mine[start : start + self.config.micro_batch]
            loss += share * self.objective.backward(part, share, accelerator.backward)
        loss = self._shared(loss)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is not a number any more (step {self.state.step + 1}): try a lower "
                "learning rate, or fp32 instead of bf16"
            )
        length = torch.nn.utils.clip_grad_norm_(self._parameters, self.config.optimiser.clip)
        if not torch.isfinite(length):
            raise TrainingError(
                f"gradients are not finite any more (step {self.state.step + 1}): try a lower "
                "learning rate"
            )
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=False)
        return loss

    def _shared(self, loss: float) -> float:
        """Add up losses and gradients over all processes."""
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if self.accelerator.num_processes == 1:
            return loss
        device = self._parameters[0].device
        parts = [p.grad.reshape(-1).float() for p in self._parameters if p.grad is not None]
        flat = torch.cat([torch.tensor([loss], device=device), *parts])
        flat = self.accelerator.reduce(flat, "sum")
        place = 1
        for parameter in self._parameters:
            size = parameter.numel()
            parameter.grad = flat[place : place + size].view_as(parameter).to(parameter.dtype)
            place += size
        return float(flat[0])

    def _report(self, loss: float, steps: int) -> None:
        progress = self._progress(steps)
        if self._tell(lambda callback: callback.on_step(progress, loss)):
            self.state.seconds = time.monotonic() - self._began
            if self.accelerator.is_main_process:
                self._save()
            raise self._stopped()

    def _report_preparation(self, done: int, total: int) -> None:
        if self._tell(lambda callback: callback.on_prepare(done, total)):
            raise self._stopped()

    def _stopped(self) -> CancelledError:
        path = self.config.checkpoint
        is_kept = path is not None and path.exists()
        return CancelledError(f"training was stopped{'; it can be resumed' if is_kept else ''}")

    def _tell(self, say: Callable[[Callback], None]) -> bool:
        """Tell those who listen; returns whether one of them wants to end it."""
        stop = False
        if self.accelerator.is_main_process:
            for callback in self.callbacks:
                say(callback)
                asked = time.monotonic()
                stop = callback.should_stop() or stop
                # What it waited there was a pause, and says nothing of the time left.
                self._began += time.monotonic() - asked
        if self.accelerator.num_processes > 1:
            flag = torch.tensor([float(stop)], device=self.accelerator.device)
            stop = bool(self.accelerator.reduce(flag, "sum")[0] > 0)
        return stop

    def _progress(self, steps: int) -> Progress:
        total = steps * self.config.epochs
        spent = time.monotonic() - self._began - self.state.seconds_before
        left = spent / self.state.step * (total - self.state.step) if self.state.step else None
        return Progress(
            self.state.epoch, self.config.epochs, self.state.step, total, left,
            self.state.best_score,
        )  # fmt: skip

"""The baseline to beat: a U-Net trained from scratch on the same images.

Network of Ronneberger et al. (MICCAI 2015) as in monai, with the same loss, augmentation and
splits as an adapter, and the weights that are best on the validation images. How large a field of
view it needs differs from material to material (fine precipitates want resolution, layers want
surroundings), so short trainings choose that on the validation images first. A time limit includes
everything, so that "the same time budget" means the same seconds on the same machine.

The other defaults were chosen on the validation images of a superalloy (three phases, 512 x 512)
and of coatings (three classes, 1024 x 1024): learning rates of 5e-4, 2e-3 and 5e-3, windows from
256 to 1024 pixels at sides of 256 to 512, widths of 16 and 32, turns by any angle.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from phasesam.core.errors import CancelledError, InvalidSettingError, TrainingError
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.evaluation.phase_maps import confusion_matrix, mean_iou
from phasesam.evaluation.unet_network import (
    LEVELS,
    UNet,
    autocast,
    build_network,
    intensity_statistics,
    standardised,
)
from phasesam.models.devices import asked_device
from phasesam.training.augmentation import AugmentationConfig
from phasesam.training.dataset import LabelledImage, TrainingData
from phasesam.training.label_values import UNLABELLED
from phasesam.training.loss_config import LossConfig
from phasesam.training.losses import class_loss
from phasesam.training.views import ViewConfig, make_view

# Steps that no time limit leaves time for.
UNLIMITED_STEPS = 10**6
_TRIAL = 0.1
_CLEARLY = 0.03


__all__ = ["UNLIMITED_STEPS", "UNet", "UNetConfig", "train_unet"]


@dataclass(frozen=True)
class UNetConfig:
    """How the baseline is trained.

    Attributes
    ----------
    steps : int
        Batches, unless `seconds` ends the training before; the learning rate falls to zero
        towards whichever comes first.
    seconds : float or None
        Time limit, reading and validation included.
    windows : tuple of int
        Sides of the squares to be tried, in image pixels; cut to the smallest training image.
        With several, each gets a tenth of the training, and the best on the validation images
        the rest.
    side : int
        Side in pixels that windows are scaled to for the network, a multiple of 16; none is
        enlarged.
    width : int
        Channels at full resolution; they double at each of four levels below.
    batch : int
        Windows to a step.
    lr, weight_decay : float
        Of AdamW; the rate rises over 5 % of the training and falls as a cosine.
    views : ViewConfig
        Balance and augmentation of the windows.
    loss : LossConfig
        Dice and cross-entropy, both without unlabelled pixels.
    validations : int
        How often the validation images are mapped.
    seed : int
        Of all chance.
    """

    steps: int = 2000
    seconds: float | None = None
    windows: tuple[int, ...] = (256, 512, 1024)
    side: int = 256
    width: int = 16
    batch: int = 4
    lr: float = 2e-3
    weight_decay: float = 1e-4
    views: ViewConfig = field(
        default_factory=lambda: ViewConfig(augmentation=AugmentationConfig(scale=(0.75, 1.5)))
    )
    loss: LossConfig = field(default_factory=LossConfig)
    validations: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.windows or min(self.windows) < 1:
            raise InvalidSettingError(f"expected sides of windows, got {self.windows}")
        if self.side < 32 or self.side % 2**LEVELS:
            raise InvalidSettingError(
                f"the side must be a multiple of {2**LEVELS} from 32 pixels, got {self.side}"
            )
        for name in ("steps", "width", "batch", "validations"):
            if getattr(self, name) < 1:
                raise InvalidSettingError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.lr > 0 or (self.seconds is not None and not self.seconds > 0):
            raise InvalidSettingError(
                f"lr and seconds must be positive, got {self.lr} and {self.seconds}"
            )


def train_unet(
    data: TrainingData,
    config: UNetConfig | None = None,
    *,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> UNet:
    """Train the baseline on the training images, choose its weights on the validation images.

    Parameters
    ----------
    data : TrainingData
        Of the task "semantic". Without validation images the last weights are taken.
    config : UNetConfig, optional
        How.
    device : str
        As for models: "auto", "cpu", "cuda", "mps".
    progress : callable, optional
        ``progress(done, total)`` in steps, or in seconds with a time limit.
    should_stop : callable, optional
        Asked after each step.

    Raises
    ------
    InvalidSettingError
        If the data have no classes or no training images.
    TrainingError
        If the loss is not a number any more.
    CancelledError
        If the user asked to stop.
    """
    config = config or UNetConfig()
    if data.task != "semantic" or not data.of("train"):
        raise InvalidSettingError(
            f"a U-Net needs training images with classes, got {len(data.of('train'))} of the task "
            f"{data.task}"
        )
    clock = _Clock(config, progress, should_stop)
    pictures = _Pictures.read(data, asked_device(device))
    # A small image has no larger window to show.
    windows = sorted({min(window, pictures.smallest) for window in config.windows})
    tried: dict[int, float] = {}
    if len(windows) > 1 and pictures.validation:
        for window in windows:
            tried[window] = _Training(pictures, config, window).run(clock, _TRIAL).best_score
        windows = [_preferred(tried)]
    network = _Training(pictures, config, windows[-1]).run(clock, 1 - clock.spent)
    return replace(network, tried=tried)


def _preferred(tried: Mapping[int, float]) -> int:
    """Choose a window: a larger one must be clearly better, for fine detail is learnt later."""
    best = min(tried)
    for window in sorted(tried):
        if tried[window] > tried[best] + _CLEARLY:
            best = window
    return best


class _Clock:
    """How much of the whole budget is spent, in steps or seconds."""

    def __init__(
        self,
        config: UNetConfig,
        progress: ProgressCallback | None,
        should_stop: StopCallback | None,
    ) -> None:
        self._config, self._progress, self._should_stop = config, progress, should_stop
        self._began, self._steps = time.monotonic(), 0

    @property
    def seconds(self) -> float:
        """Time since the beginning."""
        return time.monotonic() - self._began

    @property
    def spent(self) -> float:
        """Share of the budget, 0–1."""
        by_steps = self._steps / self._config.steps
        if self._config.seconds is None:
            return min(by_steps, 1.0)
        return min(max(by_steps, self.seconds / self._config.seconds), 1.0)

    def step(self) -> None:
        """Count a step; raises `CancelledError` if the user asked to stop."""
        self._steps += 1
        if self._progress is not None:
            limit = self._config.seconds
            total = self._config.steps if limit is None else math.ceil(limit)
            self._progress(min(total, int(self.spent * total)), total)
        if self._should_stop is not None and self._should_stop():
            raise CancelledError("the training of the U-Net was stopped")


@dataclass(frozen=True, eq=False)
class _Pictures:
    """All images in memory."""

    training: list[_Image]
    validation: list[_Image]
    classes: tuple[str, ...]
    device: torch.device

    @classmethod
    def read(cls, data: TrainingData, device: torch.device) -> _Pictures:
        training, validation = (
            [_Image.read(image) for image in data.of(split)] for split in ("train", "val")
        )
        # Nothing can be judged where nothing is labelled.
        validation = [image for image in validation if (image.labels != UNLABELLED).any()]
        return cls(training, validation, data.classes, device)

    @property
    def smallest(self) -> int:
        """Shortest side of a training image."""
        return min(min(image.labels.shape) for image in self.training)


class _Training:
    """Network and optimiser of one training."""

    def __init__(self, pictures: _Pictures, config: UNetConfig, window: int) -> None:
        self.pictures, self.config, self.window = pictures, config, window
        self.side = max(32, min(config.side, round(window / 2**LEVELS) * 2**LEVELS))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            network = build_network(config.width, len(pictures.classes))
        self.network = network.to(pictures.device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.batches = self._batches(np.random.default_rng(config.seed))
        self.losses, self.rows = list[float](), list[dict[str, float]]()
        self.best: dict[str, Tensor] | None = None

    def run(self, clock: _Clock, share: float) -> UNet:
        """Train for a share of the budget; the weights are the best so far."""
        began, steps = clock.spent, 0
        done = 0.0
        while done < 1:
            self._step(done)
            clock.step()
            steps += 1
            done = (clock.spent - began) / share if share > 0 else 1.0
            done = 1.0 if clock.spent >= 1 or done > 1 - 1e-9 else done
            if done * self.config.validations >= len(self.rows) + 1 or done >= 1:
                self._validate(steps, clock.seconds)
        if self.best is not None:
            self.network.load_state_dict(self.best)
        classes = self.pictures.classes
        return UNet(self.network.eval(), classes, self.window, self.side, self.rows)

    def _step(self, done: float) -> None:
        """Move the weights once."""
        factor = done / 0.05 if done < 0.05 else (1 + math.cos(math.pi * (done - 0.05) / 0.95)) / 2
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.lr * max(factor, 1e-3)
        self.network.train()
        device = self.pictures.device
        x, target, weight = (tensor.to(device) for tensor in next(self.batches))
        with autocast(device):
            logits = self.network(x)
        loss = class_loss(logits, target, weight, self.config.loss)
        if not torch.isfinite(loss):
            raise TrainingError(
                "the loss of the U-Net is not a number any more: try a lower learning rate"
            )
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.losses.append(float(loss.detach()))

    def _validate(self, steps: int, seconds: float) -> None:
        row = {"step": float(steps), "loss": float(np.mean(self.losses))}
        self.losses = []
        if self.pictures.validation:
            classes = self.pictures.classes
            mapper = UNet(self.network.eval(), classes, self.window, self.side, [])
            counts = [
                confusion_matrix(mapper.predict(image.rgb, 1), image.labels, len(classes))
                for image in self.pictures.validation
            ]
            score = mean_iou(np.sum(counts, axis=0, dtype=np.int64))
            if score > max((r["val_score"] for r in self.rows), default=-1.0):
                self.best = copy.deepcopy(self.network.state_dict())
            row["val_score"] = score
        row["seconds"] = round(seconds, 1)
        self.rows.append(row)

    def _batches(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Draw windows of the images in turn, for ever."""
        order: list[int] = []
        n_classes = len(self.pictures.classes)
        while True:
            drawn: list[tuple[NDArray[np.float32], NDArray[np.int32]]] = []
            while len(drawn) < self.config.batch:
                order = order or rng.permutation(len(self.pictures.training)).tolist()
                image = self.pictures.training[order.pop()]
                rgb, labels = image.cut(self.window, self.side, self.config.views, rng)
                drawn.append((standardised(rgb, image.mean, image.deviation), labels))
            x = torch.from_numpy(np.stack([pixels for pixels, _ in drawn]))
            marks = torch.from_numpy(np.stack([labels for _, labels in drawn])).long()
            target = functional.one_hot(marks.clamp_min(0), n_classes).permute(0, 3, 1, 2)
            yield x, target.float(), (marks >= 0).float()


@dataclass(frozen=True, eq=False)
class _Image:
    """A labelled image in memory."""

    rgb: NDArray[np.uint8]
    labels: NDArray[np.int32]
    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]

    @classmethod
    def read(cls, image: LabelledImage) -> _Image:
        rgb = image.rgb()
        return cls(rgb, image.label_array(), *intensity_statistics(rgb))

    def cut(
        self, window: int, side: int, config: ViewConfig, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Draw an augmented window; what it lacks of a square is unlabelled."""
        views = replace(config, window=window)
        view = make_view(self.rgb, self.labels, views, rng, side=side)
        short = [(0, side - size) for size in view.labels.shape]
        if not any(after for _, after in short):
            return view.rgb, view.labels
        rgb = np.pad(view.rgb, [*short, (0, 0)], mode="edge")
        return rgb, np.pad(view.labels, short, constant_values=UNLABELLED)

"""The baseline to beat: a U-Net trained from scratch on the same images.

Network of Ronneberger et al. (MICCAI 2015) as in monai, with the same loss, augmentation and
splits as an adapter, windows at the resolution of the image, and the weights that are best on the
validation images. A time limit includes reading and validation, so that "the same time budget"
means the same seconds on the same machine.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import BasicUNet
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from phasesam.core.errors import CancelledError, InvalidSettingError, TrainingError
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.evaluation.phase_maps import confusion_matrix, mean_iou
from phasesam.models.devices import resolve_device
from phasesam.training.augmentation import AugmentationConfig
from phasesam.training.dataset import LabelledImage, TrainingData
from phasesam.training.label_values import UNLABELLED
from phasesam.training.loss_config import LossConfig
from phasesam.training.losses import class_loss
from phasesam.training.views import ViewConfig, make_view

_LEVELS = 4
_OVERLAP = 0.5
_LARGEST_WINDOW, _LARGEST_SIDE = 1024, 512
_LEAST_DEVIATION = 1e-3


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
    window : int or None
        Side of the squares it is trained on and maps, in image pixels; as much as every training
        image has, up to 1024, when None. What a phase is often shows in its surroundings only.
    side : int or None
        Side in pixels that windows are scaled to for the network, a multiple of 16; that of the
        window up to 512 when None.
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
    window: int | None = None
    side: int | None = None
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
        if self.side is not None and (self.side < 32 or self.side % 2**_LEVELS):
            raise InvalidSettingError(
                f"the side must be a multiple of {2**_LEVELS} from 32 pixels, got {self.side}"
            )
        for name in ("steps", "width", "batch", "validations"):
            if getattr(self, name) < 1:
                raise InvalidSettingError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.lr > 0 or (self.seconds is not None and not self.seconds > 0):
            raise InvalidSettingError(
                f"lr and seconds must be positive, got {self.lr} and {self.seconds}"
            )


@dataclass(eq=False)
class UNet:
    """A trained baseline.

    Attributes
    ----------
    network : nn.Module
        In evaluation mode.
    classes : tuple of str
        Names of the classes.
    window, side : int
        Side of the squares it maps, in image pixels and in pixels of the network.
    rows : list of dict
        What was measured at each validation: step, seconds, loss, val_score.
    """

    network: nn.Module
    classes: tuple[str, ...]
    window: int
    side: int
    rows: list[dict[str, float]]

    @property
    def best_score(self) -> float:
        """Pooled mIoU on the validation images; NaN without any."""
        return max((row.get("val_score", math.nan) for row in self.rows), default=math.nan)

    @torch.inference_mode()
    def probabilities(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map an image, window by window with half of each overlapping its neighbours.

        Parameters
        ----------
        rgb : (h, w, 3) uint8 array
            Image.

        Returns
        -------
        (K, h, w) float32 array
            Probability of each class.
        """
        device = next(self.network.parameters()).device
        shape = (rgb.shape[0], rgb.shape[1])
        inner = [max(1, round(length * self.side / self.window)) for length in shape]
        mean, deviation = _statistics(rgb)
        if tuple(inner) != shape:
            picture = Image.fromarray(rgb).resize((inner[1], inner[0]), Image.Resampling.BILINEAR)
            rgb = np.asarray(picture)
        x = torch.from_numpy(_standardised(rgb, mean, deviation))[None].to(device)
        with _autocast(device):
            logits: Any = sliding_window_inference(
                x,
                (self.side, self.side),
                4,
                self.network,
                overlap=_OVERLAP,
                mode="gaussian",
                padding_mode="replicate",
            )
        if tuple(inner) != shape:
            logits = functional.interpolate(logits.float(), shape, mode="bilinear")
        return functional.softmax(logits[0].float(), dim=0).cpu().numpy()

    def predict(self, rgb: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Class of each pixel, (h, w); as `probabilities`."""
        return self.probabilities(rgb).argmax(axis=0).astype(np.int32)


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
    run = _Training(data, config, resolve_device(device))
    while run.done < 1:
        run.step()
        if progress is not None:
            total = config.steps if config.seconds is None else math.ceil(config.seconds)
            progress(min(total, int(run.done * total)), total)
        if should_stop is not None and should_stop():
            raise CancelledError("the training of the U-Net was stopped")
    return run.result()


class _Training:
    """Network, optimiser and clock of one training."""

    def __init__(self, data: TrainingData, config: UNetConfig, device: torch.device) -> None:
        self.config, self.device, self.classes = config, device, data.classes
        self.began = time.monotonic()
        self.images = [_Image.read(image) for image in data.of("train")]
        self.validation = [_Image.read(image) for image in data.of("val")]
        # A small image has no larger window to show.
        smallest = min(min(image.labels.shape) for image in self.images)
        self.window = min(config.window or _LARGEST_WINDOW, smallest)
        side = config.side or min(self.window, _LARGEST_SIDE)
        self.side = max(32, round(side / 2**_LEVELS) * 2**_LEVELS)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = _network(config.width, len(data.classes)).to(device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.batches = self._batches(np.random.default_rng(config.seed))
        self.steps, self.losses, self.rows = 0, list[float](), list[dict[str, float]]()
        self.best: dict[str, Tensor] | None = None

    @property
    def done(self) -> float:
        """Share of the training that is over, by steps or time; 1 at the end."""
        by_steps = self.steps / self.config.steps
        if self.config.seconds is None:
            return by_steps
        return max(by_steps, (time.monotonic() - self.began) / self.config.seconds)

    def step(self) -> None:
        """Move the weights once; validate when it is time."""
        done = self.done
        factor = done / 0.05 if done < 0.05 else (1 + math.cos(math.pi * (done - 0.05) / 0.95)) / 2
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.lr * max(factor, 1e-3)
        self.network.train()
        x, target, weight = next(self.batches)
        with _autocast(self.device):
            logits = self.network(x.to(self.device))
        loss = class_loss(logits, target.to(self.device), weight.to(self.device), self.config.loss)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss of the U-Net is not a number any more (step {self.steps + 1}): try a "
                "lower learning rate"
            )
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.steps += 1
        self.losses.append(float(loss.detach()))
        if self.done * self.config.validations >= len(self.rows) + 1 or self.done >= 1:
            self._validate()

    def result(self) -> UNet:
        """Return the best weights so far."""
        if self.best is not None:
            self.network.load_state_dict(self.best)
        return UNet(self.network.eval(), self.classes, self.window, self.side, self.rows)

    def _validate(self) -> None:
        row = {"step": float(self.steps), "loss": float(np.mean(self.losses))}
        self.losses = []
        if self.validation:
            mapper = UNet(self.network.eval(), self.classes, self.window, self.side, [])
            counts = [
                confusion_matrix(mapper.predict(image.rgb), image.labels, len(self.classes))
                for image in self.validation
            ]
            score = mean_iou(np.sum(counts, axis=0, dtype=np.int64))
            if score > max((r["val_score"] for r in self.rows), default=-1.0):
                self.best = copy.deepcopy(self.network.state_dict())
            row["val_score"] = score
        row["seconds"] = round(time.monotonic() - self.began, 1)
        self.rows.append(row)

    def _batches(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Draw windows of the images in turn, for ever."""
        order: list[int] = []
        n_classes = len(self.classes)
        while True:
            drawn: list[tuple[NDArray[np.float32], NDArray[np.int32]]] = []
            while len(drawn) < self.config.batch:
                order = order or rng.permutation(len(self.images)).tolist()
                image = self.images[order.pop()]
                rgb, labels = image.cut(self.window, self.side, self.config.views, rng)
                drawn.append((_standardised(rgb, image.mean, image.deviation), labels))
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
        return cls(rgb, image.label_array(), *_statistics(rgb))

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


def _network(width: int, n_classes: int) -> nn.Module:
    features = (width, width, 2 * width, 4 * width, 8 * width, width)
    return BasicUNet(2, 3, n_classes, features, norm=("instance", {"affine": True}))


def _statistics(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each band: brightness differs from image to image."""
    pixels = rgb.reshape(-1, 3).astype(np.float32) / 255
    return pixels.mean(axis=0), np.maximum(pixels.std(axis=0), _LEAST_DEVIATION)


def _standardised(
    rgb: NDArray[np.uint8], mean: NDArray[np.float32], deviation: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scale to mean 0 and deviation 1, bands first: (3, h, w)."""
    scaled = (rgb.astype(np.float32) / 255 - mean) / deviation
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _autocast(device: torch.device) -> Any:
    """Products in bf16 on GPUs that have it; on a CPU they are no faster for a U-Net."""
    on = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=on)

"""A U-Net that maps phases: its network, and how images are put to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import BasicUNet
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional

from phasesam.engines.semantic import ORIENTATIONS
from phasesam.models.half_precision import trains_in_bf16

LEVELS = 4
"""How often the network halves its resolution."""

_OVERLAP = 0.5
_LEAST_DEVIATION = 1e-3


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
    tried : mapping of int to float
        Validation score of the short training with each window; empty without a choice.
    """

    network: nn.Module
    classes: tuple[str, ...]
    window: int
    side: int
    rows: list[dict[str, float]]
    tried: Mapping[int, float] = field(default_factory=dict)

    @property
    def best_score(self) -> float:
        """Pooled mIoU on the validation images, looked at once; NaN without any."""
        return max((row.get("val_score", math.nan) for row in self.rows), default=math.nan)

    @torch.inference_mode()
    def probabilities(self, rgb: NDArray[np.uint8], orientations: int = 2) -> NDArray[np.float32]:
        """Map an image, window by window with half of each overlapping its neighbours.

        Parameters
        ----------
        rgb : (h, w, 3) uint8 array
            Image.
        orientations : {1, 2, 4}
            How many of `semantic.ORIENTATIONS` are averaged: by default as many as for adapters.

        Returns
        -------
        (K, h, w) float32 array
            Probability of each class.
        """
        flips = ORIENTATIONS[orientations]
        total: Any = 0
        for down, right in flips:
            axes = [axis for axis, turned in enumerate((down, right)) if turned]
            logits = self._logits(np.ascontiguousarray(np.flip(rgb, tuple(axes))))
            total = total + logits.flip([axis + 1 for axis in axes])
        return functional.softmax(total / len(flips), dim=0).cpu().numpy()

    def _logits(self, rgb: NDArray[np.uint8]) -> torch.Tensor:
        """Logits of an image as it lies, (K, h, w)."""
        device = next(self.network.parameters()).device
        shape = (rgb.shape[0], rgb.shape[1])
        inner = [max(1, round(length * self.side / self.window)) for length in shape]
        mean, deviation = intensity_statistics(rgb)
        if tuple(inner) != shape:
            picture = Image.fromarray(rgb).resize((inner[1], inner[0]), Image.Resampling.BILINEAR)
            rgb = np.asarray(picture)
        x = torch.from_numpy(standardised(rgb, mean, deviation))[None].to(device)
        with autocast(device):
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
        found: torch.Tensor = logits[0].float()
        return found

    def predict(self, rgb: NDArray[np.uint8], orientations: int = 2) -> NDArray[np.int32]:
        """Class of each pixel, (h, w); as `probabilities`."""
        return self.probabilities(rgb, orientations).argmax(axis=0).astype(np.int32)


def build_network(width: int, n_classes: int) -> nn.Module:
    """Make a U-Net for RGB images with this many channels at full resolution."""
    features = (width, width, 2 * width, 4 * width, 8 * width, width)
    return BasicUNet(2, 3, n_classes, features, norm=("instance", {"affine": True}))


def intensity_statistics(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each band: brightness differs from image to image."""
    pixels = rgb.reshape(-1, 3).astype(np.float32) / 255
    return pixels.mean(axis=0), np.maximum(pixels.std(axis=0), _LEAST_DEVIATION)


def standardised(
    rgb: NDArray[np.uint8], mean: NDArray[np.float32], deviation: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scale to mean 0 and deviation 1, bands first: (3, h, w)."""
    scaled = (rgb.astype(np.float32) / 255 - mean) / deviation
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def autocast(device: torch.device) -> Any:
    """Multiply in bf16 where the device computes it faster, as in the training of adapters."""
    return torch.autocast(device.type, torch.bfloat16, enabled=trains_in_bf16(device))

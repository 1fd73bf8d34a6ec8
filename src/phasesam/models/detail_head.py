"""Detail for class maps: a small U-Net over the picture itself.

SAM's decoder answers with masks of a quarter of the picture's resolution, made of features of a
sixteenth: cracks and precipitates of a few pixels are lost. This head looks at the picture again,
at a half, a quarter and an eighth of its resolution, knows what the decoder found, and corrects the
logits at half the picture's resolution. It begins as no correction at all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDTHS = (24, 48, 96)
_GROUPS = 4


class DetailHead(nn.Module):
    """Corrects class logits.

    Parameters
    ----------
    n_classes : int
        Classes.
    channels : int
        Channels of the decoder's finest features.
    """

    def __init__(self, n_classes: int, channels: int) -> None:
        super().__init__()
        half, quarter, eighth = _WIDTHS
        self.known = nn.Conv2d(channels + n_classes, quarter, 1)
        self.down = nn.ModuleList(
            [_block(3, half, stride=2), _block(half, quarter), _block(quarter, eighth)]
        )
        self.narrow = nn.ModuleList([nn.Conv2d(eighth, quarter, 1), nn.Conv2d(quarter, half, 1)])
        self.up = nn.ModuleList([_convolution(quarter, quarter), _convolution(half, half)])
        self.correct = nn.Conv2d(half, n_classes, 1)
        for weight in self.correct.parameters():
            nn.init.zeros_(weight)

    def forward(self, logits: Tensor, fine: Tensor, pictures: Tensor) -> Tensor:
        """Correct.

        Parameters
        ----------
        logits : (b, n_classes, 256, 256) tensor
            What the decoder says.
        fine : (b, channels, 256, 256) tensor
            Its finest features.
        pictures : (b, 3, 1024, 1024) tensor
            What the encoder was shown.

        Returns
        -------
        (b, n_classes, 512, 512) tensor
        """
        # Channels last from here to the end: convolutions of few channels are then far faster.
        half = self.down[0](_last(pictures))
        known = self.known(_last(torch.cat([fine, logits.to(fine.dtype)], 1)))
        # Sums, not wider stacks: on a processor moving them costs more than computing.
        quarter = self.down[1](functional.avg_pool2d(half, 2)) + known
        eighth = self.down[2](functional.avg_pool2d(quarter, 2))
        quarter = self.up[0](quarter + _enlarged(self.narrow[0](eighth), quarter))
        half = self.up[1](half + _enlarged(self.narrow[1](quarter), half))
        return _enlarged(logits, half) + self.correct(half)


def _block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    # The norm makes it see contours, not the brightness and contrast of a recording.
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride=stride, padding=1),
        nn.GroupNorm(_GROUPS, after),
        nn.ReLU(),
        *_convolution(after, after),
    )


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.ReLU())


def _enlarged(small: Tensor, to: Tensor) -> Tensor:
    size = (to.shape[-2], to.shape[-1])
    return functional.interpolate(small, size, mode="bilinear", align_corners=False)


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)

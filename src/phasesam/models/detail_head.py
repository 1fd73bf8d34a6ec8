"""Detail for class maps: a few convolutions over the picture itself.

SAM's decoder answers with masks of a quarter of the picture's resolution, made of features of a
sixteenth: cracks and precipitates of a few pixels are lost. This head looks at the picture again
and corrects the logits at half its resolution. It begins as no correction at all.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDTH = 16
_CONTEXT = 8
_MIXED = 32


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
        # The norm makes it see contours, not the brightness and contrast of a recording.
        self.look = nn.Sequential(
            nn.Conv2d(3, _WIDTH, 3, stride=2, padding=1),
            nn.GroupNorm(4, _WIDTH),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1),
            nn.ReLU(),
        )
        self.narrow = nn.Conv2d(channels, _CONTEXT, 1)
        self.correct = nn.Sequential(
            nn.Conv2d(_WIDTH + _CONTEXT + n_classes, _MIXED, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_MIXED, _MIXED, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(_MIXED, n_classes, 1),
        )
        last = cast(nn.Conv2d, self.correct[-1])
        for weight in last.parameters():
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
        seen = self.look(pictures.contiguous(memory_format=torch.channels_last))
        size = (seen.shape[-2], seen.shape[-1])
        large = functional.interpolate(logits, size, mode="bilinear", align_corners=False)
        context = functional.interpolate(
            self.narrow(fine), size, mode="bilinear", align_corners=False
        )
        together = torch.cat([seen, context.to(seen.dtype), large.to(seen.dtype)], 1)
        return large + self.correct(together.contiguous(memory_format=torch.channels_last))

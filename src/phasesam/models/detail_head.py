"""Detail for class maps: a small U-Net over the picture itself.

SAM's decoder answers with masks of a quarter of the picture's resolution, made of features of a
sixteenth: cracks and precipitates of a few pixels are lost. This head looks at the picture again,
at a half of its resolution and four coarser ones, knows what the decoder found, and corrects the
logits at half the picture's resolution. It begins as no correction at all.

It can also judge a picture without the decoder, and so be trained on small pieces of pictures
before anything else, at a fraction of the cost of a step with the encoder.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from phasesam.core.levels import Levels
from phasesam.models.convolution import Convolution

_WIDTHS = (24, 48, 96)
_DEEPER = 2
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
        self.deeper = nn.ModuleList(_block(eighth, eighth) for _ in range(_DEEPER))
        self.shallower = nn.ModuleList(_convolution(eighth, eighth) for _ in range(_DEEPER))
        self.narrow = nn.ModuleList([nn.Conv2d(eighth, quarter, 1), nn.Conv2d(quarter, half, 1)])
        self.up = nn.ModuleList([_convolution(quarter, quarter), _convolution(half, half)])
        self.correct = nn.Conv2d(half, n_classes, 1)
        # The decoder is heard little by little: what was learnt without it stays.
        for weight in [*self.correct.parameters(), *self.known.parameters()]:
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
            What the encoder was shown, as `detail_picture` makes it.

        Returns
        -------
        (b, n_classes, 512, 512) tensor
        """
        known = self.known(_last(torch.cat([fine, logits.to(fine.dtype)], 1)))
        correction = self._judge(pictures, known)
        return _enlarged(logits, correction) + correction

    def alone(self, pictures: Tensor) -> Tensor:
        """Judge pictures without a decoder.

        Parameters
        ----------
        pictures : (b, 3, h, w) tensor
            As `detail_picture` makes them; sides that 64 divides.

        Returns
        -------
        (b, n_classes, h / 2, w / 2) tensor
            Logits.
        """
        return self._judge(pictures, None)

    def _judge(self, pictures: Tensor, known: Tensor | None) -> Tensor:
        # Channels last from here to the end: convolutions of few channels are then far faster.
        half = self.down[0](_last(pictures))
        quarter = self.down[1](_smaller(half))
        if known is not None:
            # Sums, not wider stacks: on a processor moving them costs more than computing.
            quarter = quarter + known
        levels = [self.down[2](_smaller(quarter))]
        for block in self.deeper:
            levels.append(block(_smaller(levels[-1])))
        eighth = levels.pop()
        for convolution in self.shallower:
            finer = levels.pop()
            eighth = convolution(finer + _enlarged(eighth, finer))
        quarter = self.up[0](quarter + _enlarged(self.narrow[0](eighth), quarter))
        half = self.up[1](half + _enlarged(self.narrow[1](quarter), half))
        return cast(Tensor, self.correct(half))


def detail_picture(rgb: NDArray[np.uint8], levels: Levels, side: int) -> Tensor:
    """Make what the head sees of a view.

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        At most `side` pixels a side.
    levels : Levels
        Of the whole image, so that recordings of any brightness and contrast look alike, and
        parts of one image keep theirs: by its brightness a phase is known. Norms within the
        network cannot do it, a constant becomes another offset in each channel.
    side : int
        Height and width of the result.

    Returns
    -------
    (1, 3, side, side) float32 tensor
        Mean 0 and deviation 1 over the image; zeros where the view ends.
    """
    height, width = rgb.shape[:2]
    picture = torch.zeros((1, 3, side, side))
    scaled = (torch.from_numpy(rgb).permute(2, 0, 1) - levels.mean) / levels.deviation
    picture[0, :, :height, :width] = scaled
    return picture


def _block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    reading = Convolution(before, after) if stride == 1 else nn.Conv2d(before, after, 3, stride, 1)
    return nn.Sequential(
        reading,
        nn.GroupNorm(_GROUPS, after),
        nn.ReLU(),
        *_convolution(after, after),
    )


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(Convolution(before, after), nn.ReLU())


def _enlarged(small: Tensor, to: Tensor) -> Tensor:
    size = (to.shape[-2], to.shape[-1])
    return functional.interpolate(small, size, mode="bilinear", align_corners=False)


def _smaller(large: Tensor) -> Tensor:
    return functional.avg_pool2d(large, 2)


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)

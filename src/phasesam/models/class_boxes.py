"""Boxes of classes as prompts of class maps: "some of this phase is here"."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from phasesam.core.errors import InvalidSettingError


class ClassBoxes(nn.Module):
    """Two tokens for each class: corners as SAM embeds those of a box, and which class it is.

    Classes without a box have SAM's token for a point that is none.

    Parameters
    ----------
    n_classes : int
        Classes.
    channels : int
        Of a token.
    """

    def __init__(self, n_classes: int, channels: int) -> None:
        super().__init__()
        self.kinds = nn.Parameter(torch.zeros(n_classes, channels))

    def forward(self, prompts: Any, boxes: Tensor | None, batch: int) -> Tensor:
        """Embed boxes.

        Parameters
        ----------
        prompts : nn.Module
            SAM's prompt encoder.
        boxes : (b, n_classes, 4) tensor or None
            ``x0, y0, x1, y1`` in pixels of the encoder's picture; NaN where there is none.
        batch : int
            Number of images.

        Returns
        -------
        (b, 2 n_classes, c) tensor
        """
        count = len(self.kinds)
        if boxes is None:
            boxes = torch.full((batch, count, 4), torch.nan)
        if boxes.shape != (batch, count, 4):
            raise InvalidSettingError(
                f"expected a box for each of {count} classes of {batch} images, "
                f"got {tuple(boxes.shape)}"
            )
        boxes = boxes.to(self.kinds)
        known = boxes.isfinite().all(-1)
        corners = (boxes.nan_to_num(0.0) + 0.5).view(-1, 2, 2)
        embedded = prompts.pe_layer.forward_with_coords(corners, prompts.input_image_size)
        sides = torch.cat([prompts.point_embeddings[i].weight for i in (2, 3)])
        embedded = (embedded + sides).view(batch, count, 2, -1)
        absent = prompts.not_a_point_embed.weight.view(1, 1, 1, -1)
        tokens = torch.where(known[..., None, None], embedded, absent) + self.kinds[:, None]
        return tokens.flatten(1, 2)

"""Class tokens beside SAM's own: prompt-free maps of several classes from the same decoder.

The mask decoder keeps its tokens and weights, so that prompts go on working. For a class map
its transformer gets one more token per class and no prompt; each class has a hyper-network of
its own, as each of SAM's masks has. Both start as copies of SAM's token and hyper-network for
a single mask (after SAMed, Zhang and Liu, arXiv 2304.13785, which starts them anew).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from phasesam.core.errors import InvalidSettingError
from phasesam.models.class_boxes import ClassBoxes
from phasesam.models.detail_head import DetailHead
from phasesam.models.ratio_encoder import RatioEncoder, build_ratio_encoder
from phasesam.models.training_decoder import as_rows, sorted_pixels, transform, upscale

if TYPE_CHECKING:
    from phasesam.models.sam import SamModel

_SPREAD = 0.02
_SIDE = 256
MOST_CLASSES = 64


@dataclass(frozen=True, eq=False)
class ClassHints:
    """What is known of some images beside their pixels.

    Attributes
    ----------
    shares : (b, n_classes) tensor or None
        Phase fractions, 0–1; NaN where unknown.
    errors : (b, n_classes) tensor or None
        Their standard errors; exact when None.
    boxes : (b, n_classes, 4) tensor or None
        A box ``x0, y0, x1, y1`` around some of each class, in pixels of the encoder's picture; NaN
        where there is none.
    """

    shares: Tensor | None = None
    errors: Tensor | None = None
    boxes: Tensor | None = None


class ClassDecoder(nn.Module):
    """What is added to a mask decoder for `n` classes.

    Parameters
    ----------
    decoder : nn.Module
        SAM's mask decoder; nothing of it is kept or changed.
    n_classes : int
        Classes, background included where it is one; 2 to 64.
    seed : int
        Of the small differences between the tokens in the beginning.
    detail : bool
        Whether a `DetailHead` corrects the maps at twice the resolution.

    Attributes
    ----------
    side : int
        Height and width of the maps.
    """

    def __init__(
        self, decoder: nn.Module, n_classes: int, seed: int = 0, *, detail: bool = False
    ) -> None:
        super().__init__()
        if not 2 <= n_classes <= MOST_CLASSES:
            raise InvalidSettingError(f"expected 2 to {MOST_CLASSES} classes, got {n_classes}")
        own = cast(Any, decoder)
        token = own.mask_tokens.weight[0].detach()
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn((n_classes, len(token)), generator=generator).to(token)
        self.tokens = nn.Parameter(token + _SPREAD * noise)
        self.networks = nn.ModuleList(
            copy.deepcopy(own.output_hypernetworks_mlps[0]) for _ in range(n_classes)
        )
        channels = own.output_upscaling[3].out_channels
        # Where the decoder is: adapters are put on models that are on a device already.
        self.detail = DetailHead(n_classes, channels).to(token) if detail else None
        self.side = _SIDE * 2 if detail else _SIDE
        self.ratio: RatioEncoder | None = None
        self.boxes: ClassBoxes | None = None
        self.requires_grad_(True)

    def add_hints(self, prompts: nn.Module, ratio: str, *, boxes: bool) -> None:
        """Let phase fractions and boxes be inputs, too.

        Parameters
        ----------
        prompts : nn.Module
            SAM's prompt encoder.
        ratio : str
            Kind of ratio encoder, or "none".
        boxes : bool
            Whether classes can have boxes.
        """
        if ratio != "none":
            self.ratio = build_ratio_encoder(ratio, self.n_classes, prompts).to(self.tokens)
        if boxes:
            self.boxes = ClassBoxes(self.n_classes, self.tokens.shape[1]).to(self.tokens)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.networks)

    @property
    def takes_hints(self) -> bool:
        """Whether `ClassHints` can be inputs."""
        return self.ratio is not None or self.boxes is not None


def class_logits(
    model: SamModel,
    features: Tensor,
    pictures: Tensor | None = None,
    hints: ClassHints | None = None,
) -> Tensor:
    """Logits of all classes at a quarter of the model's resolution, or half with detail.

    Parameters
    ----------
    model : SamModel
        With a `ClassDecoder` as ``model.class_decoder``.
    features : (b, c, 64, 64) tensor
        Image embeddings.
    pictures : (b, 3, 1024, 1024) tensor, optional
        What the encoder was shown, as `detail_picture` makes it; a decoder with a `DetailHead`
        needs it.
    hints : ClassHints, optional
        Phase fractions and boxes, for decoders that know such.

    Returns
    -------
    (b, n_classes, side, side) tensor
        To be compared by a softmax.

    Raises
    ------
    InvalidSettingError
        If pictures are needed and missing, or hints are given that the decoder does not know.
    """
    return class_answers(model, features, pictures, hints)[0]


def class_answers(
    model: SamModel,
    features: Tensor,
    pictures: Tensor | None = None,
    hints: ClassHints | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits as `class_logits`, and those of the decoder before its `DetailHead` corrects them.

    Without such a head both are the same.
    """
    head = cast(ClassDecoder, model.class_decoder)
    decoder, prompts = cast(Any, model.mask_decoder), cast(Any, model.prompt_encoder)
    features, further = _with_hints(head, prompts, features, hints or ClassHints())
    own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([own, head.tokens]).expand(len(features), -1, -1)
    dense = prompts.no_mask_embed.weight[:, :, None, None]
    position = prompts.get_dense_pe().to(features)
    hidden, keys = transform(
        decoder, as_rows(features + dense), as_rows(position), torch.cat([tokens, *further], 1)
    )
    fine = sorted_pixels(upscale(decoder, keys), features.shape[-1])
    weights = torch.stack(
        [network(hidden[:, len(own) + i]) for i, network in enumerate(head.networks)], dim=1
    )
    logits = torch.einsum("bkc,bchw->bkhw", weights.to(fine.dtype), fine)
    if head.detail is None:
        return logits, logits
    if pictures is None:
        raise InvalidSettingError("class maps with detail need the picture itself")
    return head.detail(logits, fine, pictures.to(fine.device)), logits


def _with_hints(
    head: ClassDecoder, prompts: Any, features: Tensor, hints: ClassHints
) -> tuple[Tensor, list[Tensor]]:
    """Embedding and further tokens by what is known of the images."""
    further: list[Tensor] = []
    for name, given, known in (
        ("phase fractions", hints.shares, head.ratio), ("boxes", hints.boxes, head.boxes)
    ):  # fmt: skip
        if given is not None and known is None:
            raise InvalidSettingError(f"the adapter was trained without {name} as an input")
    if head.ratio is not None:
        features, tokens = head.ratio(features, hints.shares, hints.errors)
        further += [] if tokens is None else [tokens]
    if head.boxes is not None:
        further.append(head.boxes(prompts, hints.boxes, len(features)))
    return features, further

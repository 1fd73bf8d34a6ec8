"""Prompts in rounds: what a model answers to clicks and boxes, and what it should have answered.

Every round is judged by itself. The clicks and the mask that one round hands to the next carry
no gradient, so each loss may be differentiated at once and its memory given back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from phasesam.models.training_decoder import predict_masks
from phasesam.training.clicks import click_in, correction, noisy_box
from phasesam.training.loss_config import LossConfig
from phasesam.training.losses import mask_iou, mask_loss, pooled_mask
from phasesam.training.prompt_config import PromptTraining
from phasesam.training.visible_objects import MOST_COVERED, SMALLEST_AREA

if TYPE_CHECKING:
    from phasesam.models.sam import EncoderOutput, SamModel

ALL_MASKS, SINGLE_MASK, AMBIGUOUS_MASKS = slice(0, 4), slice(0, 1), slice(1, 4)

_MASK_SIZE = 256
_FRAME = 1024
_FINE_SIZE = 512
_FACTOR = _FRAME // _MASK_SIZE


@dataclass
class Targets:
    """Objects of one view on the grid of the decoder.

    Attributes
    ----------
    masks : (n, 256, 256) tensor
        Covered fraction of each pixel.
    weight : (256, 256) tensor
        Labelled fraction.
    background : (256, 256) bool array
        Labelled, and no object.
    fine : (n, 512, 512) bool tensor
        The objects on a finer grid, on which their IoU is measured.
    known : (512, 512) bool tensor
        Where anything is labelled.
    """

    masks: Tensor
    weight: Tensor
    background: NDArray[np.bool_]
    fine: Tensor
    known: Tensor

    def __post_init__(self) -> None:
        self.truth: NDArray[np.bool_] = (self.masks > 0.5).cpu().numpy()
        self.valid: NDArray[np.bool_] = (self.weight > 0.5).cpu().numpy()


def choose_objects(
    labels: NDArray[np.int32],
    count: int | None,
    rng: np.random.Generator,
    among: NDArray[np.int64] | None = None,
) -> Targets | None:
    """Pick objects of a view that are large enough to be clicked on.

    Parameters
    ----------
    labels : (h, w) int32 array
        At most 1024 pixels a side; 0 background, -1 unlabelled.
    count : int or None
        How many; None for all.
    rng : numpy Generator
        Source of chance.
    among : (k,) int array, optional
        Labels that may be picked; all when left out.

    Returns
    -------
    Targets or None
        None when there are none.
    """
    frame = _framed(labels)
    ids, areas = np.unique(frame[frame > 0], return_counts=True)
    # An object that fills the view has no outside to be told from.
    fits = (areas >= SMALLEST_AREA) & (areas < MOST_COVERED * labels.size)
    ids = ids[fits if among is None else fits & np.isin(ids, among)]
    if len(ids) == 0:
        return None
    chosen = ids if count is None else rng.permutation(ids)[:count]
    tensor = torch.from_numpy(frame)
    masks = torch.stack([pooled_mask(tensor == int(i), _MASK_SIZE) for i in chosen])
    seen = (masks > 0.5).flatten(1).any(1)
    if not seen.any():
        return None
    weight = pooled_mask(tensor >= 0, _MASK_SIZE)
    step = _FRAME // _FINE_SIZE
    sparse = tensor[step // 2 :: step, step // 2 :: step]
    fine = torch.stack([sparse == int(i) for i in chosen])[seen]
    return Targets(masks[seen], weight, _background(tensor), fine, sparse >= 0)


def background_of(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Find where a view is labelled and holds no object.

    Parameters
    ----------
    labels : (h, w) int32 array
        At most 1024 pixels a side; 0 background, -1 unlabelled.

    Returns
    -------
    (256, 256) bool array
        On the grid of the decoder.
    """
    return _background(torch.from_numpy(_framed(labels)))


def _background(frame: Tensor) -> NDArray[np.bool_]:
    background: NDArray[np.bool_] = (pooled_mask(frame == 0, _MASK_SIZE) > 0.99).numpy()
    return background


def _framed(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Put a view into the model's square; nothing is known of the rest."""
    frame = np.full((_FRAME, _FRAME), -1, dtype=np.int32)
    frame[: labels.shape[0], : labels.shape[1]] = labels
    return frame


class PromptState:
    """Prompts given so far for the objects of one view, and the last masks."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.points: list[list[tuple[float, float]]] = []
        self.labels: list[list[int]] = []
        self.boxes: Tensor | None = None
        self.logits: Tensor | None = None

    def add(self, places: list[tuple[int, int]], labels: list[int]) -> None:
        """Add one click, row and column of the decoder's grid, to each object."""
        if not self.points:
            self.points, self.labels = [[] for _ in places], [[] for _ in places]
        for own, own_labels, place, label in zip(
            self.points, self.labels, places, labels, strict=True
        ):
            row, column = place
            own.append(((column + 0.5) * _FACTOR, (row + 0.5) * _FACTOR))
            own_labels.append(label)

    def encoded(self, model: SamModel) -> tuple[Tensor, Tensor]:
        """Embed the prompts: sparse (n, p, c), dense (n, c, 64, 64)."""
        points = None
        if self.points:
            points = (
                torch.tensor(self.points, dtype=torch.float32, device=self.device),
                torch.tensor(self.labels, dtype=torch.float32, device=self.device),
            )
        masks = None if self.logits is None else self.logits[:, None]
        prompts: Any = model.prompt_encoder
        return prompts(points=points, boxes=self.boxes, masks=masks)


def start(
    targets: Targets, config: PromptTraining, rng: np.random.Generator, device: torch.device
) -> PromptState:
    """First prompts: a box around each object, or a click on each."""
    state = PromptState(device)
    if rng.random() < config.box_share:
        boxes = np.array([noisy_box(mask, rng) for mask in targets.truth]) * _FACTOR
        state.boxes = torch.tensor(boxes, dtype=torch.float32, device=device)
        return state
    places = [
        click_in(mask & targets.valid if (mask & targets.valid).any() else mask, rng,
                 centre=bool(rng.random() < config.centre_share))
        for mask in targets.truth
    ]  # fmt: skip
    state.add(places, [1] * len(places))
    return state


def decode(
    model: SamModel, encoded: EncoderOutput, state: PromptState, scales: slice = ALL_MASKS
) -> tuple[Tensor, Tensor]:
    """Answer the prompts.

    Parameters
    ----------
    model : SamModel
        Being trained.
    encoded : EncoderOutput
        Of one view.
    state : PromptState
        The prompts.
    scales : slice
        Masks wanted: 0 is the single one, 1–3 those of an ambiguous prompt.

    Returns
    -------
    masks : (n, k, 256, 256) tensor
        Logits of the masks wanted. SAM-HQ's refinement is added to each.
    scores : (n, k) tensor
        Their predicted IoU.
    """
    sparse, dense = state.encoded(model)
    tools: Any = model.mask_decoder
    prompts: Any = model.prompt_encoder
    features, position = encoded.features, prompts.get_dense_pe().to(encoded.features)
    if not model.is_hq:
        given = None if state.logits is None else dense
        embedded = (sparse, given, prompts.no_mask_embed.weight)
        masks, scores = predict_masks(tools, features, position, embedded, scales)
        return masks, scores[:, scales]
    early = encoded.intermediate[0].permute(0, 3, 1, 2)
    fine = tools.embedding_encoder(features) + tools.compress_vit_feat(early)
    masks, scores = tools.predict_masks(
        image_embeddings=features,
        image_pe=position,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        hq_features=fine,
    )
    return (masks[:, :4] + masks[:, 4:])[:, scales], scores[:, :4][:, scales]


def prompt_losses(
    model: SamModel,
    encoded: EncoderOutput,
    targets: Targets,
    settings: tuple[PromptTraining, LossConfig],
    rng: np.random.Generator,
) -> Iterator[Tensor]:
    """Judge the answers to some rounds of prompts.

    Parameters
    ----------
    model : SamModel
        Being trained.
    encoded : EncoderOutput
        Of one view.
    targets : Targets
        Its objects.
    settings : PromptTraining, LossConfig
        How prompts are simulated and answers judged.
    rng : numpy Generator
        Source of chance.

    Yields
    ------
    scalar Tensor
        One loss a round, a share of the whole.
    """
    config, loss_config = settings
    device = encoded.features.device
    aim, weight = targets.masks.to(device), targets.weight.to(device)
    fine, known = targets.fine.to(device), targets.known.to(device)
    state = start(targets, config, rng, device)
    judged = _judged_rounds(config, rng)
    for round_ in range(max(judged) + 1):
        boxed = round_ == 0 and state.boxes is not None
        wanted = SINGLE_MASK if round_ else ALL_MASKS if boxed else AMBIGUOUS_MASKS
        with torch.set_grad_enabled(round_ in judged):
            masks, scores = decode(model, encoded, state, wanted)
        # A box is answered by the single mask too.
        answer, score = (masks[:, 1:], scores[:, 1:]) if boxed else (masks, scores)
        if round_ in judged:
            each = mask_loss(answer, aim, weight, loss_config)
            quality = mask_iou(answer.detach(), fine, known)
            # Of an ambiguous prompt's three masks, the best one is taught.
            loss = each.min(1).values.mean()
            loss = loss + loss_config.iou * functional.mse_loss(score.float(), quality)
            if boxed:
                loss = loss + mask_loss(masks[:, :1], aim, weight, loss_config).mean()
            yield loss / len(judged)
        if round_ < max(judged):
            best = score.argmax(1)
            chosen = answer[torch.arange(len(answer), device=device), best].detach().float()
            correct(state, targets, chosen, config.centre_share, rng)


def _judged_rounds(config: PromptTraining, rng: np.random.Generator) -> set[int]:
    """Draw the rounds to learn from; the first, without which there are no others, always."""
    later = rng.permutation(np.arange(1, config.rounds))[: config.judged - 1]
    return {0, *(int(round_) for round_ in later)}


def correct(
    state: PromptState,
    targets: Targets,
    logits: Tensor,
    centre_share: float,
    rng: np.random.Generator,
) -> None:
    """Hand the masks on and click once where each is wrong.

    Parameters
    ----------
    state : PromptState
        Changed.
    targets : Targets
        The objects.
    logits : (n, 256, 256) tensor
        The masks so far.
    centre_share : float
        Share of clicks that go to the middle of the largest error.
    rng : numpy Generator
        Source of chance.
    """
    state.logits = logits
    predicted = (logits > 0).cpu().numpy()
    places, labels = [], []
    for mask, truth in zip(predicted, targets.truth, strict=True):
        centre = bool(rng.random() < centre_share)
        place, label = correction(mask, truth, targets.valid, rng, centre)
        places.append(place)
        labels.append(label)
    state.add(places, labels)


def objectness_loss(
    model: SamModel,
    encoded: EncoderOutput,
    background: NDArray[np.bool_],
    count: int,
    rng: np.random.Generator,
) -> Tensor | None:
    """Teach the IoU head that where there is no object there is no mask worth keeping.

    After CellSeg1 (Zhou et al., arXiv 2412.01410).

    Returns
    -------
    scalar Tensor or None
        None when the view has no background.
    """
    rows, columns = np.nonzero(background)
    if count == 0 or len(rows) == 0:
        return None
    picks = rng.integers(len(rows), size=count)
    state = PromptState(encoded.features.device)
    state.add([(int(rows[i]), int(columns[i])) for i in picks], [1] * count)
    _, scores = decode(model, encoded, state, AMBIGUOUS_MASKS)
    return scores.float().square().mean()

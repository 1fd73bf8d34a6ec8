"""Points for many objects of one image at once: each object gets the best of its masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phasesam.core.coordinates import points_to_model
from phasesam.core.mask_set import MaskCrop
from phasesam.engines.prompt_threads import PromptThreads
from phasesam.engines.rendering import raster
from phasesam.models.mask_decoder import MultiPromptDecoder

if TYPE_CHECKING:
    from phasesam.engines.embedding_cache import Embedding
    from phasesam.models.manager import ModelManager
    from phasesam.models.sam import SamModel

_BATCH = 8


@dataclass(frozen=True, eq=False)
class ObjectPrompt:
    """Points on one object, and what was found before.

    Attributes
    ----------
    points : (k, 2) float array
        ``(y, x)`` in image pixels, at least one.
    labels : (k,) int array
        1 inside, 0 outside.
    logits : (256, 256) float32 array or None
        Of an earlier answer for the same object, to be refined.
    """

    points: NDArray[np.float64]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class ObjectAnswer:
    """The mask of one object.

    Attributes
    ----------
    mask : MaskCrop
        In image pixels; empty when no pixel is inside.
    score : float
        Predicted IoU.
    logits : (256, 256) float32 array
        To be passed back for refinement.
    """

    mask: MaskCrop
    score: float
    logits: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Scene:
    model: SamModel
    embedding: Embedding
    multimask_output: bool


def predict_objects(
    model: SamModel,
    manager: ModelManager,
    embedding: Embedding,
    prompts: Sequence[ObjectPrompt],
    *,
    multimask_output: bool,
) -> list[ObjectAnswer]:
    """Segment several objects, each from its own points.

    The numbers are those of `phasesam.engines.prompting.predict`, one object after the other.
    Objects without earlier logits share what depends on the image alone.

    Parameters
    ----------
    model : SamModel
        Leased from `manager`.
    manager : ModelManager
        Guards the device.
    embedding : Embedding
        Of the image.
    prompts : sequence of ObjectPrompt
        In any order and mixture.
    multimask_output : bool
        Take the best of part, object and group by predicted IoU, instead of the single mask.

    Returns
    -------
    list of ObjectAnswer
        In the order of the prompts.
    """
    scene = _Scene(model, embedding, multimask_output)
    pieces = _pieces(prompts)
    answers: list[ObjectAnswer | None] = [None] * len(prompts)

    def run() -> list[list[ObjectAnswer]]:
        with PromptThreads(model.pixel_mean.device) as threads:
            return threads.map(lambda piece: _answer(scene, [prompts[i] for i in piece]), pieces)

    for piece, found in zip(pieces, manager.retry(run, doing="decoding prompts"), strict=True):
        for index, answer in zip(piece, found, strict=True):
            answers[index] = answer
    return [answer for answer in answers if answer is not None]


def _pieces(prompts: Sequence[ObjectPrompt]) -> list[list[int]]:
    """Divide prompts into those that can be decoded together."""
    alike: dict[tuple[bool, int], list[int]] = {}
    for index, prompt in enumerate(prompts):
        alike.setdefault((prompt.logits is None, len(prompt.points)), []).append(index)
    return [
        group[start : start + _BATCH]
        for group in alike.values()
        for start in range(0, len(group), _BATCH)
    ]


@torch.inference_mode()
def _answer(scene: _Scene, prompts: Sequence[ObjectPrompt]) -> list[ObjectAnswer]:
    """Decode a piece: at once without earlier logits, else one object after the other."""
    decoder = MultiPromptDecoder(scene.model)
    together = [prompts] if prompts[0].logits is None else [[prompt] for prompt in prompts]
    return [answer for group in together for answer in _decode(scene, decoder, group)]


def _decode(
    scene: _Scene, decoder: MultiPromptDecoder, prompts: Sequence[ObjectPrompt]
) -> list[ObjectAnswer]:
    model, embedding = scene.model, scene.embedding
    like = next(model.mask_decoder.parameters())

    def placed(tensor: Tensor) -> Tensor:
        return tensor.to(device=like.device, dtype=decoder.dtype)

    xy = np.stack(
        [points_to_model(p.points, embedding.image_shape, model.image_size) for p in prompts]
    )
    labels = torch.as_tensor(np.stack([p.labels for p in prompts]), device=like.device)
    earlier = prompts[0].logits
    mask = None if earlier is None else placed(torch.from_numpy(earlier.copy())[None, None])
    points = placed(torch.from_numpy(xy)), labels
    sparse, dense = model.prompt_encoder(points=points, boxes=None, masks=mask)
    context = decoder.context(
        placed(embedding.features),
        tuple(placed(tensor) for tensor in embedding.intermediate),
        dense=None if mask is None else dense,
    )
    hidden, keys, predicted = decoder.tokens(context, sparse)
    scales = (1, 2, 3) if scene.multimask_output else (0,)
    scores = predicted[:, list(scales)].float()
    logits = decoder.masks(context, hidden, keys, scales).float()
    best = scores.argmax(dim=1, keepdim=True)
    chosen = torch.take_along_dim(logits, best[:, :, None, None], dim=1)[:, 0].cpu().numpy()
    values = torch.take_along_dim(scores, best, dim=1)[:, 0].tolist()
    return [
        ObjectAnswer(_mask(scene, plane), value, plane.copy())
        for plane, value in zip(chosen, values, strict=True)
    ]


def _mask(scene: _Scene, logits: NDArray[np.float32]) -> MaskCrop:
    target = raster(scene.embedding.image_shape, logits.shape[-1], scene.model.image_size)
    window = target.window(logits, 0.0)
    if window is None or window[0].stop == 0 or window[1].stop == 0:
        return MaskCrop.from_array(np.zeros((1, 1), np.bool_))
    inside = target.render(logits, window) > 0
    return MaskCrop.from_array(inside, window[0].start, window[1].start)

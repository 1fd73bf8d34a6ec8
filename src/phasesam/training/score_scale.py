"""Scale the scores of an adapter that tells objects, so that SAM's usual threshold fits it.

SAM keeps automatic masks with a predicted IoU above 0.88. A model that has learnt what is no
object scores lower than SAM, which is sure of everything; with the usual threshold it would find
only the best half of the objects. After the training, the best threshold is found on images, and
a scale and an offset are folded into the last layer of the IoU head that bring it to 0.88 and
leave 1 where it is. So presets, sliders and other tools need not know of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.images import is_constant
from phasesam.core.mask_set import MaskSet
from phasesam.core.metrics import score_instances
from phasesam.core.tiles import tiles
from phasesam.core.types import StopCallback
from phasesam.engines.automatic_config import AutomaticConfig
from phasesam.engines.presets import get_preset
from phasesam.engines.segmenter import Segmenter
from phasesam.models.adapter_card import AdapterCard, read_card
from phasesam.models.adapters import load_trainable, save_adapter
from phasesam.models.manager import ModelManager
from phasesam.models.sam import SamModel

if TYPE_CHECKING:
    from phasesam.engines.candidates import Candidates
    from phasesam.training.dataset import LabelledImage

_TRIED = tuple(np.round(np.arange(0.2, 0.96, 0.04), 2).tolist())
_PRESET = "particles"
_FEWEST_POINTS, _MOST_POINTS, _PIXELS_TO_A_POINT = 4, 32, 12
_MOST_IMAGES = 2
_MOST_WINDOWS = 3
"""Windows along a side of what is searched."""
_AS_GOOD = 0.01


def scale_scores(
    path: Path,
    base: SamModel,
    images: Sequence[LabelledImage],
    device: str = "auto",
    should_stop: StopCallback | None = None,
) -> AdapterCard:
    """Bring the best threshold of an adapter to SAM's usual one.

    Parameters
    ----------
    path : Path
        File of an adapter whose IoU head is trained; written anew.
    base : SamModel
        Its base.
    images : sequence of LabelledImage
        The first two of them that hold objects are searched.
    device : str
        Where to search.
    should_stop : callable, optional
        Asked while searching.

    Returns
    -------
    AdapterCard
        With "best_threshold" among the details. An adapter that has it already, or for which
        there is no picture with anything in it, is left alone.

    Raises
    ------
    SaveError
        If the file cannot be written.
    CancelledError
        If the user asked to stop; the adapter is as it was.
    """
    card = read_card(path)
    if not card.config.iou_head or "best_threshold" in card.details:
        return card
    manager = ModelManager(device=device)
    found: list[tuple[Candidates, NDArray[np.int32]]] = []
    for image in images:
        if len(found) == _MOST_IMAGES:
            break
        rgb, labels = _part(image, card.window)
        # Without objects every threshold is as good as another.
        if not (labels > 0).any():
            continue
        segmenter = Segmenter(
            rgb, card.base, manager=manager, adapter=str(path), exclude_data_bar=False
        )
        if is_constant(segmenter.rgb):
            continue
        settings = _search_settings(max(segmenter.shape))
        candidates = segmenter.automatic(settings, should_stop=should_stop)
        found.append((candidates, labels))
    threshold = best_threshold(found) if found else None
    if threshold is None:
        return card
    model, card = load_trainable(base, path, card.base_hash)
    card = replace(card, details={**card.details, "best_threshold": threshold})
    scale = card.score_slope
    decoder: Any = model.mask_decoder
    last = decoder.iou_prediction_head.layers[-1]
    last.weight.data.mul_(scale)
    last.bias.data.mul_(scale).add_(1 - scale)
    save_adapter(model, card, path)
    return card


def _part(image: LabelledImage, window: int | None) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Cut out what a search of some seconds can look at: a few windows with many objects."""
    rgb, labels = image.rgb(), image.label_array()
    if window is None:
        return rgb, labels
    parts = tiles((labels.shape[0], labels.shape[1]), _MOST_WINDOWS * window, window // 2)
    counts = [len(np.unique(labels[y0:y1, x0:x1])) for y0, x0, y1, x1 in parts]
    y0, x0, y1, x1 = parts[int(np.argmax(counts))]
    return rgb[y0:y1, x0:x1], labels[y0:y1, x0:x1]


def best_threshold(found: Sequence[tuple[Candidates, np.ndarray]]) -> float | None:
    """Find the threshold of the score with the best masks.

    Parameters
    ----------
    found : sequence of (Candidates, (h, w) int32 array)
        What was found in an image, and its objects; negative where nothing is known.

    Returns
    -------
    float or None
        Of those tried, 0.2 to 0.92, the middle one of all whose mean segmentation accuracy is
        as good as the best but for a hundredth; None if nothing is found with any.
    """
    preset = get_preset(_PRESET)
    scores = []
    for threshold in _TRIED:
        accuracy = []
        for candidates, labels in found:
            filters = preset.filter_for((labels.shape[0], labels.shape[1]))
            masks = candidates.filter(filters.changed(pred_iou=threshold))
            truth = MaskSet.from_labels(np.maximum(labels, 0))
            accuracy.append(score_instances(masks, truth, ignore=labels < 0).msa)
        scores.append(float(np.mean(accuracy)))
    if not any(scores):
        return None
    good = np.flatnonzero(np.array(scores) >= max(scores) - _AS_GOOD)
    return float(_TRIED[int(good[len(good) // 2])])


def _search_settings(longest_side: int) -> AutomaticConfig:
    """As for particles; in small images points need not lie closer than some pixels."""
    points = max(_FEWEST_POINTS, min(_MOST_POINTS, longest_side // _PIXELS_TO_A_POINT))
    return get_preset(_PRESET).automatic.changed(points_per_side=points)

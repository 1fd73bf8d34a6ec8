"""Training on objects: from prompts, and telling objects from background."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from phasesam.core.boxes import contains
from phasesam.core.mask_set import MaskSet
from phasesam.core.windows import Windows
from phasesam.models.sam import EncoderOutput
from phasesam.training.clicks import click_in
from phasesam.training.dataset import LabelledImage
from phasesam.training.losses import mask_iou
from phasesam.training.objective import SamObjective
from phasesam.training.prompt_rounds import (
    AMBIGUOUS_MASKS,
    SINGLE_MASK,
    PromptState,
    Targets,
    background_of,
    choose_objects,
    correct,
    decode,
    objectness_loss,
    prompt_losses,
)
from phasesam.training.run_folder import Preview
from phasesam.training.view_plan import Sample
from phasesam.training.views import View, plain_view

_MOST_OBJECTS = 48
_MOST_VIEWS = 12
_CLICKS = 5
_JUDGED = (1, 3, 5)
_FRAME = 1024


class PromptObjective(SamObjective):
    """Objects from prompts; with objectness for "instance"."""

    def prepare(self, report: Callable[[int, int], None]) -> bool:
        """Nothing comes before the first epoch."""
        return False

    def _losses(
        self, encoded: EncoderOutput, samples: Sequence[Sample], views: Sequence[View]
    ) -> Iterator[Tensor]:
        recipe = self.recipe
        for index, (sample, view) in enumerate(zip(samples, views, strict=True)):
            one = EncoderOutput(
                encoded.features[index : index + 1],
                tuple(t[index : index + 1] for t in encoded.intermediate),
            )
            rng = self.plan.chance(sample)
            targets = choose_objects(view.labels, recipe.prompts.objects, rng)
            if targets is not None:
                yield from prompt_losses(
                    self.model, one, targets, (recipe.prompts, recipe.loss), rng
                )
            if self.data.task == "instance":
                # A view without objects teaches that there are none.
                background = background_of(view.labels) if targets is None else targets.background
                count = recipe.prompts.background
                loss = objectness_loss(self.model, one, background, count, rng)
                if loss is not None:
                    yield recipe.loss.iou * loss

    @torch.no_grad()
    def validate(self) -> tuple[dict[str, float], Preview | None]:
        """Click on objects of the validation images as the standard evaluation does."""
        images = self.judged
        if not images:
            return {}, None
        curves, quality, preview = [], [], None
        share = max(1, _MOST_OBJECTS // len(images))
        for index, image in enumerate(images):
            rng = np.random.default_rng([self.surroundings.seed, index])
            most = max(1, _MOST_VIEWS // len(images))
            scenes = _scenes(image, self.recipe.views.window, (share, most), rng)
            for number, (view, targets) in enumerate(scenes):
                encoded = self.encode(f"val-{index}-{number}", view.rgb)
                dice, masks = self._clicked(encoded, targets)
                curves.append(dice)
                if self.data.task == "instance":
                    quality.append(self._objectness(encoded, targets, rng))
                if preview is None:
                    preview = _preview(view, targets, masks)
        if not curves:
            return {}, None
        by_click = np.concatenate(curves, 1).mean(1)
        figures = {f"dice_{n}": float(by_click[n - 1]) for n in _JUDGED}
        figures["val_score"] = float(np.mean([by_click[n - 1] for n in _JUDGED]))
        if quality:
            figures["objectness"] = float(np.mean(quality))
            figures["val_score"] = (figures["dice_1"] + figures["objectness"]) / 2
        return figures, preview

    def _clicked(self, encoded: EncoderOutput, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
        """Dice after each click (clicks, n) and the masks after the first."""
        device = encoded.features.device
        fine, known = targets.fine.to(device), targets.known.to(device)
        rng = np.random.default_rng(0)
        state = PromptState(device)
        state.add([click_in(t, rng, centre=True) for t in targets.truth], [1] * len(targets.truth))
        dice, first = [], np.zeros((0, 0, 0), bool)
        for click in range(_CLICKS):
            wanted = SINGLE_MASK if click else AMBIGUOUS_MASKS
            masks, scores = decode(self.model, encoded, state, wanted)
            best = scores.argmax(1)
            answer = masks[torch.arange(len(masks), device=device), best].float()
            iou = mask_iou(answer[:, None], fine, known)[:, 0]
            dice.append((2 * iou / (1 + iou)).cpu().numpy())
            if click == 0:
                first = (answer > 0).cpu().numpy()
            if click + 1 < _CLICKS:
                correct(state, targets, answer, 1.0, rng)
        return np.array(dice), first

    def _objectness(
        self, encoded: EncoderOutput, targets: Targets, rng: np.random.Generator
    ) -> float:
        """Foretell a search with points anywhere, 0–1.

        Mean of the IoU of the best-scored mask where there is an object, and of how often an
        object scores higher than background.
        """
        device = encoded.features.device
        state = PromptState(device)
        places = [click_in(truth, rng, centre=False) for truth in targets.truth]
        state.add(places, [1] * len(places))
        masks, scores = decode(self.model, encoded, state, AMBIGUOUS_MASKS)
        best = scores.argmax(1)
        rows = torch.arange(len(masks), device=device)
        fine, known = targets.fine.to(device), targets.known.to(device)
        iou = mask_iou(masks[rows, best][:, None], fine, known).mean()
        inside = scores.max(1).values
        background = np.argwhere(targets.background)
        if len(background) == 0:
            return float(iou)
        picks = rng.integers(len(background), size=len(places))
        empty = PromptState(device)
        empty.add([(int(r), int(c)) for r, c in background[picks]], [1] * len(picks))
        outside = decode(self.model, encoded, empty, AMBIGUOUS_MASKS)[1].max(1).values
        told_apart = (inside[:, None] > outside[None]).float().mean()
        return float((iou + told_apart) / 2)


def _scenes(
    image: LabelledImage,
    side: int | None,
    most: tuple[int, int],
    rng: np.random.Generator,
) -> Iterator[tuple[View, Targets]]:
    """Look at some objects of an image, through windows where the adapter will do so too.

    Parameters
    ----------
    image : LabelledImage
        With objects.
    side : int or None
        Of the windows in pixels; None for the whole image.
    most : (int, int)
        Objects and windows at most.
    rng : numpy Generator
        Source of chance.
    """
    rgb, labels = image.rgb(), image.label_array()
    if side is None:
        view = plain_view(rgb, labels)
        targets = choose_objects(view.labels, most[0], rng)
        if targets is not None:
            yield view, targets
        return
    windows = Windows((labels.shape[0], labels.shape[1]), side)
    objects, views = most
    values = np.unique(labels[labels > 0]).astype(np.int64)
    boxes = MaskSet.from_labels(np.maximum(labels, 0)).boxes
    left = [int(i) for i in rng.permutation(len(values))[:objects]]
    for _ in range(views):
        if not left:
            return
        y0, x0, y1, x1 = window = windows.around(boxes[left[0]], side)
        inside = [i for i in left if contains(window, boxes[i])] or left[:1]
        left = [i for i in left if i not in inside]
        view = plain_view(
            np.ascontiguousarray(rgb[y0:y1, x0:x1]), np.ascontiguousarray(labels[y0:y1, x0:x1])
        )
        targets = choose_objects(view.labels, None, rng, values[inside])
        if targets is not None:
            yield view, targets


def _preview(view: View, targets: Targets, masks: np.ndarray) -> Preview:
    """Paint the objects that were clicked on, and the answers to one click each."""
    height, width = view.labels.shape
    rows, columns = ((np.arange(n) * masks.shape[1] // _FRAME) for n in (height, width))
    truth = np.zeros((height, width), np.int32)
    prediction = np.zeros((height, width), np.int32)
    for number, (true, mask) in enumerate(zip(targets.truth, masks, strict=True), 1):
        truth[true[rows][:, columns]] = number
        prediction[mask[rows][:, columns]] = number
    return Preview(view.rgb, truth, prediction)

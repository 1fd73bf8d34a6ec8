"""The head of fine detail learns alone: cheap steps before those with the whole encoder.

Contours and textures of a few pixels need no surroundings and no knowledge of other pictures. On
small pieces at full magnification the head sees many times as much of the images in the same time,
and the adapter, which comes after, need not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from phasesam.core.errors import TrainingError
from phasesam.models.detail_head import DetailHead, detail_picture
from phasesam.training.class_maps import class_targets
from phasesam.training.losses import class_loss

if TYPE_CHECKING:
    from phasesam.models.sam import SamModel
    from phasesam.training.objective import Surroundings
    from phasesam.training.recipes import Recipe
    from phasesam.training.view_plan import ViewPlan

SIDE = 256
MOST_STEPS = 2000
_BATCH = 8
_RATE = 2.0
_CLIP = 1.0


def train_detail(
    model: SamModel,
    plan: ViewPlan,
    recipe: Recipe,
    surroundings: Surroundings,
    report: Callable[[int, int], None],
) -> bool:
    """Train the `DetailHead` of a model on pieces of the training images.

    Parameters
    ----------
    model : SamModel
        With a class decoder; without a head of fine detail nothing is done.
    plan : ViewPlan
        Draws the pieces.
    recipe : Recipe
        Number of steps, loss, and course of the learning rate, which is twice that of the heads;
        the optimiser is always AdamW.
    surroundings : Surroundings
        Device and precision.
    report : callable
        ``report(done, total)`` after each step; may end it by an exception.

    Returns
    -------
    bool
        Whether there is something to learn alone.

    Raises
    ------
    TrainingError
        If the loss is not a number any more.
    """
    decoder = model.class_decoder
    # Long trainings need no longer head start.
    steps = min(recipe.detail_steps * recipe.epochs, MOST_STEPS)
    if decoder is None or decoder.detail is None or not steps:
        return False
    head = decoder.detail
    alike = repr((steps, decoder.n_classes, recipe.optimiser, recipe.loss))

    def learn() -> None:
        for step in _steps(head, decoder.n_classes, steps, plan, recipe, surroundings):
            report(step + 1, steps)

    # Networks that differ in what else they take begin with the same head.
    if not surroundings.store.learn(f"detail {alike}", head, learn):
        report(steps, steps)
    return True


def _steps(
    head: DetailHead,
    classes: int,
    steps: int,
    plan: ViewPlan,
    recipe: Recipe,
    surroundings: Surroundings,
) -> Iterator[int]:
    """Take steps, and tell the number of each."""
    rates, device = recipe.optimiser, surroundings.device
    optimiser = torch.optim.AdamW(head.parameters(), weight_decay=rates.weight_decay)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = _RATE * rates.lr_heads * rates.factor(step / steps)
        pictures, target, weight = _pieces(plan, classes, step * _BATCH, device)
        with surroundings.autocast():
            logits = head.alone(pictures)
        loss = class_loss(logits, target.to(device), weight.to(device), recipe.loss)
        if not torch.isfinite(loss):
            raise TrainingError(
                "the loss of the head of fine detail is not a number any more: try a lower "
                "learning rate of the heads, or fp32 instead of bf16"
            )
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), _CLIP)
        optimiser.step()
        yield step
    # What Adam remembers of these steps is gone; gradients are not to stay either.
    optimiser.zero_grad()


def _pieces(
    plan: ViewPlan, classes: int, first: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw a batch: pictures as the head sees them, targets, weights."""
    numbers = range(first, first + _BATCH)
    drawn = [plan.piece(number, SIDE) for number in numbers]
    aims = [class_targets(piece.labels, classes, SIDE // 2, SIDE) for piece in drawn]
    pictures = torch.cat(
        [
            detail_picture(piece.rgb, plan.levels(plan.image_of_piece(number)), SIDE)
            for number, piece in zip(numbers, drawn, strict=True)
        ]
    )
    return pictures.to(device), torch.stack([a for a, _ in aims]), torch.stack([w for _, w in aims])

"""How much memory a training will need, found out without computing anything.

One step is run on torch's "meta" device, where tensors have a shape and no content; what
automatic differentiation would keep is counted.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from phasesam.core.errors import DeviceMemoryError
from phasesam.models.adapter_card import read_card
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.adapters import adapter_tensors, attach
from phasesam.models.class_decoder import class_logits
from phasesam.models.devices import asked_device
from phasesam.models.free_memory import free_memory
from phasesam.models.registry import get_spec
from phasesam.models.sam import EncoderOutput, assemble_empty
from phasesam.models.split_encoder import SplitEncoder
from phasesam.training.prompt_rounds import PromptState, decode

if TYPE_CHECKING:
    from phasesam.models.sam import SamModel
    from phasesam.training.fine_tuning import TrainingSettings
    from phasesam.training.recipes import Recipe

# Python, torch and its libraries; buffers of the frozen part; what losses keep for a mask.
_LIBRARIES = 700 << 20
_BUFFERS = 600 << 20
_LOSS_TENSORS = 12


def estimate_memory(settings: TrainingSettings, n_classes: int = 0) -> int:
    """Bytes that a training needs at its worst moment.

    Parameters
    ----------
    settings : TrainingSettings
        Model and recipe.
    n_classes : int
        Classes of a "semantic" training; 0 for objects.

    Returns
    -------
    int
        On the device, together with the process; within about a third of the truth.

    Raises
    ------
    CheckpointError
        If the file of the adapter to go on from is none.
    """
    recipe = settings.recipe
    if settings.start:
        recipe = replace(recipe, adapter=read_card(Path(settings.start)).config)
    base = assemble_empty(get_spec(settings.base))
    recipe = recipe.fitted("semantic" if n_classes else "instance", base.is_hq)
    with torch.device("meta"):
        model = attach(base, recipe.adapter, n_classes)
        trained = sum(t.numel() for t in adapter_tensors(model, recipe.adapter).values())
        weights = sum(t.numel() for t in base.parameters())
        encoder = SplitEncoder(model, recipe.adapter)
        picture = torch.empty(1, 3, model.image_size, model.image_size)
        frozen = encoder.frozen(picture)
        counted = _Saved()
        with counted:
            encoded = encoder.trained(frozen)
        kept = counted.nbytes
        decoder = _Saved()
        with decoder:
            extra = _decode(model, encoded, recipe, n_classes)
    # Gradients and two moments of the optimiser for each trained number.
    moments = 4 * 4 * trained
    return _LIBRARIES + _BUFFERS + 4 * weights + moments + kept + decoder.nbytes + extra


def require_memory(settings: TrainingSettings, n_classes: int = 0) -> int:
    """Refuse a training that will not fit.

    Returns
    -------
    int
        The estimate in bytes.

    Raises
    ------
    DeviceMemoryError
        If more is needed than is free; the message says what to change.
    """
    needed = estimate_memory(settings, n_classes)
    free = _free(settings.device)
    if needed > free:
        raise DeviceMemoryError(
            f"the training needs about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: "
            + suggestion(settings, n_classes)
        )
    return needed


def suggestion(settings: TrainingSettings, n_classes: int = 0) -> str:
    """Say what would make a training smaller, the most effective first."""
    recipe = settings.recipe
    ideas = []
    if settings.start:
        # The recipe's own layers and the base do not count then.
        recipe = replace(recipe, adapter=AdapterConfig(encoder=()))
        ideas.append("begin with the base alone, or with an adapter of fewer layers")
    if recipe.adapter.blocks == "all" and recipe.adapter.encoder:
        ideas.append("adapt late blocks only (adapter.blocks=late)")
    if not n_classes and recipe.prompts.objects > 2:
        ideas.append(
            f"prompt fewer objects at once (prompts.objects, now {recipe.prompts.objects})"
        )
    if settings.base != "mobile_sam" and not settings.start:
        ideas.append("use the smaller model mobile_sam")
    if recipe.adapter.rank > 64:
        ideas.append(f"use a smaller rank (now {recipe.adapter.rank})")
    if recipe.adapter.encoder:
        ideas.append("adapt the decoder only (adapter.encoder=[])")
    ideas.append("close other programs, or ask for more memory for the job")
    return "; ".join(ideas)


def _decode(model: SamModel, encoded: EncoderOutput, recipe: Recipe, n_classes: int) -> int:
    """Run the decoder once and return what the loss will need beside."""
    leaf = EncoderOutput(
        encoded.features.detach().requires_grad_(),
        tuple(t.detach() for t in encoded.intermediate),
    )
    if n_classes:
        picture = torch.empty(1, 3, model.image_size, model.image_size)
        logits = class_logits(model, leaf.features, picture)
        return _LOSS_TENSORS * logits.numel() * 4
    n = recipe.prompts.objects
    # Boxes: what points need depends on their labels, which have no content here.
    state = PromptState(leaf.features.device)
    state.boxes = torch.empty(n, 4)
    masks, _ = decode(model, leaf, state)
    return _LOSS_TENSORS * masks.numel() * 4


class _Saved(saved_tensors_hooks):
    """Counts the bytes that differentiation keeps, each tensor's memory once."""

    def __init__(self) -> None:
        self.nbytes = 0
        self._seen: set[Any] = set()
        self._alive: list[Tensor] = []
        super().__init__(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, torch.nn.Parameter) and storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            # An address is only unique as long as what it belongs to lives.
            self._alive.append(tensor)
            self.nbytes += storage.nbytes()
        return tensor


def _free(device: str) -> int:
    """Bytes that are free for this process, one of several on this machine or not."""
    found = asked_device(device)
    if found.type == "cuda":
        rank = os.environ.get("LOCAL_RANK")
        free, _ = torch.cuda.mem_get_info(found if rank is None else int(rank))
        return int(free)
    return free_memory() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

"""Listen to the layers of an image encoder while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from phasesam.core.errors import InvalidSettingError
from phasesam.models.tiny_vit import TinyViT

if TYPE_CHECKING:
    from phasesam.models.sam import SamModel

NECK = "neck"
Listener = Callable[[str, Tensor], None]


def layer_names(model: SamModel) -> tuple[str, ...]:
    """Names of the layers of the encoder, in the order of computing.

    Parameters
    ----------
    model : SamModel
        Any of the models; with or without an adapter.

    Returns
    -------
    tuple of str
        "block1", "block2"… of a ViT; "stage1.block1"…, "stage1.out"… of a TinyViT; and "neck",
        the image embedding.
    """
    return tuple(name for name, _ in _layers(model))


def check_layers(model: SamModel, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Put names of layers into the order of computing; all of them for None.

    Raises
    ------
    InvalidSettingError
        If the model has no such layer, or none is named.
    """
    names = layer_names(model)
    if wanted is None:
        return names
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise InvalidSettingError(
            f"expected layers of {model.spec.title}, which are {', '.join(names)}; "
            f"got {', '.join(unknown) or 'none'}"
        )
    return tuple(name for name in names if name in wanted)


@contextmanager
def listening(model: SamModel, names: Sequence[str], hear: Listener) -> Iterator[None]:
    """Hear what layers give out, as soon as they do.

    Parameters
    ----------
    model : SamModel
        Whose encoder is going to run.
    names : sequence of str
        Of `layer_names`.
    hear : callable
        ``hear(name, tokens)`` with the output (b, h, w, c) of a layer. The next layer may write
        into it: what is to stay must be copied. What it raises ends the run.
    """
    is_vit = not isinstance(model.image_encoder, TinyViT)
    hooks = []
    try:
        for name, module in _layers(model):
            if name not in names:
                continue
            channels_last = is_vit and name != NECK

            def hook(
                _module: nn.Module, _inputs: Any, output: Tensor, name: str = name,
                channels_last: bool = channels_last,
            ) -> None:  # fmt: skip
                hear(name, output if channels_last else output.permute(0, 2, 3, 1))

            hooks.append(module.register_forward_hook(hook))
        yield
    finally:
        for handle in hooks:
            handle.remove()


def _layers(model: SamModel) -> list[tuple[str, nn.Module]]:
    encoder: Any = model.image_encoder
    if isinstance(encoder, TinyViT):
        found = []
        for i, stage in enumerate(encoder.layers, start=1):
            blocks: Any = stage.blocks
            found += [(f"stage{i}.block{j}", block) for j, block in enumerate(blocks, start=1)]
            if stage.downsample is not None:
                # What the next stage starts from: fewer tokens of more channels.
                found.append((f"stage{i}.out", stage.downsample))
    else:
        found = [(f"block{i}", block) for i, block in enumerate(encoder.blocks, start=1)]
    return [*found, (NECK, encoder.neck)]

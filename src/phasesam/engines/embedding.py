"""From an image to its embedding, once, through the shared manager and the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from phasesam.core.coordinates import resize_image_longest_side
from phasesam.core.errors import CancelledError
from phasesam.core.images import content_hash
from phasesam.core.types import ProgressCallback, StopCallback
from phasesam.engines.embedding_cache import Embedding, EmbeddingKey, get_embedding_cache
from phasesam.models.adapter_loading import AdapterVersion

if TYPE_CHECKING:
    from phasesam.models.adapter_loading import Adapter
    from phasesam.models.manager import ModelManager
    from phasesam.models.sam import SamModel


def encode(
    model: SamModel, rgb: NDArray[np.uint8], manager: ModelManager
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], tuple[int, int]]:
    """Run the image encoder on one image or crop.

    Parameters
    ----------
    model : SamModel
        Leased from `manager`.
    rgb : (h, w, 3) uint8 array
        The picture.
    manager : ModelManager
        Guards the device: one computation at a time, another try after out-of-memory.

    Returns
    -------
    features : (1, C, 64, 64) float32 tensor
        On the device of the model.
    intermediate : tuple of (1, 64, 64, width) float32 tensors
        Early features, for SAM-HQ only.
    input_size : (int, int)
        Height and width after scaling to 1024.
    """
    resized = resize_image_longest_side(rgb, model.image_size)

    def run() -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        with torch.inference_mode(), manager.autocast(model.pixel_mean.device):
            output = model.encode(model.preprocess(resized))
            return output.features.float(), tuple(t.float() for t in output.intermediate)

    features, intermediate = manager.retry(run, doing="encoding the image")
    return features, intermediate, (resized.shape[0], resized.shape[1])


def embed(
    rgb: NDArray[np.uint8],
    *,
    model: str,
    adapter: Adapter,
    manager: ModelManager,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> Embedding:
    """Look the embedding of an image up, or compute and remember it.

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        The normalised picture: its content, so the normalisation is part of the key.
    model : str
        What encodes it.
    adapter : str, path, AdapterVersion or None
        Adapter of the model. One that leaves the encoder as it is shares the embeddings of
        the base.
    manager : ModelManager
        Lends the model.
    progress : callable, optional
        In bytes while weights are downloaded.
    should_stop : callable, optional
        Asked before loading and before encoding.

    Raises
    ------
    CancelledError
        If the user asked to stop.
    """
    version = manager.adapter_version(model, adapter)
    key = _key(rgb, model, version, manager)
    encoder = None if key.adapter is None else version

    def compute() -> Embedding:
        _check(should_stop)
        with manager.lease(model, encoder, progress=progress, should_stop=should_stop) as lent:
            _check(should_stop)
            features, intermediate, input_size = encode(lent, rgb, manager)
        return Embedding(
            key=key,
            features=features.cpu(),
            intermediate=tuple(tensor.cpu() for tensor in intermediate),
            input_size=input_size,
            image_shape=(rgb.shape[0], rgb.shape[1]),
        )

    return get_embedding_cache().get_or_compute(key, compute, should_stop=should_stop)


def fingerprint(model: str) -> str:
    """Tell the weights of a registered model apart from others of the same name."""
    from phasesam.models.registry import get_spec

    spec = get_spec(model)
    return str(spec.sha256 or spec.url or spec.name)


def is_embedded(
    rgb: NDArray[np.uint8], model: str, adapter: Adapter, manager: ModelManager
) -> bool:
    """Tell whether `embed` would answer from memory."""
    version = manager.adapter_version(model, adapter)
    return _key(rgb, model, version, manager) in get_embedding_cache()


def _key(
    rgb: NDArray[np.uint8],
    model: str,
    version: AdapterVersion | str | None,
    manager: ModelManager,
) -> EmbeddingKey:
    # The normalised picture is hashed, so that the normalisation is part of its content.
    return EmbeddingKey(
        image_hash=content_hash(rgb),
        normalisation="rgb8",
        model=model,
        model_fingerprint=fingerprint(model),
        adapter=version.embedding_key if isinstance(version, AdapterVersion) else version,
        precision=str(manager.precision).removeprefix("torch."),
    )


def _check(should_stop: StopCallback | None) -> None:
    if should_stop is not None and should_stop():
        raise CancelledError("stopped before the image was encoded")

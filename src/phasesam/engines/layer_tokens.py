"""What each layer of the encoder makes of a picture.

Importing this module does not load torch; reading layers does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phasesam.core.coordinates import resize_image_longest_side
from phasesam.core.errors import CancelledError, InvalidImageError
from phasesam.core.images import is_constant
from phasesam.core.types import ProgressCallback, StopCallback

if TYPE_CHECKING:
    import torch

    from phasesam.engines.encoded_image import EncodedImage
    from phasesam.models.adapter_loading import Adapter

_MOST_HELD = 1 << 30
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True, eq=False)
class LayerTokens:
    """Features of one picture, layer by layer.

    Attributes
    ----------
    maps : dict of str to (h, w, c) float16 array
        By name of the layer, in the order of computing; those of tokens that see some of the
        picture, without the padding.
    sides : dict of str to float
        Side of a token in pixels of the picture.
    shape : (int, int)
        Height and width of the picture, without the data bar.
    """

    maps: dict[str, NDArray[np.float16]]
    sides: dict[str, float]
    shape: tuple[int, int]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers."""
        return tuple(self.maps)

    def seen(self, name: str) -> tuple[int, int]:
        """Rows and columns of tokens that are covered by the picture for the most part."""
        side = self.sides[name]
        rows, columns = (max(1, round(length / side)) for length in self.shape)
        height, width = self.maps[name].shape[:2]
        return min(rows, height), min(columns, width)


class TokenShelf:
    """Keeps arrays in memory, and beyond a limit in temporary files.

    Parameters
    ----------
    most : int
        Bytes in memory.
    """

    def __init__(self, most: int = _MOST_HELD) -> None:
        self._left = most
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def keep(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array with the same values that may lie on the disk."""
        if array.nbytes <= self._left:
            self._left -= array.nbytes
            return array
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="phasesam-layers-")
        self._files += 1
        path = Path(self._folder.name) / f"{self._files}.npy"
        np.save(path, array)
        return np.load(path, mmap_mode="r")

    def close(self) -> None:
        """Remove the files; arrays in them are not to be used any more."""
        if self._folder is not None:
            self._folder.cleanup()


def read_layers(
    picture: EncodedImage,
    layers: Sequence[str] | None = None,
    *,
    shelf: TokenShelf | None = None,
    progress: ProgressCallback | None = None,
    should_stop: StopCallback | None = None,
) -> LayerTokens:
    """Run the encoder once and keep what its layers make of a picture.

    Parameters
    ----------
    picture : EncodedImage
        Such as a `phasesam.Segmenter`, with its model and adapter. The whole picture is shown.
    layers : sequence of str, optional
        Names as of `phasesam.models.layer_taps.layer_names`; all when left out.
    shelf : TokenShelf, optional
        Where features are kept.
    progress : callable, optional
        ``progress(done, total)`` in layers.
    should_stop : callable, optional
        Asked after every layer.

    Returns
    -------
    LayerTokens

    Raises
    ------
    InvalidSettingError
        If the model has no such layer.
    InvalidImageError
        If all pixels are equal.
    CancelledError
        If the user asked to stop.
    """
    import torch

    from phasesam.models.layer_taps import check_layers, listening

    if is_constant(picture.rgb):
        height, width = picture.rgb.shape[:2]
        raise InvalidImageError(
            f"all pixels of the image of {height} x {width} are equal: no layer can see anything"
        )
    shelf = shelf or TokenShelf()
    manager = picture.manager
    adapter: Adapter = manager.adapter_version(picture.model, picture.adapter)
    with manager.lease(picture.model, adapter, should_stop=should_stop) as model:
        names = check_layers(model, layers)
        resized = resize_image_longest_side(picture.rgb, model.image_size)
        listener = _Listener((resized.shape[0], resized.shape[1]), model.image_size, shelf)
        listener.progress, listener.should_stop, listener.total = progress, should_stop, len(names)

        def run() -> None:
            # A second try after memory ran out begins anew.
            listener.maps.clear()
            with (
                torch.inference_mode(),
                manager.autocast(model.pixel_mean.device),
                listening(model, names, listener.hear),
            ):
                model.encode(model.preprocess(resized))

        manager.retry(run, doing="encoding the image")
    height, width = picture.rgb.shape[:2]
    scale = max(height, width) / max(resized.shape[:2])
    sides = {name: steps * scale for name, steps in listener.steps.items()}
    return LayerTokens(listener.maps, sides, (height, width))


class _Listener:
    """Copies what it hears, in half the bytes and without the padding."""

    progress: ProgressCallback | None
    should_stop: StopCallback | None
    total: int

    def __init__(self, shown: tuple[int, int], side: int, shelf: TokenShelf) -> None:
        self._shown, self._side, self._shelf = shown, side, shelf
        self.maps: dict[str, NDArray[np.float16]] = {}
        self.steps: dict[str, float] = {}

    def hear(self, name: str, tokens: torch.Tensor) -> None:
        if self.should_stop is not None and self.should_stop():
            raise CancelledError("stopped while the image was encoded")
        step = self._side / tokens.shape[1]
        rows, columns = (int(-(-length // step)) for length in self._shown)
        part = tokens[0, :rows, :columns]
        # Single tokens can be larger than half precision holds.
        part = part.clamp(-_LARGEST, _LARGEST).half().cpu()
        self.maps[name] = self._shelf.keep(np.ascontiguousarray(part.numpy()))
        self.steps[name] = step
        if self.progress is not None:
            self.progress(len(self.maps), self.total)

"""Segmenters that read their plane and load torch only when a worker first uses them."""

from __future__ import annotations

from collections.abc import Hashable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from phasesam.core.errors import PhaseSAMError
from phasesam.core.images import Normalisation
from phasesam.core.types import PixelSize
from phasesam.models.adapter_store import get_adapter
from phasesam.models.manager import get_manager
from phasesam.napari_widgets.planes import ShownPlane, read_plane

if TYPE_CHECKING:
    from phasesam.core.mask_set import MaskCrop, MaskSet
    from phasesam.core.types import StopCallback
    from phasesam.engines.automatic import AutomaticConfig, Candidates
    from phasesam.engines.segmenter import Segmenter
    from phasesam.models.adapter_loading import AdapterVersion
    from phasesam.training.annotation_history import Example

# What napari imports with the first Labels layer of a process.
_FIRST_LAYER = ("pandas", "skimage.color")


def adapter_stamp(model: str, adapter: str | None) -> Hashable:
    """Tell versions of an adapter on a model apart by file and strength, without reading it.

    Cheap, for any thread. None for the model alone, also where the adapter has classes and leaves
    prompts to it. Where there is no such adapter (any more), who then computes with it hears why.
    """
    if adapter is None:
        return None
    try:
        entry = get_adapter(adapter)
        if entry.card is not None and not entry.card.answers_prompts:
            return None
        return adapter, entry.stamp, get_manager().adapter_strength(model, adapter)
    except PhaseSAMError:
        return adapter, None


class LazySegmenter:
    """A `phasesam.Segmenter` to be.

    Making one costs nothing, so that the GUI thread may do it. `get` and the methods
    that compute read the plane (which may be lazy), import torch and load the model:
    call them in a worker.

    Parameters
    ----------
    data : array-like, (..., h, w) or (..., h, w, 3 or 4)
        The layer's data at full resolution, possibly dask or zarr.
    plane : ShownPlane
        Which plane of ``data``.
    model : str
        Registry name of the model.
    normalisation, exclude_data_bar, pixel_size, adapter
        Passed to `phasesam.Segmenter`.
    """

    def __init__(
        self,
        data: Any,
        plane: ShownPlane,
        *,
        model: str,
        normalisation: Normalisation,
        exclude_data_bar: bool,
        pixel_size: PixelSize,
        adapter: str | None = None,
    ) -> None:
        self._data = data
        self.plane = plane
        self.model = model
        self._options: dict[str, Any] = {
            "normalisation": normalisation,
            "exclude_data_bar": exclude_data_bar,
            "pixel_size": pixel_size,
            "adapter": adapter,
        }
        self._segmenter: Segmenter | None = None
        self._encoded = False

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the plane in pixels."""
        return self.plane.shape

    @property
    def is_encoded(self) -> bool:
        """Whether the plane was read and the model made ready for prompts.

        Cheap, for any thread: the embedding is not looked up, so it may have left the
        cache since; a prompt then brings it back and takes longer. So does the first one in
        each window where the adapter was trained on windows.
        """
        return self._encoded

    @property
    def data_bar(self) -> int | None:
        """First row of the data bar, None if there is none or it was not looked for yet."""
        if self._segmenter is None or not self._encoded:
            return None
        return self._segmenter.data_bar

    def get(self) -> Segmenter:
        """Make the segmenter on first use. For workers only."""
        if self._segmenter is None:
            from phasesam.engines.segmenter import Segmenter

            # The layer that shows the result would hold up the window for seconds with these.
            for module in _FIRST_LAYER:
                import_module(module)
            # Two workers that come here together both make one; the last stays, and both
            # share the process-wide embedding.
            self._segmenter = Segmenter(
                read_plane(self._data, self.plane), self.model, **self._options
            )
        return self._segmenter

    def encode(self, progress: Any = None, should_stop: Any = None) -> None:
        """Read, normalise and encode the plane, as far as prompts need it. For workers only."""
        self.get().prepare(progress=progress, should_stop=should_stop)
        self._encoded = True

    def example(
        self, mask: MaskCrop, source: Hashable, should_stop: StopCallback | None = None
    ) -> Example:
        """Make an example of an object to learn from. For workers only."""
        from phasesam.training.annotation_history import Example

        embedding, view = self.get().look_at(mask.box, should_stop=should_stop)
        return Example.of(embedding, mask, source, view[:2])

    def predict(self, *, version: AdapterVersion | None = None, **prompts: Any) -> MaskSet:
        """See `phasesam.Segmenter.predict`. For workers only.

        Parameters
        ----------
        version : AdapterVersion, optional
            Answers instead of the adapter that was chosen; its embeddings must be the same.
        **prompts
            Passed on.
        """
        segmenter = self.get()
        if version is not None:
            segmenter = segmenter.with_adapter(version)
        return segmenter.predict(**prompts)

    def automatic(self, config: AutomaticConfig | None = None, **options: Any) -> Candidates:
        """See `phasesam.Segmenter.automatic`. For workers only."""
        candidates = self.get().automatic(config, **options)
        self._encoded = True
        return candidates

"""The plane of an image that the sliders of the *Phase ratio* dock are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ref

from phasesam.napari_widgets.planes import full_resolution

if TYPE_CHECKING:
    from napari.layers import Image

    from phasesam.models.adapter_card import AdapterCard
    from phasesam.napari_widgets.ratio_run import RatioGuides
    from phasesam.session.ratio_sheet import RatioSheet


@dataclass(eq=False)
class MappedPlane:
    """A mapped plane.

    Attributes
    ----------
    image, plane
        Which.
    data : array
        What the layer held: it may be given other data.
    adapter, card
        What mapped it.
    guides : RatioGuides
        Its maps, ready for requests.
    sheet : RatioSheet
        What is asked of it.
    told : str
        The shares that the network was told.
    """

    image: ref[Image]
    plane: tuple[int, ...]
    data: Any
    adapter: str
    card: AdapterCard
    guides: RatioGuides
    sheet: RatioSheet
    told: str = ""

    def is_of(self, image: Image, adapter: str, card: AdapterCard) -> bool:
        """Whether it is still that of an image, by an adapter that still has these phases."""
        same = self.image() is image and self.adapter == adapter
        return same and self.card.classes == card.classes and self.data is full_resolution(image)

    @property
    def title(self) -> str:
        """The adapter, and what it was told."""
        return f"{self.adapter}, told {self.told}" if self.told else self.adapter

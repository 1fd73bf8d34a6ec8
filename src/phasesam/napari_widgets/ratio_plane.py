"""The plane of an image that the sliders of the *Phase ratio* dock are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import ref

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
    adapter: str
    card: AdapterCard
    guides: RatioGuides
    sheet: RatioSheet
    told: str = ""

    @property
    def title(self) -> str:
        """The adapter, and what it was told."""
        return f"{self.adapter}, told {self.told}" if self.told else self.adapter

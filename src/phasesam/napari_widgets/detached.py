"""Sessions whose image is gone, or has other data now: kept until the image comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from napari.layers import Image

    from phasesam.napari_widgets.committed_labels import CommittedLabels
    from phasesam.session import SegmentationSession


@dataclass(frozen=True)
class Detached:
    """One session without an image.

    Attributes
    ----------
    session : SegmentationSession
        The session; its ``image_key`` tells which image it belongs to.
    committed : CommittedLabels or None
        Its Labels layer, which still follows it.
    image : weak reference to Image
        The layer that was removed: napari may add the same one again.
    """

    session: SegmentationSession
    committed: CommittedLabels | None
    image: ref[Image]


class DetachedSessions:
    """The sessions of one viewer that have no image."""

    def __init__(self) -> None:
        self._entries: list[Detached] = []

    @property
    def sessions(self) -> list[SegmentationSession]:
        """The sessions, to be saved with the others."""
        return [entry.session for entry in self._entries]

    def add(
        self, image: Image, session: SegmentationSession, committed: CommittedLabels | None
    ) -> None:
        """Keep a session."""
        self._entries.append(Detached(session, committed, ref(image)))

    def take_layer(self, image: Image, shape: tuple[int, ...]) -> Detached | None:
        """Hand over the latest session of this very layer that fits ``shape``."""
        return self._take([e for e in self._entries if e.image() is image], shape)

    def take_key(self, key: str, shape: tuple[int, ...]) -> Detached | None:
        """Hand over the latest session with objects of an image with this content."""
        found = [e for e in self._entries if e.session.objects and e.session.image_key == key]
        return self._take(found if key else [], shape)

    def _take(self, entries: list[Detached], shape: tuple[int, ...]) -> Detached | None:
        for entry in reversed(entries):
            if entry.session.shape == shape:
                self._entries.remove(entry)
                return entry
        return None

"""What all docks of one viewer share: image, model, sessions, segmenters. No widgets in here."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from napari.layers import Image, Labels, Layer
from psygnal import Signal, SignalGroup

from phasesam.core.images import Normalisation
from phasesam.models.registry import DEFAULT_MODEL
from phasesam.napari_widgets.committed_labels import SESSION, CommittedLabels, session_behind
from phasesam.napari_widgets.detached import DetachedSessions
from phasesam.napari_widgets.layers import OWN, is_own, pixel_size
from phasesam.napari_widgets.planes import ShownPlane, full_resolution, shown_plane, spatial_shape
from phasesam.napari_widgets.segmenters import LazySegmenter, adapter_stamp
from phasesam.session import SegmentationSession

if TYPE_CHECKING:
    from napari.components import ViewerModel

_KEPT_SEGMENTERS = 16


class ViewerEvents(SignalGroup):
    """What other docks may want to know."""

    image_changed = Signal(object)
    model_changed = Signal(str)
    settings_changed = Signal(object)
    object_selected = Signal(int)
    session_opened = Signal(object)
    data_replaced = Signal(object, bool)
    said = Signal(str)


@dataclass(frozen=True)
class ImageSettings:
    """How an image is shown to the model.

    Attributes
    ----------
    normalisation : Normalisation
        From intensities to 8 bits.
    exclude_data_bar : bool
        Whether the text bar at the bottom of an SEM image is left out.
    """

    normalisation: Normalisation = field(default_factory=Normalisation)
    exclude_data_bar: bool = True


class ViewerState:
    """Everything PhaseSAM knows about one viewer; get it with `state_of`.

    Attributes
    ----------
    events : ViewerEvents
        ``image_changed(layer or None)``, ``model_changed(name)``,
        ``settings_changed(layer)``, ``object_selected(id)`` (0 for none),
        ``session_opened(layer)``, ``data_replaced(layer, resized)`` when an image got other
        data, ``said(sentence)`` for all docks to show.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self.events = ViewerEvents()
        self._viewer = ref(viewer)
        self._image: ref[Image] | None = None
        self._model = DEFAULT_MODEL
        self._adapter: str | None = None
        self._selected = 0
        self._sessions: WeakKeyDictionary[Layer, SegmentationSession] = WeakKeyDictionary()
        self._committed: WeakKeyDictionary[Layer, CommittedLabels] = WeakKeyDictionary()
        self._detached = DetachedSessions()
        self._settings: WeakKeyDictionary[Layer, ImageSettings] = WeakKeyDictionary()
        self._segmenters: WeakKeyDictionary[Layer, OrderedDict[Any, LazySegmenter]] = (
            WeakKeyDictionary()
        )
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.layers.selection.events.active.connect(self._on_active)
        images = self.images()
        for image in images:
            image.events.data.connect(self._on_data)
        active = viewer.layers.selection.active
        if images:
            self._set_image(active if active in images else images[-1])

    @property
    def viewer(self) -> ViewerModel:
        """The viewer.

        Raises
        ------
        ReferenceError
            If it has been closed.
        """
        viewer = self._viewer()
        if viewer is None:
            raise ReferenceError("the viewer has been closed")
        return viewer

    @property
    def has_viewer(self) -> bool:
        """Whether the viewer is still there."""
        return self._viewer() is not None

    # ------------------------------------------------------------------ image and model

    def images(self) -> list[Image]:
        """Image layers that can be segmented, in the order of the layer list."""
        return [
            layer for layer in self.viewer.layers if isinstance(layer, Image) and not is_own(layer)
        ]

    @property
    def image_layer(self) -> Image | None:
        """The image being worked on; None if there is none."""
        return self._image() if self._image is not None else None

    @image_layer.setter
    def image_layer(self, layer: Image | None) -> None:
        if layer is self.image_layer:
            return
        self._set_image(layer)
        # Otherwise restoring the active layer, after adding one, would go back to the other image.
        selection = self.viewer.layers.selection
        if layer in self.images() and selection.active in self.images():
            selection.active = layer

    @property
    def model_name(self) -> str:
        """Registry name of the model in use."""
        return self._model

    @model_name.setter
    def model_name(self, name: str) -> None:
        self.choose_model(name)

    @property
    def adapter(self) -> str | None:
        """Adapter on the model in use, by name or path; None for the model alone."""
        return self._adapter

    def choose_model(self, name: str, adapter: str | None = None) -> None:
        """Segment with a model, with an adapter on it or alone."""
        if (name, adapter) != (self._model, self._adapter):
            self._model, self._adapter = name, adapter
            self.events.model_changed.emit(name)

    @property
    def selected_object(self) -> int:
        """Id of the object selected in any dock, 0 for none."""
        return self._selected

    def select_object(self, object_id: int) -> None:
        """Select an object of the present image in all docks; 0 selects none."""
        self._selected = int(object_id)
        self.events.object_selected.emit(self._selected)

    def settings(self, layer: Image) -> ImageSettings:
        """How ``layer`` is shown to the model."""
        return self._settings.get(layer, ImageSettings())

    def set_settings(self, layer: Image, settings: ImageSettings) -> None:
        """Change how ``layer`` is shown to the model; its segmenters are made anew."""
        if settings != self.settings(layer):
            self._settings[layer] = settings
            self.events.settings_changed.emit(layer)

    # ------------------------------------------------------------------ per image

    def plane(self, layer: Image) -> ShownPlane:
        """Find the plane of ``layer`` that is shown; raises `UnsupportedViewError` if none is."""
        return shown_plane(self.viewer, layer)

    def session(self, layer: Image) -> SegmentationSession:
        """Get the session of an image, made on first use with the layer's pixel size."""
        session = self._sessions.get(layer)
        if session is None:
            session = SegmentationSession(
                spatial_shape(layer), pixel_size=pixel_size(layer), name=layer.name
            )
            self._sessions[layer] = session
            self.events.session_opened.emit(layer)
        return session

    def has_session(self, layer: Image) -> bool:
        """Whether an image has a session already."""
        return layer in self._sessions

    def sessions(self) -> list[SegmentationSession]:
        """List the sessions of all images of the viewer, and of images that were removed."""
        return [*self._sessions.values(), *self._detached.sessions]

    def set_session(self, layer: Image, session: SegmentationSession) -> None:
        """Put a loaded or recovered session in place of the present one of ``layer``."""
        committed = self._committed.pop(layer, None)
        self._sessions[layer] = session
        self.events.session_opened.emit(layer)
        if committed is not None:
            self._drop(committed)
        self.labels_layer(layer)
        self.events.image_changed.emit(self.image_layer)

    def reattach_sessions(self) -> list[Image]:
        """Give images that came back, known by their content, the sessions they had.

        An image with objects of its own keeps those. Returns the images that got theirs back.
        """
        found = []
        for layer in self.images():
            session = self._sessions.get(layer)
            if session is None or session.objects or session.can_undo:
                continue
            entry = self._detached.take_key(session.image_key, session.shape)
            if entry is None:
                continue
            if entry.committed is not None:
                self._drop(entry.committed)
            entry.session.pixel_size = session.pixel_size
            self.set_session(layer, entry.session)
            found.append(layer)
            self.events.said.emit(f"Back with this image: {_objects(entry.session)}.")
        return found

    def _detach(self, layer: Image) -> SegmentationSession | None:
        """Part an image from its session; it is kept, and returned, if it has objects."""
        session = self._sessions.pop(layer, None)
        committed = self._committed.pop(layer, None)
        if session is None:
            return None
        session.put_all_back()
        if session.objects or committed is not None:
            self._detached.add(layer, session, committed)
        return session if session.objects else None

    def _drop(self, committed: CommittedLabels) -> None:
        committed.detach()
        if committed.layer in self.viewer.layers:
            self.viewer.layers.remove(committed.layer)

    def labels_layer(self, layer: Image) -> Labels:
        """Get the one Labels layer with the committed objects of an image, made on first use.

        It follows the session, and what the user paints on it goes into the session as
        one undo step. If the user removed it, it comes back with all objects.
        """
        committed = self._committed.get(layer)
        if committed is None or committed.layer not in self.viewer.layers:
            if committed is not None:
                committed.detach()
            committed = CommittedLabels(self.viewer, layer, self.session(layer))
            self._committed[layer] = committed
        return committed.layer

    def existing_labels_layer(self, layer: Image) -> Labels | None:
        """Like `labels_layer`, but None where nothing was committed yet."""
        committed = self._committed.get(layer)
        if committed is None or committed.layer not in self.viewer.layers:
            return None
        return committed.layer

    def is_orphan(self, layer: Labels) -> bool:
        """Whether a Labels layer shows objects of an image that is no longer there."""
        if SESSION not in layer.metadata.get(OWN, {}):
            return False
        session = session_behind(layer.metadata)
        return all(attached is not session for attached in self._sessions.values())

    def adopt_labels(self, layer: Image, labels: Labels) -> Labels:
        """Go on with the objects of another Labels layer of the same shape.

        The objects are taken into the session (which can be undone); ``labels`` itself
        is left alone.

        Raises
        ------
        InvalidMaskError
            If the shapes differ.
        """
        own = self.labels_layer(layer)
        self._committed[layer].adopt(full_resolution(labels), labels.name)
        return own

    def segmenter(self, layer: Image) -> LazySegmenter:
        """Get the segmenter of the plane of ``layer`` that is shown.

        It is cheap to get and loads nothing. Its methods do the work and must be called
        in a worker; it is kept per plane, settings, model and adapter.

        Raises
        ------
        UnsupportedViewError
            If the viewer does not show a plane of the layer.
        """
        plane = self.plane(layer)
        settings = self.settings(layer)
        # A layer's data may be replaced. The kept segmenter holds them, so the id stays theirs.
        data = full_resolution(layer)
        adapter = adapter_stamp(self._model, self._adapter)
        key = (id(data), plane.index, settings, self._model, adapter)
        kept = self._segmenters.setdefault(layer, OrderedDict())
        if key not in kept:
            kept[key] = LazySegmenter(
                data,
                plane,
                model=self._model,
                normalisation=settings.normalisation,
                exclude_data_bar=settings.exclude_data_bar,
                pixel_size=pixel_size(layer),
                adapter=None if adapter is None else self._adapter,
            )
        kept.move_to_end(key)
        while len(kept) > _KEPT_SEGMENTERS:
            kept.popitem(last=False)
        return kept[key]

    # ------------------------------------------------------------------ the viewer's events

    def _set_image(self, layer: Image | None) -> None:
        self._image = None if layer is None else ref(layer)
        self._selected = 0
        self.events.image_changed.emit(layer)

    def _on_inserted(self, event: Any) -> None:
        layer = event.value
        if not isinstance(layer, Image) or is_own(layer):
            return
        layer.events.data.connect(self._on_data)
        entry = self._detached.take_layer(layer, spatial_shape(layer))
        if entry is not None:
            self._sessions[layer] = entry.session
            if entry.committed is not None:
                self._committed[layer] = entry.committed
        if self.image_layer is None:
            self._set_image(layer)

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        self._segmenters.pop(layer, None)
        if isinstance(layer, Image):
            self._detach(layer)
        if layer is self.image_layer:
            images = self.images()
            self._set_image(images[-1] if images else None)

    def _on_data(self, event: Any) -> None:
        """Part an image from its objects when they no longer fit it."""
        layer = event.source
        if layer not in self.viewer.layers:
            return
        self._segmenters.pop(layer, None)
        session = self._sessions.get(layer)
        resized = session is not None and session.shape != spatial_shape(layer)
        kept = self._detach(layer) if resized else None
        self.events.data_replaced.emit(layer, resized)
        if resized and layer is self.image_layer:
            self.events.image_changed.emit(layer)
        if kept is not None:
            self.events.said.emit(
                f"{layer.name!r} has another size now. Left in the old Labels layer: "
                f"{_objects(kept)}. New ones go to a new layer."
            )

    def _on_active(self, event: Any) -> None:
        layer = event.value
        if isinstance(layer, Image) and not is_own(layer):
            self.image_layer = layer


def _objects(session: SegmentationSession) -> str:
    count = len(session.objects)
    return "1 object" if count == 1 else f"{count} objects"


_states: WeakKeyDictionary[Any, ViewerState] = WeakKeyDictionary()


def announce_adapter(model: str, adapter: str) -> None:
    """Tell all viewers that use an adapter that it acts otherwise now: strength, or content."""
    for state in list(_states.values()):
        if (state.model_name, state.adapter) == (model, adapter):
            state.events.model_changed.emit(model)


def state_of(viewer: ViewerModel) -> ViewerState:
    """Get the state that all docks of ``viewer`` share.

    Plugins get the viewer in a proxy; the state belongs to the viewer behind it.
    """
    inner = getattr(viewer, "__wrapped__", viewer)
    if inner not in _states:
        _states[inner] = ViewerState(inner)
    return _states[inner]

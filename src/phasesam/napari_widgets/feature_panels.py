"""Parts of the *Encoder features* dock: what is compared, and what a clicked token is good for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from phasesam.core.errors import UnsupportedViewError
from phasesam.napari_widgets.class_colours import layer_class_names
from phasesam.napari_widgets.header import narrow_combo
from phasesam.napari_widgets.model_status import offered_adapters
from phasesam.napari_widgets.planes import full_resolution, spatial_shape
from phasesam.napari_widgets.toggle_row import ToggleRow

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image
    from qtpy.QtWidgets import QComboBox

    from phasesam.engines.features import LayerView

_ALONE, _NOTHING = "model alone", "nothing"
_PERCENT = 100
_LEAST = 60


class ModelChoice(QWidget):
    """Model A, model B, and a Labels layer for figures."""

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = ref(viewer)
        self.first = narrow_combo("Model A: usually the model alone")
        self.second = narrow_combo("Model B: the same model with another adapter, beside A")
        self.labels = narrow_combo(
            "Labels of phases: the layers are also measured by how well these can be told apart.\n"
            "0 counts as not labelled."
        )
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setColumnStretch(1, 1)
        rows = (("Model A", self.first), ("Model B", self.second), ("Labels", self.labels))
        for number, (text, combo) in enumerate(rows):
            grid.addWidget(QLabel(text), number, 0)
            grid.addWidget(combo, number, 1)

    @property
    def adapters(self) -> tuple[str | None, ...]:
        """Adapter of A and, if there is a B, of B; None for the model alone."""
        second = self.second.currentData()
        first: tuple[str | None, ...] = (self.first.currentData() or None,)
        return first if second is None else (*first, second or None)

    @property
    def titles(self) -> tuple[str, ...]:
        """What the models are called."""
        return (self.first.currentText(), self.second.currentText())[: len(self.adapters)]

    @property
    def labels_layer(self) -> Labels | None:
        """The Labels layer chosen."""
        kept, viewer = self.labels.currentData(), self._viewer()
        layer = None if kept is None else kept()
        return layer if viewer is not None and layer in viewer.layers else None

    def labels_on(
        self, image: Image, planes: Sequence[tuple[int, ...]]
    ) -> tuple[tuple[NDArray[Any], ...], dict[int, str]]:
        """Read the labels of planes of an image, and names of their values; nothing without any.

        Raises
        ------
        UnsupportedViewError
            If they are of another shape or lie elsewhere.
        """
        layer = self.labels_layer
        if layer is None:
            return (), {}
        shape, wanted = spatial_shape(layer), spatial_shape(image)
        if shape != wanted:
            raise UnsupportedViewError(
                f"Labels {layer.name!r} have the shape {shape}, the image {wanted}; choose labels "
                "of this image, or none."
            )
        for corner in ((0,) * len(shape), tuple(n - 1 for n in shape)):
            if not np.allclose(layer.data_to_world(corner), image.data_to_world(corner)):
                raise UnsupportedViewError(
                    f"Labels {layer.name!r} lie beside the image; choose labels of it, or none."
                )
        data = full_resolution(layer)
        return tuple(np.asarray(data[plane]) for plane in planes), layer_class_names(layer)

    def refresh(self, model: str, adapter: str | None) -> None:
        """List the adapters of a model; of one in use, show it as B beside the model alone."""
        entries = offered_adapters().get(model, [])
        options = [(_ALONE, "")] + [(entry.title, entry.name) for entry in entries]
        _fill(self.first, options)
        _fill(self.second, [(_NOTHING, None), *options])
        if adapter is not None and self.second.currentData() is None:
            self.second.setCurrentIndex(max(self.second.findData(adapter), 0))

    def list_labels(self) -> None:
        """List the Labels layers, without those of prompts."""
        viewer = self._viewer()
        if viewer is None:
            return
        layers = [layer for layer in viewer.layers if isinstance(layer, Labels) and layer.editable]
        before = self.labels_layer
        blocker = QSignalBlocker(self.labels)
        self.labels.clear()
        self.labels.addItem("none", None)
        for layer in layers:
            self.labels.addItem(layer.name, ref(layer))
        if before in layers:
            self.labels.setCurrentIndex(1 + layers.index(before))
        blocker.unblock()


def _fill(combo: QComboBox, options: list[tuple[str, Any]]) -> None:
    """Offer options; what was chosen stays so."""
    before = combo.currentData()
    blocker = QSignalBlocker(combo)
    combo.clear()
    for text, value in options:
        combo.addItem(text, value)
    values = [value for _, value in options]
    combo.setCurrentIndex(values.index(before) if before in values else 0)
    blocker.unblock()


class TokenPanel(QWidget):
    """Whether similarity follows the mouse, and what is made of a clicked token."""

    followed = Signal(bool)
    """Whether the mouse is followed."""
    model_chosen = Signal(int)
    """Whose features are compared."""
    class_chosen = Signal(object)
    """Index of the class whose mean is compared with; None for what is under the mouse."""
    object_wanted = Signal()
    prompts_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.follow = QCheckBox("Similarity under the mouse")
        self.follow.setToolTip(
            "Show how similar all tokens of the present layer are to the one under the mouse\n"
            "(cosine, without what all have in common). A click holds it, another moves it, one\n"
            "beside the image lets go."
        )
        self.towards = narrow_combo(
            "What tokens are compared with: the one under the mouse, or the mean of a phase"
        )
        self.whose = ToggleRow(
            (("0", "A", "As model A sees it"), ("1", "B", "As B sees it")), columns=2
        )
        self.whose.set_current("0")
        self.least = QSlider(Qt.Orientation.Horizontal)
        self.least.setRange(0, _PERCENT)
        self.least.setValue(_LEAST)
        self.least.setToolTip("Similarity from which on a pixel belongs to the region")
        self.least_text = QLabel()
        self.connected = QCheckBox("Around the click only")
        self.connected.setChecked(True)
        self.connected.setToolTip("Only the part of the similar region that was clicked")
        self.object_button = QPushButton("Add as object")
        self.object_button.setToolTip("Add the similar region to the objects of the image")
        self.prompt_button = QPushButton("Use as prompts")
        self.prompt_button.setToolTip("Click into the region for the model, in the Prompt dock")
        self._lay_out()
        self.follow.toggled.connect(self.followed)
        self.whose.chosen.connect(lambda key: self.model_chosen.emit(int(key)))
        self.least.valueChanged.connect(self._show_least)
        self.object_button.clicked.connect(lambda *_: self.object_wanted.emit())
        self.prompt_button.clicked.connect(lambda *_: self.prompts_wanted.emit())
        self.towards.activated.connect(
            lambda _index: self.class_chosen.emit(self.towards.currentData())
        )
        self._show_least()
        self.set_ready(0)
        self.set_picked(False)

    def _lay_out(self) -> None:
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        first, zeroth, second, third = (QHBoxLayout() for _ in range(4))
        first.addWidget(self.follow, 1)
        first.addWidget(self.whose)
        self.towards_title = QLabel("Similar to")
        zeroth.addWidget(self.towards_title)
        zeroth.addWidget(self.towards, 1)
        second.addWidget(QLabel("At least"))
        second.addWidget(self.least, 1)
        second.addWidget(self.least_text)
        second.addWidget(self.connected)
        third.addWidget(self.object_button)
        third.addWidget(self.prompt_button)
        for row in (first, zeroth, second, third):
            column.addLayout(row)

    def _show_least(self) -> None:
        self.least_text.setText(f"{self.threshold:.2f}")

    @property
    def threshold(self) -> float:
        """Similarity that is asked for, 0–1."""
        return self.least.value() / _PERCENT

    def set_ready(self, n_models: int, classes: Sequence[str] = ()) -> None:
        """Say of how many models there are features, and which classes there are."""
        self.towards.clear()
        self.towards.addItem("the token under the mouse", None)
        for index, name in enumerate(classes):
            self.towards.addItem(name, index)
        self.towards.setVisible(bool(classes))
        self.towards_title.setVisible(bool(classes))
        self.follow.setEnabled(n_models > 0)
        if not n_models:
            self.follow.setChecked(False)
        self.whose.setVisible(n_models > 1)
        if n_models < 2:
            self.whose.set_current("0")

    def set_picked(self, holds: bool, *, is_class: bool = False) -> None:
        """Say whether a token, or the mean of a class, is compared with."""
        for widget in (self.least, self.object_button, self.prompt_button):
            widget.setEnabled(holds)
        self.connected.setEnabled(holds and not is_class)


class BeginPanel(QWidget):
    """Where adapting should begin, as the probe of model A says."""

    chosen = Signal(str)
    """The user wants to adapt from there; the setting ``blocks`` of adapters."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._blocks: str | None = None
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.button = QPushButton("Set in Fine-tune")
        self.button.setToolTip("Make the Fine-tune dock adapt the encoder from this layer on")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.text, 1)
        row.addWidget(self.button)
        self.button.clicked.connect(lambda *_: self.chosen.emit(self._blocks))
        self.set_layers(())

    def set_layers(self, layers: Sequence[LayerView]) -> None:
        """Look at the probes of layers; nothing is said without any."""
        from phasesam.evaluation.feature_tables import loses, suggested_start
        from phasesam.models.adapter_config import blocks_from

        start = suggested_start(layers)
        is_known = start is not None or loses(layers)
        self.setVisible(is_known)
        if not is_known:
            return
        self._blocks = "all" if start is None else blocks_from(start)
        if start is None:
            text = "A loses something towards its end: all of the encoder is worth adapting."
        elif self._blocks is None:
            text = "A tells the phases best at its very end: adapting the decoder may do."
        else:
            text = f"A tells the phases nearly as well as ever from {start} on: adapt there."
        self.text.setText(text)
        self.button.setVisible(self._blocks is not None)

"""Where models compute, how much memory they may fill, and how much they do."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QDoubleSpinBox, QGridLayout, QLabel, QWidget

from phasesam.core.errors import PhaseSAMError
from phasesam.models.manager import get_manager
from phasesam.models.memory import format_bytes
from phasesam.napari_widgets.header import narrow_combo

_GB = 1e9
_DEVICES = (
    ("auto", "Automatic", "The fastest device of this computer"),
    ("cpu", "CPU", "Works everywhere"),
    ("cuda", "CUDA", "NVIDIA or AMD graphics card"),
    ("mps", "MPS", "Graphics of Apple silicon"),
)


class DevicePanel(QWidget):
    """Device, memory budget and present use.

    Attributes
    ----------
    device : QComboBox
        Its data is what `phasesam.models.manager.ModelManager.set_device` takes.
    budget : QDoubleSpinBox
        In GB; 0 is automatic.
    figures : QLabel
        What is in memory now.
    """

    device_chosen = Signal(str)
    budget_chosen = Signal(object)
    """Bytes, or None for the usual share of the memory."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.device = narrow_combo("Where models compute from now on")
        for name, title, tip in _DEVICES:
            self.device.addItem(title, name)
            self.device.setItemData(self.device.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
        self.device.activated.connect(
            lambda index: self.device_chosen.emit(self.device.itemData(index))
        )
        self.budget = QDoubleSpinBox()
        self.budget.setRange(0, 1000)
        self.budget.setDecimals(1)
        self.budget.setSingleStep(0.5)
        self.budget.setSuffix(" GB")
        self.budget.setSpecialValueText("automatic")
        self.budget.setKeyboardTracking(False)
        self.budget.setToolTip(
            "Memory that weights may fill. When a model does not fit, the one that was not\n"
            "used for longest leaves."
        )
        self.budget.valueChanged.connect(
            lambda gigabytes: self.budget_chosen.emit(round(gigabytes * _GB) or None)
        )
        self.figures = QLabel()
        self.figures.setWordWrap(True)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setColumnStretch(1, 1)
        for row, (text, widget) in enumerate(
            (("Device", self.device), ("Memory budget", self.budget), ("Now", self.figures))
        ):
            grid.addWidget(QLabel(text), row, 0)
            grid.addWidget(widget, row, 1)

    def show_chosen(self) -> None:
        """Show device and budget as they were chosen last, here or elsewhere."""
        chosen = get_manager().chosen
        blockers = QSignalBlocker(self.device), QSignalBlocker(self.budget)
        # One card among several counts as what it is.
        self.device.setCurrentIndex(self.device.findData(chosen.device.partition(":")[0]))
        self.budget.setValue((chosen.budget or 0) / _GB)
        for blocker in blockers:
            blocker.unblock()

    def refresh(self) -> None:
        """Show the figures of now."""
        try:
            status = get_manager().status()
            # Not while the user is choosing.
            if not self.device.hasFocus() and not self.budget.hasFocus():
                self.show_chosen()
        except PhaseSAMError as error:
            self.figures.setText(str(error))
            return
        models = "1 model" if status.n_models == 1 else f"{status.n_models} models"
        text = f"{models}, {format_bytes(status.bytes)}"
        if status.budget_bytes:
            text += f" of {format_bytes(status.budget_bytes)} allowed"
        if status.device_total:
            text += (
                f"\n{status.device}: {format_bytes(status.device_used or 0)} of "
                f"{format_bytes(status.device_total)} in use by all programs"
            )
        self.figures.setText(text)

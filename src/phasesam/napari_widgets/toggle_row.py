"""A row of buttons of which one is pressed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QGridLayout, QPushButton, QSizePolicy, QWidget


class ToggleRow(QWidget):
    """Buttons side by side, at most one pressed.

    Parameters
    ----------
    choices : sequence of (str, str, str)
        Key, text and tooltip of each button.
    columns : int
        Buttons per line.
    may_be_none : bool
        Whether no button needs to be pressed.
    """

    chosen = Signal(str)
    """The user pressed the button of this key."""

    def __init__(
        self,
        choices: Sequence[tuple[str, str, str]],
        *,
        columns: int,
        may_be_none: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._group = QButtonGroup(self)
        self._group.setExclusive(not may_be_none)
        self._may_be_none = may_be_none
        self.buttons: dict[str, QPushButton] = {}
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        for number, (key, text, tip) in enumerate(choices):
            button = QPushButton(text)
            button.setToolTip(tip)
            button.setCheckable(True)
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            button.clicked.connect(self._presser(key))
            self._group.addButton(button)
            self.buttons[key] = button
            layout.addWidget(button, number // columns, number % columns)

    def _presser(self, key: str) -> Callable[[], None]:
        def pressed() -> None:
            self.set_current(key)
            self.chosen.emit(key)

        return pressed

    @property
    def current(self) -> str:
        """Key of the pressed button, empty for none."""
        for key, button in self.buttons.items():
            if button.isChecked():
                return key
        return ""

    def set_current(self, key: str) -> None:
        """Press a button (none for an unknown key) without emitting `chosen`."""
        self._group.setExclusive(False)
        for name, button in self.buttons.items():
            button.setChecked(name == key)
        self._group.setExclusive(not self._may_be_none)

"""The frame of every dock: header, scrolling body, folded rare settings, footer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QDockWidget,
    QFormLayout,
    QFrame,
    QMainWindow,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from phasesam.core.errors import UnsupportedViewError
from phasesam.napari_widgets.autosaving import RecoveryNotice
from phasesam.napari_widgets.footer import Footer
from phasesam.napari_widgets.header import Header, Status
from phasesam.napari_widgets.subscriptions import Subscriptions
from phasesam.napari_widgets.viewer_state import state_of
from phasesam.napari_widgets.workers import Failure, Job, Task, run_in_background

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

_LEAST_HEIGHT = 80


def folded(title: str) -> QCollapsible:
    """Make a folded part of a dock, without the margins that superqt gives it."""
    part = QCollapsible(title, expandedIcon="▾", collapsedIcon="▸")
    for layout in (part.layout(), part.content().layout()):
        if layout is not None:
            layout.setContentsMargins(0, 0, 0, 0)
    return part


class _Body(QScrollArea):
    """Scrolls up and down only, so it is never narrower than what it holds."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(content)

    def minimumSizeHint(self) -> QSize:
        """Leave room for the content and the scroll bar."""
        content, bar = self.widget(), self.verticalScrollBar()
        width = 0 if content is None else content.minimumSizeHint().width()
        return QSize(width + (0 if bar is None else bar.sizeHint().width()), _LEAST_HEIGHT)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the content when it becomes wider."""
        if event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return bool(super().eventFilter(watched, event))


class Dock(QWidget):
    """Base of all docks.

    A subclass fills `body` (and `advanced`), and runs its work with `start`.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer that the dock sits in; napari fills this in.

    Attributes
    ----------
    viewer : napari.components.ViewerModel
        The viewer itself, without napari's proxy.
    state : ViewerState
        Shared by all docks of the viewer.
    body : QVBoxLayout
        Where the subclass puts its widgets.
    advanced : QCollapsible
        Folded part for rare settings; hidden until something is added with
        `add_advanced` or ``advanced.show()`` is called.
    subscriptions : Subscriptions
        Connect to layer, viewer and session events through this, so that they end
        with the dock.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer: ViewerModel = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.state = state_of(self.viewer)
        self.subscriptions = Subscriptions(self)
        self._task: Task | None = None
        self._task_layer: Layer | None = None
        self._is_about_view = False
        self.header = Header(self.state)
        self.notice = RecoveryNotice(self.state)
        self.notice.failed.connect(self.show_error)
        self.body = QVBoxLayout()
        self.advanced = folded("Advanced")
        self.advanced_form = QFormLayout()
        self.footer = Footer()
        self.footer.cancel.clicked.connect(self.cancel)
        self._lay_out()
        self.subscriptions.connect(self.viewer.layers.events.removed, self._on_layer_removed)
        self.subscriptions.connect(self.state.events.image_changed, self.notice.refresh)
        self.subscriptions.connect(self.state.events.said, self.show_result)
        for emitter in (self.viewer.dims.events.ndisplay, self.viewer.dims.events.order):
            self.subscriptions.connect(emitter, self._on_view_changed)

    def _lay_out(self) -> None:
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 4, 0)
        column.addLayout(self.body)
        form = QWidget()
        form.setLayout(self.advanced_form)
        self.advanced_form.setContentsMargins(0, 0, 0, 0)
        self.advanced_form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        self.advanced.addWidget(form)
        self.advanced.hide()
        column.addWidget(self.advanced)
        column.addStretch(1)
        line = QFrame()
        line.setFrameShape(QFrame.Shape.HLine)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.addWidget(self.header)
        layout.addWidget(self.notice)
        layout.addWidget(_Body(content), 1)
        layout.addWidget(line)
        layout.addWidget(self.footer)

    def add_advanced(self, label: str, widget: QWidget, tooltip: str = "") -> None:
        """Add a row to the folded part, which becomes visible with its first row."""
        if tooltip:
            widget.setToolTip(tooltip)
        if label:
            self.advanced_form.addRow(label, widget)
        else:
            self.advanced_form.addRow(widget)
        self.advanced.show()

    def event(self, event: QEvent) -> bool:
        """Notice when napari puts the dock into a window or takes it out (the x in its title)."""
        if event.type() == QEvent.Type.ParentChange:
            arrived = self.parent() is not None
            QTimer.singleShot(0, self._join_others if arrived else self._end_if_removed)
        return bool(super().event(event))

    def _join_others(self) -> None:
        """Become a tab beside our other docks: below one another none has room enough."""
        holder = self.parent() if isalive(self) else None
        if not isinstance(holder, QDockWidget) or holder.isFloating():
            return
        window = holder.parent()
        if not isinstance(window, QMainWindow):
            return
        area = window.dockWidgetArea(holder)
        for other in window.findChildren(QDockWidget):
            if (
                other is not holder
                and isinstance(other.widget(), Dock)
                and not other.isFloating()
                and window.dockWidgetArea(other) == area
                and holder not in window.tabifiedDockWidgets(other)
            ):
                window.tabifyDockWidget(other, holder)
                # Qt shows a new tab only after it has laid out the window.
                QTimer.singleShot(0, holder.raise_)
                return

    def _end_if_removed(self) -> None:
        # napari only lets go of the widget. It would live on, unseen, until Python collects
        # reference cycles, and go on answering the mouse.
        if isalive(self) and self.parent() is None:
            self.subscriptions.close()
            self.deleteLater()

    # ------------------------------------------------------------------ running

    @property
    def running(self) -> bool:
        """Whether the dock's own work is under way."""
        return self._task is not None and self._task.running

    def start(
        self,
        job: Job,
        *,
        title: str,
        on_done: Callable[[Any], None],
        on_failed: Callable[[Failure], None] | None = None,
        on_cancelled: Callable[[], None] | None = None,
        layer: Layer | None = None,
        must_finish: bool = False,
    ) -> Task | None:
        """Run work in the background with progress and Cancel in the footer.

        Parameters
        ----------
        job : callable
            ``job(progress, should_stop)``, see `run_in_background`.
        title : str
            What is being done, such as ``"Finding masks"``.
        on_done : callable
            Called with the result; say it in one sentence with `show_result`.
        on_failed, on_cancelled : callable, optional
            Called besides the message in the footer.
        layer : napari.layers.Layer, optional
            The layer worked on: when it is removed the work is cancelled.
        must_finish : bool
            Whether the work goes on when the dock is closed, such as saving a file.

        Returns
        -------
        Task or None
            None if something runs already; nothing is started then.
        """
        if self.running:
            self.show_result("Something is still running here; wait for it or press Cancel.")
            return None

        def done(result: Any) -> None:
            self._finish(Status.IDLE)
            on_done(result)

        def failed(failure: Failure) -> None:
            self._finish(Status.ERROR)
            self.show_error(failure.message, details=failure.details)
            if on_failed is not None:
                on_failed(failure)

        def cancelled() -> None:
            self._finish(Status.IDLE)
            self.show_result(f"{title}: cancelled.")
            if on_cancelled is not None:
                on_cancelled()

        self._task_layer = layer
        self.footer.begin(title)
        self.header.dot.set_status(Status.WORKING)
        self._task = run_in_background(
            job,
            on_done=done,
            on_failed=failed,
            on_progress=self.footer.progress,
            on_cancelled=cancelled,
            parent=self,
            must_finish=must_finish,
        )
        return self._task

    def cancel(self) -> None:
        """Ask the dock's own work to stop."""
        if self._task is not None and self._task.running:
            self._task.cancel()
            self.footer.stopping()

    def show_result(self, text: str, *, details: str = "") -> None:
        """Say the last result in one sentence."""
        self.footer.say(text, details=details)
        self._is_about_view = False
        if not self.running:
            self.header.dot.set_status(Status.IDLE)

    def show_error(self, text: str, *, details: str = "", about_view: bool = False) -> None:
        """Say what went wrong and what to do about it.

        Parameters
        ----------
        text : str
            The message; of one with several lines the last is shown.
        details : str
            For the tooltip.
        about_view : bool
            Whether it only holds as long as the viewer shows what it shows, such as a volume.
        """
        self.footer.say(text, details=details, is_error=True)
        self._is_about_view = about_view
        self.header.dot.set_status(Status.ERROR)

    def show_summary(self) -> None:
        """Say what there is to say when nothing was asked for: nothing, unless overridden."""
        self.show_result("")

    def _on_view_changed(self, _event: Any = None) -> None:
        """Take back the message about a view that cannot be worked on, once it is gone."""
        layer = self.state.image_layer
        if not self._is_about_view or layer is None:
            return
        try:
            self.state.plane(layer)
        except UnsupportedViewError:
            return
        self.show_summary()

    def _finish(self, status: Status) -> None:
        self._task = None
        self._task_layer = None
        self.footer.end()
        self.header.dot.set_status(status)

    def _on_layer_removed(self, event: Any) -> None:
        if self._task_layer is not None and event.value is self._task_layer:
            self.cancel()

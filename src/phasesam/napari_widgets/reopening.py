"""Hands things over to another dock, such as an object that is to be corrected with clicks."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from phasesam.core.errors import SessionError
from phasesam.napari_widgets.prompts import PromptDock

if TYPE_CHECKING:
    from phasesam.napari_widgets.dock import Dock

_PLUGIN = "napari-phasesam"
T = TypeVar("T", bound="Dock")


def reopen_in_prompt_dock(dock: Dock, object_id: int) -> None:
    """Re-open an object in the viewer's Prompt dock, which is opened if need be.

    Parameters
    ----------
    dock : Dock
        Where the object was selected.
    object_id : int
        The object.

    Raises
    ------
    SessionError
        If there is no Prompt dock and none can be opened.
    """
    prompt = raised_dock(dock, PromptDock, "Prompt")
    if prompt.reopen(object_id):
        dock.show_result(f"Object {object_id} is open in the Prompt dock.")
    else:
        raise SessionError(f"Object {object_id} could not be re-opened; see the Prompt dock.")


def raised_dock(dock: Dock, kind: type[T], title: str) -> T:
    """Bring another dock of the same viewer to the front, opened if need be.

    Parameters
    ----------
    dock : Dock
        Where the wish comes from.
    kind : type
        Class of the other one.
    title : str
        As it is in the menu.

    Raises
    ------
    SessionError
        If there is none and none can be opened.
    """
    other = find_dock(dock, kind) or _open_dock(dock, kind, title)
    if other is None:
        raise SessionError(f"Open the {title} dock first: Plugins > PhaseSAM > {title}.")
    holder = other.parentWidget()
    if holder is not None:
        holder.show()
        holder.raise_()
    return other


def find_dock(dock: Dock, kind: type[T]) -> T | None:
    """Find another dock of the same viewer, None if it is not open."""
    window = getattr(dock.viewer, "window", None)
    if window is None:
        return None
    for widget in window.dock_widgets.values():
        if isinstance(widget, kind):
            return widget
    return None


def _open_dock(dock: Dock, kind: type[T], title: str) -> T | None:
    window = getattr(dock.viewer, "window", None)
    if window is None:
        return None
    try:
        _holder, widget = window.add_plugin_dock_widget(_PLUGIN, title)
    except (ValueError, KeyError) as error:
        raise SessionError(f"The {title} dock could not be opened: {error}") from error
    return widget if isinstance(widget, kind) else None

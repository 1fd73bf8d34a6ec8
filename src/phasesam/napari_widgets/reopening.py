"""Hands an object of the table over to the Prompt dock, to be corrected with further clicks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phasesam.core.errors import SessionError
from phasesam.napari_widgets.prompts import PromptDock

if TYPE_CHECKING:
    from phasesam.napari_widgets.dock import Dock

_PLUGIN = "napari-phasesam"
_TITLE = "Prompt"


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
    prompt = raised_prompt_dock(dock)
    if prompt.reopen(object_id):
        dock.show_result(f"Object {object_id} is open in the Prompt dock.")
    else:
        raise SessionError(f"Object {object_id} could not be re-opened; see the Prompt dock.")


def raised_prompt_dock(dock: Dock) -> PromptDock:
    """Bring the Prompt dock of the same viewer to the front, opened if need be.

    Raises
    ------
    SessionError
        If there is none and none can be opened.
    """
    prompt = find_prompt_dock(dock) or _open_prompt_dock(dock)
    if prompt is None:
        raise SessionError("Open the Prompt dock first: Plugins > PhaseSAM > Prompt.")
    holder = prompt.parentWidget()
    if holder is not None:
        holder.show()
        holder.raise_()
    return prompt


def find_prompt_dock(dock: Dock) -> PromptDock | None:
    """Find the Prompt dock of the same viewer, None if it is not open."""
    window = getattr(dock.viewer, "window", None)
    if window is None:
        return None
    for widget in window.dock_widgets.values():
        if isinstance(widget, PromptDock):
            return widget
    return None


def _open_prompt_dock(dock: Dock) -> PromptDock | None:
    window = getattr(dock.viewer, "window", None)
    if window is None:
        return None
    try:
        _holder, widget = window.add_plugin_dock_widget(_PLUGIN, _TITLE)
    except (ValueError, KeyError) as error:
        raise SessionError(f"The Prompt dock could not be opened: {error}") from error
    return widget if isinstance(widget, PromptDock) else None

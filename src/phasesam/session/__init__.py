"""Everything that changes while somebody works on one image: objects, undo, autosave."""

from phasesam.session.objects import ObjectRecord
from phasesam.session.rehearsal import Rehearsal, Rehearsed, rehearse
from phasesam.session.session import SegmentationSession
from phasesam.session.storage import (
    SavedSession,
    autosave_folder,
    autosave_path_for,
    describe,
    find_recoverable,
)

__all__ = [
    "ObjectRecord",
    "Rehearsal",
    "Rehearsed",
    "SavedSession",
    "SegmentationSession",
    "autosave_folder",
    "autosave_path_for",
    "describe",
    "find_recoverable",
    "rehearse",
]

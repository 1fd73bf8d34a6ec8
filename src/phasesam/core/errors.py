"""Every error PhaseSAM raises on purpose.

::

    PhaseSAMError
     +-- InvalidImageError        (ValueError)   not an image we can segment
     +-- InvalidPromptError       (ValueError)   points, boxes or masks that make no sense
     +-- InvalidMaskError         (ValueError)   a mask or label image of the wrong kind
     +-- InvalidSettingError      (ValueError)   a threshold or option out of range
     +-- TrainingDataError        (ValueError)   images and labels that nothing can be learnt from
     +-- UnsupportedViewError     (ValueError)   what the viewer shows is not one plane of an image
     +-- FileFormatError          (ValueError)   a file that cannot be read as what it claims to be
     +-- SaveError                (OSError)      nothing was written, the old file is intact
     +-- SessionError             (RuntimeError) an edit that cannot be done, or a broken autosave
     +-- CancelledError           (RuntimeError) the user asked to stop
     +-- ModelError               (RuntimeError)
          +-- UnknownModelError   (LookupError)  no such entry in the registry
          +-- CheckpointError     (ValueError)   truncated, wrong, unsafe or incomplete weights
          +-- DownloadError       (OSError)      weights could not be fetched or verified
          +-- DeviceMemoryError   (MemoryError)  out of memory after every remedy was tried
"""

from __future__ import annotations


class PhaseSAMError(Exception):
    """Base of all errors raised on purpose; its message says what was expected and what came."""


class InvalidImageError(PhaseSAMError, ValueError):
    """The array is not an image that can be segmented."""


class InvalidPromptError(PhaseSAMError, ValueError):
    """Points, labels, boxes or mask prompts are inconsistent or outside the image."""


class InvalidMaskError(PhaseSAMError, ValueError):
    """A mask or label image has the wrong shape, dtype or content."""


class InvalidSettingError(PhaseSAMError, ValueError):
    """A threshold or option is out of its range."""


class TrainingDataError(PhaseSAMError, ValueError):
    """Labelled images do not fit together, or there is nothing in them to learn from."""


class UnsupportedViewError(PhaseSAMError, ValueError):
    """What the viewer shows is not one plane of an image, so nothing can be segmented in it."""


class FileFormatError(PhaseSAMError, ValueError):
    """A file cannot be read as what it claims to be."""


class SaveError(PhaseSAMError, OSError):
    """A file could not be written; whatever was there before is intact."""


class SessionError(PhaseSAMError, RuntimeError):
    """An edit cannot be carried out, or an autosave cannot be read."""


class CancelledError(PhaseSAMError, RuntimeError):
    """The user asked to stop."""


class ModelError(PhaseSAMError, RuntimeError):
    """Base of everything that goes wrong with models and weights."""


class UnknownModelError(ModelError, LookupError):
    """The registry has no model of this name."""

    def __str__(self) -> str:
        """Show the message, not the quoted key of ``LookupError``."""
        return str(self.args[0]) if self.args else ""


class CheckpointError(ModelError, ValueError):
    """Weights are truncated, unsafe, incomplete or of another architecture."""


class OtherTrainingError(CheckpointError):
    """A checkpoint belongs to a training with other data or settings."""


class DownloadError(ModelError, OSError):
    """Weights could not be fetched or did not match their checksum."""


class DeviceMemoryError(ModelError, MemoryError):
    """The device ran out of memory and every remedy has been tried."""


class TrainingError(PhaseSAMError, RuntimeError):
    """A training cannot go on."""

"""Options for the labels of training data, shared by the commands that read some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from phasesam.cli.batch_options import panel
from phasesam.core.errors import InvalidSettingError

_data = panel("Data")


@dataclass(frozen=True)
class LabelOptions:
    """Which labels there are, and what they mean."""

    labels: Annotated[
        str | None,
        _data(
            "--labels", metavar="FOLDER", text="Folder of the labels in DATA.", show_default=False
        ),
    ] = None
    classes: Annotated[
        str | None,
        _data(
            "--classes",
            metavar="NAMES",
            text="Names of the classes in the order of their values, or by value "
            "(0=matrix,128=pore). When left out: the adapter's, or as the data say.",
            show_default=False,
        ),
    ] = None
    unlabelled: Annotated[
        int | None,
        _data(
            "--unlabelled",
            metavar="VALUE",
            text="Value of pixels about which the labels say nothing.",
            show_default=False,
        ),
    ] = None
    experiment: Annotated[
        str | None,
        _data(
            "--experiment",
            metavar="NAME",
            text="Rows of the table to take, where it has a column experiment.",
            show_default=False,
        ),
    ] = None
    components: Annotated[
        bool | None,
        _data(
            "--components/--no-components",
            text="Parts of a label that do not touch are objects each.",
            show_default=False,
        ),
    ] = None

    def data_options(self) -> dict[str, Any]:
        """Give them as fields of `phasesam.training.dataset.DataOptions`.

        Raises
        ------
        InvalidSettingError
            If the classes cannot be read.
        """
        return {
            "labels": self.labels,
            "classes": parse_classes(self.classes),
            "unlabelled": self.unlabelled,
            "experiment": self.experiment,
            "components": bool(self.components),
        }


def parse_classes(text: str | None) -> list[str] | dict[int, str] | None:
    """Read names of classes: ``matrix,pore`` or ``0=matrix,128=pore``.

    Raises
    ------
    InvalidSettingError
        If it is neither.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not any("=" in part for part in parts):
        if "" in parts or len(set(parts)) < len(parts):
            raise InvalidSettingError(f"--classes expects different names, got {text!r}")
        return parts
    names = {}
    for part in parts:
        value, _, name = part.partition("=")
        if not value.strip().lstrip("-").isdigit() or not name.strip():
            raise InvalidSettingError(
                f"--classes expects names, or VALUE=NAME for all of them, got {part!r}"
            )
        if int(value) in names:
            raise InvalidSettingError(f"--classes names the value {int(value)} twice: {text!r}")
        names[int(value)] = name.strip()
    return names

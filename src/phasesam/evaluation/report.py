"""Reports: Markdown, and one HTML file that holds everything and runs nothing."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phasesam.core.errors import SaveError
from phasesam.evaluation.curve_plot import Curve, draw_curves
from phasesam.formats.atomic import atomic_file

INTERVAL_NOTE = (
    "In brackets: 95 % bootstrap intervals that draw whole images (specimens, where known), "
    "widened for few of them; [–] where there is only one, which says nothing about scatter."
)

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:72rem;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
th,td{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #444}
.note{color:#555;font-size:.9rem}figure{margin:1rem 0}img,svg{max-width:100%;height:auto}
figcaption{color:#555;font-size:.9rem}.chip{display:inline-block;width:.8em;height:.8em;
border:1px solid #888;margin:0 .3em 0 1em}
"""


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes
    ----------
    title : str
        Heading.
    columns : tuple of str
        Names of the columns, with units.
    rows : tuple of tuples of str
        Cells; the first names the row.
    note : str
        What to know to read it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, eq=False)
class Plot:
    """Lines over a common axis.

    Attributes
    ----------
    title : str
        Heading.
    curves : mapping of str to Curve
        Lines by name.
    x_label, y_label : str
        What the axes mean.
    y_range : (float, float) or None
        Limits of the vertical axis.
    """

    title: str
    curves: Mapping[str, Curve]
    x_label: str
    y_label: str
    y_range: tuple[float, float] | None = None

    def to_svg(self) -> str:
        """Draw it."""
        return draw_curves(self.curves, self.x_label, self.y_label, self.y_range)


@dataclass(frozen=True, eq=False)
class Picture:
    """An image with a caption.

    Attributes
    ----------
    title : str
        What it is, such as ``"worst: spot2_0d_4"``.
    caption : str
        What it shows.
    rgb : (h, w, 3) uint8 array
        Pixels.
    """

    title: str
    caption: str
    rgb: NDArray[np.uint8]

    def to_png(self) -> bytes:
        """Compress it."""
        buffer = io.BytesIO()
        Image.fromarray(self.rgb).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class Report:
    """What was found out.

    Attributes
    ----------
    title : str
        Heading of the whole.
    introduction : tuple of str
        Paragraphs: what was compared, by which rules.
    tables : tuple of Table
        In order.
    plots : tuple of Plot
        In order.
    pictures : tuple of Picture
        In order.
    legend : mapping of str to (r, g, b)
        Colours in the pictures by meaning.
    """

    title: str
    introduction: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    pictures: tuple[Picture, ...] = ()
    legend: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    def to_markdown(self, files: Sequence[str] = ()) -> str:
        """Write as Markdown.

        Parameters
        ----------
        files : sequence of str
            Where the plots and pictures are, in this order; they are left out without.
        """
        parts = [f"# {_cell(self.title)}", *map(_words, self.introduction)]
        for table in self.tables:
            parts += [f"## {_cell(table.title)}", _markdown_table(table)]
            parts += [_words(table.note)] if table.note else []
        shown = [(p.title, "") for p in self.plots] + [(p.title, p.caption) for p in self.pictures]
        if files:
            for (title, caption), file in zip(shown, files, strict=True):
                parts += [f"## {_cell(title)}", f"![{_cell(title)}]({file})"]
                parts += [_words(caption)] if caption else []
        if self.pictures and self.legend and files:
            colours = [f"{_words(n)} `#{bytes(rgb).hex()}`" for n, rgb in self.legend.items()]
            parts.append(f"Colours in the pictures: {', '.join(colours)}.")
        return "\n\n".join(parts) + "\n"

    def to_html(self) -> str:
        """Write as one HTML page that needs no other file, no network and no script."""
        parts = [f"<h1>{escape(self.title)}</h1>"]
        parts += [f"<p>{escape(text)}</p>" for text in self.introduction]
        for table in self.tables:
            parts += [f"<h2>{escape(table.title)}</h2>", _html_table(table)]
            parts += [f'<p class="note">{escape(table.note)}</p>'] if table.note else []
        for plot in self.plots:
            parts += [f"<h2>{escape(plot.title)}</h2>", f"<figure>{plot.to_svg()}</figure>"]
        if self.pictures and self.legend:
            parts.append(
                f'<p class="note">{"".join(_chip(*item) for item in self.legend.items())}</p>'
            )
        for picture in self.pictures:
            data = base64.b64encode(picture.to_png()).decode("ascii")
            parts += [
                f"<h2>{escape(picture.title)}</h2>",
                f'<figure><img alt="{escape(picture.title)}" src="data:image/png;base64,{data}">'
                f"<figcaption>{escape(picture.caption)}</figcaption></figure>",
            ]
        head = (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body>"
        )
        return head + "\n".join(parts) + "</body></html>\n"


def save_report(report: Report, folder: Path) -> list[Path]:
    """Write ``report.html`` and ``report.md``, the latter with its pictures beside it.

    Parameters
    ----------
    report : Report
        What to write.
    folder : Path
        Made if it does not exist.

    Returns
    -------
    list of Path
        The files, each replaced in one piece.

    Raises
    ------
    SaveError
        If something cannot be written; older files are then intact.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"cannot make the folder {folder}: {error}") from error
    figures: list[Plot | Picture] = [*report.plots, *report.pictures]
    contents = {
        f"{i:02d}_{_slug(p.title)}.{'svg' if isinstance(p, Plot) else 'png'}": (
            p.to_svg().encode() if isinstance(p, Plot) else p.to_png()
        )
        for i, p in enumerate(figures, 1)
    }
    files = {**contents, "report.md": report.to_markdown(list(contents)).encode()}
    files["report.html"] = report.to_html().encode()
    for name, content in files.items():
        with atomic_file(folder / name) as file:
            file.write(content)
    return [folder / name for name in files]


def _markdown_table(table: Table) -> str:
    lines = [
        "| " + " | ".join(map(_cell, table.columns)) + " |",
        "|---" + "|---:" * (len(table.columns) - 1) + "|",
    ]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in table.rows]
    return "\n".join(lines)


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    """Keep bars and line ends from breaking a row, and names from becoming markup."""
    return _words(text).replace("|", "\\|").replace("\n", " ")


def _words(text: str) -> str:
    """Keep tags, links and emphasis of Markdown out of what people have named."""
    # A star between spaces marks nothing.
    escaped = re.sub(r"([\\<`]|\*(?=\S)|(?<=\S)\*)", r"\\\1", text)
    return escaped.replace("](", "]\\(")


def _chip(name: str, colour: tuple[int, int, int]) -> str:
    red, green, blue = colour
    return f'<span class="chip" style="background:rgb({red},{green},{blue})"></span>{escape(name)}'


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_.")[:80] or "figure"

"""Reports: Markdown that keeps its tables, HTML that needs nothing else."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from phasesam.core.errors import SaveError
from phasesam.evaluation.curve_plot import Curve
from phasesam.evaluation.report import Picture, Plot, Report, Table, save_report

RGB = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
TABLE = Table("A | B", ("image", "IoU"), (("x|y", "0.5"), ("a\nb", "<b>")), "A note & more.")
PLOT = Plot("Curve", {"base": Curve(np.arange(3.0), np.arange(3.0))}, "clicks", "IoU")
REPORT = Report(
    "Title <x>",
    ("First.", "Second."),
    (TABLE,),
    (PLOT,),
    (Picture("worst: ../a b", "Caption.", RGB),),
    {"pore": (1, 2, 3)},
)


class Checked(HTMLParser):
    """Notes tags, their balance, and everything that refers to something else."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img", "path"):
            self.open.append(tag)
        self.sources += [v for k, v in attrs if k in ("src", "href", "onload", "onclick")]

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_balanced_and_self_contained():
    page = Checked()
    page.feed(REPORT.to_html())
    assert page.open == []
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert page.tags.count("svg") == 1
    (source,) = page.sources
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(data))), RGB)


def test_html_escapes_what_users_name():
    html = REPORT.to_html()
    assert "<title>Title &lt;x&gt;</title>" in html
    assert "<td>&lt;b&gt;</td>" in html
    assert "A note &amp; more." in html


def test_markdown_tables_keep_their_columns():
    lines = [line for line in REPORT.to_markdown().splitlines() if line.startswith("|")]
    assert lines == ["| image | IoU |", "|---|---:|", r"| x\|y | 0.5 |", r"| a b | \<b> |"]
    assert "## A \\| B" in REPORT.to_markdown()
    assert "![" not in REPORT.to_markdown()


def test_saving_writes_pictures_beside_the_markdown(tmp_path):
    files = save_report(REPORT, tmp_path / "new" / "report")
    assert sorted(path.name for path in files) == [
        "01_Curve.svg", "02_worst_.._a_b.png", "report.html", "report.md"
    ]  # fmt: skip
    text = (tmp_path / "new" / "report" / "report.md").read_text(encoding="utf-8")
    linked = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert linked == ["01_Curve.svg", "02_worst_.._a_b.png"]
    assert all((tmp_path / "new" / "report" / name).exists() for name in linked)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SaveError, match="folder"):
        save_report(REPORT, tmp_path / "file" / "report")


def test_an_empty_report():
    page = Checked()
    page.feed(Report("Nothing").to_html())
    assert page.open == []
    assert Report("Nothing").to_markdown() == "# Nothing\n"


def test_markdown_says_what_colours_mean_and_keeps_names_plain():
    bad = "<script>x</script> a](http://b) *c* `d`"
    report = Report(bad, (bad,), pictures=(Picture("p", bad, RGB),), legend={bad: (230, 159, 0)})
    text = report.to_markdown(["p.png"])
    assert "`#e69f00`" in text
    for markup in ("](http", " *c*", " `d`"):
        assert markup not in text
    assert text.count("<") == text.count("\\<") == 4 * 2

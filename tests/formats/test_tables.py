"""Tables can be read back by the csv module and by eye."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from phasesam.core.errors import FileFormatError, InvalidSettingError
from phasesam.core.measurements import measure
from phasesam.core.types import PixelSize
from phasesam.formats.tables import read_table_csv, save_table_csv


def test_cells(tmp_path: Path):
    columns = {
        "id": np.array([1, 2]),
        "area_um2": np.array([1 / 3, np.nan]),
        "class": ['γ\', "prime"', "a,b\nc"],
        "touches_edge": np.array([True, False]),
        "score": np.array([0.5, 1e-12], np.float32),
    }
    save_table_csv(tmp_path / "a.csv", columns)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(columns)
    assert rows[1] == ["1", "0.333333333", 'γ\', "prime"', "1", "0.5"]
    assert rows[2] == ["2", "", "a,b\nc", "0", "9.99999996e-13"]


def test_measurements(tmp_path: Path):
    labels = np.zeros((20, 20), np.int32)
    labels[2:8, 3:12] = 1
    labels[12:, 5:] = 2
    table = measure(labels, PixelSize(0.5, 0.5, "um"))
    save_table_csv(tmp_path / "a.csv", table.columns)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["area_um2"]) for row in rows] == [13.5, 30.0]
    assert [row["touches_edge"] for row in rows] == ["0", "1"]


def test_no_rows_and_no_columns(tmp_path: Path):
    save_table_csv(tmp_path / "a.csv", {"id": [], "area_px": []})
    assert (tmp_path / "a.csv").read_bytes() == b"id,area_px\n"
    save_table_csv(tmp_path / "a.csv", {})
    assert (tmp_path / "a.csv").read_bytes() == b"\n"


def test_columns_of_different_length(tmp_path: Path):
    with pytest.raises(InvalidSettingError, match="'a': 1, 'b': 2"):
        save_table_csv(tmp_path / "a.csv", {"a": [1], "b": [1, 2]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("image;phase\nKorngröße.tif;γ′\n", "utf-8"),
        ("\ufeffimage;phase\nKorngröße.tif;γ′\n", "utf-8"),
        ("image\tphase\nKorngröße.tif\tγ′\n", "utf-16"),
        ("sep=;\r\nimage;phase\r\nKorngröße.tif;γ′\r\n", "utf-8"),
        ("sep=\t\nimage\tphase\nKorngröße.tif\tγ′\n", "utf-8"),
        ('sep=;\n"image";"phase"\nKorngröße.tif;a,b,c\n', "utf-8"),
    ],
)
def test_tables_of_spreadsheets(tmp_path: Path, content: str, encoding: str):
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode(encoding))
    (row,) = read_table_csv(path, ("image", "phase"))
    assert row["image"] == "Korngröße.tif"
    assert row["phase"] == ("a,b,c" if "a,b,c" in content else "γ′")


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "Korngröße".encode("cp1252")]
)
def test_what_is_no_text(tmp_path: Path, content: bytes):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(FileFormatError, match="expected a CSV text in UTF-8"):
        read_table_csv(tmp_path / "a.csv")

import pytest

from phasesam.core.errors import FileFormatError
from phasesam.formats.shares_csv import read_shares_csv

CLASSES = ("ferrite", "bainite", "martensite")


def written(tmp_path, text):
    path = tmp_path / "shares.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("phase,fraction\nferrite,0.25\n", {"ferrite": (0.25, 0)}),
        ("\ufeffClass, Percent, Error\n Bainite , 25, 2\n", {"bainite": (0.25, 0.02)}),
        ("name,%\nmartensite,12.5%\nferrite,80\n", {"martensite": (0.125, 0), "ferrite": (0.8, 0)}),
        ("phase,wanted,standard_error\nferrite,0.25,\n", {"ferrite": (0.25, 0)}),
        (
            "phase,fraction\nferrite,0.5%\nbainite,50%\nmartensite,0.4\n",
            {"ferrite": (0.005, 0), "bainite": (0.5, 0), "martensite": (0.4, 0)},
        ),
        (
            "phase,fraction,error\nferrite,25 %,2%\nbainite,0.3,0.5%\nmartensite,1%,0\n",
            {"ferrite": (0.25, 0.02), "bainite": (0.3, 0.005), "martensite": (0.01, 0)},
        ),
        (
            "phase,percent,error\nferrite,25%,2\nbainite,25,2%\n",
            {"ferrite": (0.25, 0.02), "bainite": (0.25, 0.02)},
        ),
        ("phase;percent;error\nferrite;25;2\n", {"ferrite": (0.25, 0.02)}),
    ],
)
def test_shares_are_read(tmp_path, text, expected):
    found = read_shares_csv(written(tmp_path, text), CLASSES)
    assert found == {name: pytest.approx(values) for name, values in expected.items()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("phase,fraction\n", "no rows"),
        ("phase,amount\nferrite,0.2\n", "expected a column fraction or share"),
        ("mineral,fraction\nferrite,0.2\n", "expected a column phase"),
        ("phase,fraction\npearlite,0.2\n", "line 2: 'pearlite', which is none of ferrite"),
        ("phase,fraction\nferrite,0.2\nFerrite,0.3\n", "line 3: 'Ferrite', twice"),
        ("phase,fraction\nferrite,20\n", "within 0–1, got '20'"),
        ("phase,percent\nferrite,200\n", "within 0–100, got '200'"),
        ("phase,fraction\nferrite,much\n", "got 'much'"),
        ("phase,fraction\nferrite\n", "got ''"),
        ("phase,fraction,error\nferrite,0.2,-1\n", "got '-1'"),
        ("phase,fraction\nferrite,120%\n", "within 0–100, got '120%'"),
        ("phase,fraction\nferrite,%\n", "got '%'"),
        ("phase,fraction,error\nferrite,25%,0.02\n", "with a % sign, as the share .* '0.02'"),
    ],
)
def test_mistakes_are_explained(tmp_path, text, message):
    with pytest.raises(FileFormatError, match=message):
        read_shares_csv(written(tmp_path, text), CLASSES)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileFormatError, match="cannot be opened"):
        read_shares_csv(tmp_path / "none.csv", CLASSES)
    path = tmp_path / "binary.csv"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(FileFormatError):
        read_shares_csv(path, CLASSES)

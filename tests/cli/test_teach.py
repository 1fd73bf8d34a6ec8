"""Adapters learn from amounts on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.training.conftest import discs
from typer.testing import CliRunner

from phasesam.cli.app import app
from phasesam.cli.teach import Lesson, read_examples
from phasesam.core.errors import FileFormatError, InvalidImageError, InvalidSettingError
from phasesam.models.adapter_card import read_card
from phasesam.models.adapter_config import AdapterConfig
from phasesam.training.run_folder import RunFolder, RunStatus

pytestmark = pytest.mark.usefixtures("own_cache")

CLASSES = ("ground", "disc")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, make_adapter):
    path = tmp_path_factory.mktemp("a") / "discs.safetensors"
    return make_adapter(path, config=AdapterConfig(rank=2, decoder_rank=2), classes=CLASSES)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    for seed in (30, 31):
        tifffile.imwrite(folder / f"disc{seed}.tif", discs(seed)[0])
    return folder


def teach(*args):
    return CliRunner().invoke(app, ["teach", *map(str, args)])


def lesson(images, **changes):
    return Lesson([str(images)], "discs", **changes)


def test_an_adapter_learns_by_the_amounts_of_a_file(adapter, images, tmp_path):
    amounts = tmp_path / "amounts.csv"
    amounts.write_text(
        "image,phase,percent,error\ndisc30.tif,Disc,20,2\ndisc31,disc,30,\ndisc31,ground,70,\n"
    )
    before = adapter.read_bytes()
    result = teach(
        images, "--adapter", adapter, "--amounts", amounts, "-o", tmp_path / "out.safetensors",
        "--views", 2, "--device", "cpu", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["adapter"] == str(tmp_path / "out.safetensors")
    card = read_card(tmp_path / "out.safetensors")
    assert card.classes == CLASSES
    assert card.details["splits"] == {"train": ["disc30", "disc31"]}
    assert adapter.read_bytes() == before
    again = teach(
        images, "--adapter", adapter, "--amounts", amounts, "-o", tmp_path / "out.safetensors"
    )
    assert again.exit_code == 4
    assert "--overwrite" in again.output
    first, second = read_examples(lesson(images, amounts=amounts), CLASSES)
    assert (first.fractions, first.uncertainty) == ((None, pytest.approx(0.2)), (0.0, 0.02))
    assert second.fractions == pytest.approx((0.7, 0.3))
    assert second.uncertainty == (0.0, 0.0)


def test_all_images_can_have_the_same_amounts(images):
    examples = read_examples(lesson(images, ratio=["disc=10-30%"]), CLASSES)
    assert [e.name for e in examples] == ["disc30", "disc31"]
    assert [e.fractions for e in examples] == [(None, (0.1, 0.3))] * 2
    assert (examples[0].image == discs(30)[0]).all()


def test_images_of_the_same_name_are_told_apart_by_their_folders(images, tmp_path):
    other = tmp_path / "old"
    other.mkdir()
    tifffile.imwrite(other / "disc30.tif", discs(32)[0])
    both = Lesson([str(images / "disc30.tif"), str(other)], "discs", amounts=tmp_path / "a.csv")

    def shares(*rows):
        text = "".join(f"{name},disc,{share}\n" for name, share in rows)
        both.amounts.write_text("image,phase,fraction\n" + text)
        return [e.fractions[1] for e in read_examples(both, CLASSES)]

    assert shares(("new/disc30.tif", 0.1), ("old/disc30", 0.2)) == pytest.approx([0.1, 0.2])
    # The name with more folders is the more precise one.
    assert shares(("disc30", 0.1), ("old/disc30", 0.2)) == pytest.approx([0.1, 0.2])
    # Written on another machine.
    assert shares(("new\\disc30", 0.1), ("old\\disc30.tif", 0.2)) == pytest.approx([0.1, 0.2])
    with pytest.raises(InvalidSettingError, match=r"disc30.tif may be .* or .*: write as much"):
        shares(("disc30.tif", 0.2))
    with pytest.raises(InvalidSettingError, match=r"once, got those of disc30.tif, disc30"):
        shares(("disc30.tif", 0.2), ("disc30", 0.3), ("old/disc30", 0.2))


def test_images_are_found_in_a_table_however_they_are_written(images, tmp_path, monkeypatch):
    (images / "disc31.tif").rename(images / "disc31.ome.tif")
    (images / "maps").mkdir()
    monkeypatch.chdir(images / "maps")
    table = tmp_path / "amounts.csv"
    lesson = Lesson(["../disc30.tif", "../disc31.ome.tif"], "discs", amounts=table)
    for names in (("new/disc30", "new/disc31"), ("disc30", "disc31"),
                  ("disc30.tif", "new/disc31.ome.tif"), ("disc30", "disc31.ome")):  # fmt: skip
        rows = "".join(f"{name},disc,{0.1 * (k + 1)}\n" for k, name in enumerate(names))
        table.write_text("image,phase,fraction\n" + rows)
        found = [e.fractions[1] for e in read_examples(lesson, CLASSES)]
        assert found == pytest.approx([0.1, 0.2])
    # The ending tells them apart.
    Image.fromarray(discs(33)[0]).save(images / "disc30.png")
    table.write_text("image,phase,fraction\ndisc30.tif,disc,0.1\ndisc30,disc,0.3\n")
    both = Lesson(["../disc30.tif", "../disc30.png"], "discs", amounts=table)
    assert [e.fractions[1] for e in read_examples(both, CLASSES)] == pytest.approx([0.1, 0.3])


def test_what_makes_no_sense_is_refused(adapter, make_adapter, images, tmp_path):
    amounts = tmp_path / "amounts.csv"
    for text, error, said in (
        ("image,phase,fraction\ndisc30,disc,0.2\n", InvalidSettingError, "no amounts of disc31"),
        ("phase,fraction\ndisc,0.2\n", FileFormatError, "image"),
        ("image,phase,fraction\ndisc30,pore,0.2\n", FileFormatError, "line 2.*pore"),
        ("image,phase,fraction\ndisc30,disc,2\n", FileFormatError, "within 0–1"),
        (
            "image,phase,fraction\ndisc30,disc,0.2\ndisc30,ground,0.2\ndisc31,disc,0.2\n",
            InvalidSettingError,
            "disc30: ",
        ),
    ):
        amounts.write_text(text)
        with pytest.raises(error, match=said):
            read_examples(lesson(images, amounts=amounts), CLASSES)
    with pytest.raises(InvalidSettingError, match="either --amounts or --ratio, got neither"):
        read_examples(lesson(images), CLASSES)
    with pytest.raises(InvalidSettingError, match="either --amounts or --ratio, got both"):
        read_examples(lesson(images, amounts=amounts, ratio=["disc=0.2"]), CLASSES)
    tifffile.imwrite(
        images / "stack.tif", np.zeros((3, 40, 50), np.uint8), photometric="minisblack"
    )
    with pytest.raises(
        InvalidImageError, match=r"stack.tif: expected an image, got a stack .planes: 3"
    ):
        read_examples(lesson(images, ratio=["disc=0.2"]), CLASSES)
    result = teach(images / "none.tif", "--adapter", adapter, "--ratio", "disc=1%", "-o", "new")
    assert result.exit_code == 2
    prompted = make_adapter(tmp_path / "prompted.safetensors")
    result = teach(images, "--adapter", prompted, "--ratio", "disc=1%", "-o", "new")
    assert result.exit_code == 2
    assert "has no classes" in result.output


def test_an_interrupted_training_is_not_lost(adapter, images, tmp_path):
    run = RunFolder(tmp_path / "steel_run")
    run.create()
    run.checkpoint_file.write_bytes(b"hours of work")
    run.write_status(RunStatus("cancelled", epoch=10, epochs=12))
    options = (images, "--adapter", adapter, "--ratio", "disc=20%", "--device", "cpu")
    result = teach(*options, "-o", tmp_path / "steel.safetensors")
    assert result.exit_code == 4
    said = " ".join(result.stderr.split())
    assert "interrupted after 10 of 12 epochs; choose another --run, --overwrite" in said
    assert run.checkpoint_file.read_bytes() == b"hours of work"

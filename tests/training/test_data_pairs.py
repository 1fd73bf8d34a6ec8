"""Images find their labels in folders and tables; what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from phasesam.core.errors import TrainingDataError
from phasesam.core.images import Normalisation
from phasesam.training.data_pairs import (
    Choice,
    pair_of_files,
    pairs_in_folder,
    pairs_in_table,
)

NOTHING = Choice()


def write(path: Path, value: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8), value, np.uint8)).save(path)
    return path


def make(folder: Path, images: str, labels: str, name: str = "labels") -> Path:
    for stem in images.split():
        write(folder / "images" / f"{stem}.png")
    for stem in labels.split():
        write(folder / name / f"{stem}.png")
    return folder


def names(collection) -> list[str]:
    return [pair.name for pair in collection.pairs]


def test_images_without_labels_and_labels_without_images_are_left_out_and_named(tmp_path):
    found = pairs_in_folder(make(tmp_path, "s1 s10 s2 extra", "s1 s2 s10 lost"), NOTHING)
    assert names(found) == ["s1", "s2", "s10"]
    assert "1 images without labels are left out: extra.png" in found.warnings[0]
    assert "1 labels without an image are left out: lost.png" in found.warnings[1]


def test_the_folder_of_labels_is_found_or_chosen(tmp_path):
    make(tmp_path, "a b", "a b", "labels_particle")
    assert pairs_in_folder(tmp_path, NOTHING).pairs[0].labels.name == "a.png"
    make(tmp_path, "", "a", "labels_satellite")
    with pytest.raises(TrainingDataError, match="labels_particle, labels_satellite; choose one"):
        pairs_in_folder(tmp_path, NOTHING)
    assert names(pairs_in_folder(tmp_path, Choice("labels_satellite"))) == ["a"]
    assert names(pairs_in_folder(tmp_path, Choice(str(tmp_path / "labels_satellite")))) == ["a"]
    with pytest.raises(TrainingDataError, match="folder labels_pore with labels, found none"):
        pairs_in_folder(tmp_path, Choice("labels_pore"))


def test_masks_are_labels(tmp_path):
    assert names(pairs_in_folder(make(tmp_path, "a", "a_mask", "masks"), NOTHING)) == ["a"]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ("a", "", "folder labels beside images, found none"),
        ("a", "b", r"same names .* a\.png and labels such as b\.png"),
        ("", "a", "got labels"),
    ],
)
def test_folders_that_lack_something(tmp_path, images, labels, message):
    with pytest.raises(TrainingDataError, match=message):
        pairs_in_folder(make(tmp_path, images, labels), NOTHING)


def test_an_empty_folder_of_images_and_two_files_of_one_name(tmp_path):
    (tmp_path / "images").mkdir()
    make(tmp_path, "", "a")
    with pytest.raises(TrainingDataError, match="found none that can be read"):
        pairs_in_folder(tmp_path, NOTHING)
    make(tmp_path, "a", "")
    write(tmp_path / "images" / "a.bmp")
    with pytest.raises(TrainingDataError, match=r"one file per name, got a\.bmp and a\.png"):
        pairs_in_folder(tmp_path, NOTHING)


def test_a_table_of_splits(tmp_path):
    folder = make(tmp_path, "a b.1 c", "a b.1 c")
    (folder / "splits.csv").write_text(
        "experiment,split,image\nE1,train,a\nE1,Validation,b.1\nE2,test,a\nE2,different_test,c.png\n"
    )
    with pytest.raises(TrainingDataError, match="the experiments E1, E2: choose one"):
        pairs_in_folder(folder, NOTHING)
    with pytest.raises(TrainingDataError, match="got 'E3'; there are E1, E2"):
        pairs_in_folder(folder, Choice(experiment="E3"))
    first = pairs_in_folder(folder, Choice(experiment="E1"))
    assert [(p.name, p.split) for p in first.pairs] == [("a", "train"), ("b.1", "val")]
    second = pairs_in_folder(folder, Choice(experiment="E2"))
    assert [(p.name, p.split) for p in second.pairs] == [("a", "test"), ("c", "different_test")]
    assert first.warnings == second.warnings == ()


def test_a_table_of_splits_and_images_that_do_not_fit(tmp_path):
    folder = make(tmp_path, "a b", "a b")
    (folder / "splits.csv").write_text("split,image,specimen\ntrain,a,s1\ntest,lost,s2\n")
    found = pairs_in_folder(folder, NOTHING)
    assert [(p.name, p.specimen) for p in found.pairs] == [("a", "s1")]
    assert "names images that are not there: lost" in found.warnings[0]
    assert "does not name b" in found.warnings[1]
    (folder / "splits.csv").write_text("split,image\ntrain,a\ntest,a\n")
    with pytest.raises(TrainingDataError, match="a is in the splits train and test"):
        pairs_in_folder(folder, NOTHING)
    (folder / "splits.csv").write_text("split,image\ntrain,lost\n")
    with pytest.raises(TrainingDataError, match="names of images, got lost"):
        pairs_in_folder(folder, NOTHING)
    (folder / "splits.csv").unlink()
    with pytest.raises(TrainingDataError, match=r"no splits\.csv"):
        pairs_in_folder(folder, Choice(experiment="E1"))


def test_a_table_of_images_and_labels(tmp_path):
    make(tmp_path, "a b", "a_1 b_1", "l")
    table = tmp_path / "data.csv"
    table.write_text(
        "\ufeffImage;Label;Split;Specimen;Name\nimages/a.png;l/a_1.png;train;s1;first\n"
        "images\\b.png;l\\b_1.png;;s2;\n\nimages/a.png;;train;s1;\n",
        encoding="utf-8",
    )
    found = pairs_in_folder(tmp_path, NOTHING)
    assert [(p.name, p.split, p.specimen) for p in found.pairs] == [
        ("first", "train", "s1"),
        ("b", "", "s2"),
    ]
    assert found.warnings == ("data.csv: no labels for images/a.png; left out",)
    assert found.pairs[1].labels.name == "b_1.png"


def test_equal_names_in_different_folders_are_told_apart(tmp_path):
    for specimen in ("s1", "s2"):
        write(tmp_path / specimen / "0001.png")
        write(tmp_path / specimen / "0001_mask.png")
    table = tmp_path / "t.csv"
    rows = [f"{s}/0001.png,{s}/0001_mask.png" for s in ("s1", "s2")]
    table.write_text("\n".join(["image,label", *rows]))
    assert names(pairs_in_table(table, NOTHING)) == ["0001", "0001 (2)"]
    table.write_text("\n".join(["image,label", rows[0], rows[0]]))
    with pytest.raises(TrainingDataError, match="comes twice"):
        pairs_in_table(table, NOTHING)


def test_tables_stay_within_their_folder(tmp_path):
    outside = write(tmp_path / "elsewhere" / "a.png")
    folder = tmp_path / "inside"
    write(folder / "a.png")
    table = folder / "t.csv"
    for cell in ("../elsewhere/a.png", "x/../../elsewhere/a.png"):
        table.write_text(f"image,label\n{cell},a.png\n")
        with pytest.raises(TrainingDataError, match=r"within .* or an absolute one"):
            pairs_in_table(table, NOTHING)
    table.write_text(f"image,label\n{outside},a.png\n")
    assert len(pairs_in_table(table, NOTHING).pairs) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns image, label, got an empty file"),
        ("image,mask\na,b\n", "columns image, label, got image, mask"),
        ("image,label\nlost.png,a.png\n", r"lost\.png does not exist"),
        ("image,label\n,a.png\n", "empty cell"),
        ("image,label\na.png,a.png,train\n", "expected 2 cells per row, got 3 in row 2"),
        ("image,label\n", "^$"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, text, message):
    write(tmp_path / "a.png")
    table = tmp_path / "t.csv"
    table.write_text(text)
    if message == "^$":
        assert pairs_in_table(table, NOTHING).pairs == ()
        return
    with pytest.raises(TrainingDataError, match=message):
        pairs_in_table(table, NOTHING)


def test_a_table_that_is_no_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"image,label\n\xff\xfe\n")
    with pytest.raises(TrainingDataError, match="UTF-8"):
        pairs_in_table(tmp_path / "t.csv", NOTHING)


def test_a_single_image_and_the_labels_beside_it(tmp_path):
    image = write(tmp_path / "a.png")
    with pytest.raises(TrainingDataError, match=r"a_labels\.tif, got none"):
        pair_of_files(image, NOTHING)
    write(tmp_path / "a_labels.png")
    assert names(pair_of_files(image, NOTHING)) == ["a"]
    write(tmp_path / "a_classes.png")
    with pytest.raises(TrainingDataError, match=r"got a_classes\.png, a_labels\.png"):
        pair_of_files(image, NOTHING)
    chosen = pair_of_files(image, Choice("a_classes.png")).pairs[0]
    assert chosen.labels.name == "a_classes.png"


@pytest.mark.parametrize("text", ["value,name\nx,a\n", "value,name\n", "value,name\n1,a\n1,b\n"])
def test_tables_of_classes_that_cannot_be_read(tmp_path, text):
    folder = make(tmp_path, "a", "a")
    (folder / "classes.csv").write_text(text)
    with pytest.raises(TrainingDataError, match=r"classes\.csv"):
        pairs_in_folder(folder, NOTHING)


def test_capitals_in_names_of_folders_and_files_do_not_matter(tmp_path):
    write(tmp_path / "Images" / "A1.PNG")
    write(tmp_path / "LABELS" / "a1_Mask.png")
    found = pairs_in_folder(tmp_path, NOTHING)
    assert [(p.name, p.labels.name) for p in found.pairs] == [("A1", "a1_Mask.png")]
    image, _ = write(tmp_path / "x" / "B.png"), write(tmp_path / "x" / "B_Labels.png")
    assert pair_of_files(image, NOTHING).pairs[0].labels.name == "B_Labels.png"


def test_capitals_tell_files_apart_where_both_are_there(tmp_path):
    if write(tmp_path / "x.png") and (tmp_path / "X.png").exists():
        pytest.skip("this file system does not tell capitals apart")
    found = pairs_in_folder(make(tmp_path, "a A", "A_mask"), NOTHING)
    assert [(p.name, p.labels.name) for p in found.pairs] == [("A", "A_mask.png")]
    write(tmp_path / "b.png")
    write(tmp_path / "b_labels.png")
    write(tmp_path / "B_labels.png")
    found = pair_of_files(tmp_path / "b.png", NOTHING)
    assert found.pairs[0].labels.name == "b_labels.png"
    write(tmp_path / "B.png")
    (tmp_path / "b_labels.png").unlink()
    with pytest.raises(TrainingDataError, match="got none"):
        pair_of_files(tmp_path / "b.png", NOTHING)


def test_the_labels_beside_an_image_are_an_image(tmp_path):
    image, _ = write(tmp_path / "b.png"), write(tmp_path / "b_Mask.png")
    (tmp_path / "b_mask.txt").write_text("notes")
    assert pair_of_files(image, NOTHING).pairs[0].labels.name == "b_Mask.png"


def test_images_of_a_table_have_their_own_normalisation(tmp_path):
    write(tmp_path / "a.png", 50), write(tmp_path / "l.png")
    table = tmp_path / "t.csv"
    table.write_text("image,label,normalisation\na.png,l.png,range:0:100\n")
    assert pairs_in_table(table, NOTHING).pairs[0].normalisation == Normalisation("range", 0, 100)
    table.write_text("image,label,normalisation\na.png,l.png,bright\n")
    with pytest.raises(TrainingDataError, match=r"t\.csv: .*MODE:LOW:HIGH.*'bright'"):
        pairs_in_table(table, NOTHING)


def test_paths_and_capitals_in_a_table_of_splits(tmp_path):
    folder = make(tmp_path, "a b C", "a b C")
    (folder / "splits.csv").write_text(
        "split,image\ntrain,images\\a.png\nval,images/b.png\ntest,c.PNG\n"
    )
    found = pairs_in_folder(folder, NOTHING)
    assert [(p.name, p.split) for p in found.pairs] == [("a", "train"), ("b", "val"), ("C", "test")]
    assert found.warnings == ()


def test_names_of_results_are_names_of_labels(tmp_path):
    """What `predict` writes for ``a.ome.tif`` and for a folder of slices can be learnt from."""
    plane = np.ones((6, 8), np.uint8)
    for name in ("images/a.ome.tif", "labels/a_labels.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / name, plane)
    for number in range(2):
        write(tmp_path / "images" / "cube" / f"s{number}.png")
        (tmp_path / "labels" / "cube").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "labels" / "cube" / f"s{number}_labels.tif", plane)
    write(tmp_path / "labels" / "cube" / "s0_overlay.png")
    found = pairs_in_folder(tmp_path, NOTHING)
    assert names(found) == ["a.ome", "cube[0]", "cube[1]"]
    assert not found.warnings
    tifffile.imwrite(tmp_path / "images" / "a_labels.tif", plane)
    (pair,) = pair_of_files(tmp_path / "images" / "a.ome.tif", NOTHING).pairs
    assert (pair.name, pair.labels.name) == ("a.ome", "a_labels.tif")
    # Labels that are called like all of it go first.
    for folder in ("images", "labels"):
        tifffile.imwrite(tmp_path / folder / "a.ome_labels.tif", plane)
    (tmp_path / "images" / "a_labels.tif").unlink()
    (pair,) = pair_of_files(tmp_path / "images" / "a.ome.tif", NOTHING).pairs
    assert pair.labels.name == "a.ome_labels.tif"
    (tmp_path / "images" / "a.ome_labels.tif").unlink()
    assert pairs_in_folder(tmp_path, NOTHING).pairs[0].labels.name == "a.ome_labels.tif"

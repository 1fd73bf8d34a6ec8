from __future__ import annotations

import os

import numpy as np
import pytest

from phasesam.cli import results as results_module
from phasesam.cli.results import ResultFiles, prepare_folder, refuse_to_replace, write_results
from phasesam.cli.segmentation import ImageResult
from phasesam.core.errors import SaveError
from phasesam.core.mask_set import MaskSet
from phasesam.core.measurements import measure
from phasesam.formats.coco import CocoImage


def test_names_of_the_files(tmp_path):
    files = ResultFiles.of(tmp_path, "a", coco=True)
    assert [os.path.basename(p) for p in files.as_dict().values()] == [
        "a_labels.tif",
        "a_overlay.png",
        "a_objects.csv",
        "a_coco.json",
    ]
    assert "coco" not in ResultFiles.of(tmp_path, "a").as_dict()


def test_completeness(tmp_path):
    files = ResultFiles.of(tmp_path, "a")
    files.labels.touch()
    assert files.existing() == [files.labels]
    assert not files.are_complete()
    files.overlay.touch()
    files.objects.touch()
    assert files.are_complete()


def test_existing_results_are_not_replaced_silently(tmp_path):
    files = ResultFiles.of(tmp_path, "a")
    refuse_to_replace([files])
    files.objects.touch()
    with pytest.raises(SaveError, match="--overwrite"):
        refuse_to_replace([files])


LABELS = np.kron(np.array([[1, 0], [0, 2]]), np.ones((4, 4))).astype(np.int32)
RESULT = ImageResult(
    LABELS,
    np.zeros((8, 8, 3), np.uint8),
    LABELS,
    measure(LABELS),
    coco=(CocoImage(MaskSet.from_labels(LABELS), "a.tif"),),
)


def test_all_files_of_an_image_appear(tmp_path):
    files = ResultFiles.of(tmp_path, "a", coco=True)
    write_results(RESULT, files)
    assert files.are_complete()
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    "name", ["save_labels_tiff", "save_overlay_png", "save_coco", "save_table_csv"]
)
def test_failed_writing_leaves_all_older_files(tmp_path, monkeypatch, name):
    files = ResultFiles.of(tmp_path, "a", coco=True)
    for path in files.as_dict().values():
        with open(path, "w") as file:
            file.write("old")

    def disk_full(path, *args, **kwargs):
        raise SaveError(f"could not write {path}: No space left on device")

    monkeypatch.setattr(results_module, name, disk_full)
    with pytest.raises(SaveError) as caught:
        write_results(RESULT, files)
    assert str(tmp_path / "a_") in str(caught.value)
    assert {path.read_text() for path in files.existing()} == {"old"}
    assert len(list(tmp_path.iterdir())) == 4


def test_folder_in_the_place_of_one_file_keeps_the_others(tmp_path):
    files = ResultFiles.of(tmp_path, "a")
    files.labels.write_text("old")
    files.objects.mkdir()
    with pytest.raises(SaveError, match=r"a_objects\.csv: there is a folder"):
        write_results(RESULT, files)
    assert files.labels.read_text() == "old"


def test_output_folder_that_vanished(tmp_path):
    with pytest.raises(SaveError, match="gone"):
        write_results(RESULT, ResultFiles.of(tmp_path / "gone", "a"))


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_links_and_permissions_of_older_files_stay(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "kept.tif").write_text("old")
    (tmp_path / "kept.tif").chmod(0o640)
    files = ResultFiles.of(tmp_path / "out", "a")
    files.labels.symlink_to(tmp_path / "kept.tif")
    write_results(RESULT, files)
    assert files.labels.is_symlink()
    assert (tmp_path / "kept.tif").read_bytes()[:2] == b"II"
    assert (tmp_path / "kept.tif").stat().st_mode & 0o777 == 0o640


def test_folder_is_made_and_left_empty(tmp_path):
    prepare_folder(tmp_path / "new" / "deep")
    assert list((tmp_path / "new" / "deep").iterdir()) == []


def test_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(SaveError, match="output folder"):
        prepare_folder(tmp_path / "taken")


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0,
                    reason="root may write everywhere")  # fmt: skip
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(SaveError, match="output folder"):
            prepare_folder(tmp_path)
    finally:
        tmp_path.chmod(0o700)

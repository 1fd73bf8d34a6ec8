from __future__ import annotations

import os

import pytest

from phasesam.cli.results import ResultFiles, prepare_folder, refuse_to_replace
from phasesam.core.errors import SaveError


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

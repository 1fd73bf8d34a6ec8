from __future__ import annotations

from pathlib import Path

import pytest

from phasesam.cli.inputs import choose_planes, find_jobs, parse_pixel_size, parse_planes
from phasesam.core.errors import InvalidSettingError


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(inputs, **options):
    return {j.source.name: j.name for j in find_jobs([str(i) for i in inputs], **options)}


def test_folder_gives_its_images_in_natural_order(tmp_path):
    touch(tmp_path, "s10.tif", "s2.tif", "notes.txt", ".hidden.tif", "below/deep.tif")
    assert list(found([tmp_path])) == ["s2.tif", "s10.tif"]
    assert "deep.tif" in found([tmp_path], recursive=True)


def test_own_results_are_not_inputs_unless_named(tmp_path):
    touch(tmp_path, "a.tif", "a_labels.tif", "a_overlay.png")
    assert list(found([tmp_path])) == ["a.tif"]
    assert list(found([tmp_path / "*.tif"])) == ["a.tif"]
    assert list(found([tmp_path / "a_labels.tif"])) == ["a_labels.tif"]


def test_images_are_found_by_content_too(tmp_path):
    (tmp_path / "image.dat").write_bytes(b"II*\x00" + bytes(20))
    touch(tmp_path, "volume.zarr/zarr.json", "broken.tif")
    assert list(found([tmp_path])) == ["broken.tif", "image.dat", "volume.zarr"]
    assert list(found([tmp_path / "volume.zarr"])) == ["volume.zarr"]


def test_glob_and_literal_brackets(tmp_path):
    touch(tmp_path, "a1.tif", "a2.tif", "b.tif", "odd[1].tif")
    assert list(found([tmp_path / "a*.tif"])) == ["a1.tif", "a2.tif"]
    assert list(found([tmp_path / "odd[1].tif"])) == ["odd[1].tif"]


def test_same_file_twice_is_one_job(tmp_path):
    touch(tmp_path, "a.tif")
    assert len(find_jobs([str(tmp_path / "a.tif"), str(tmp_path)])) == 1


def test_folder_as_stack(tmp_path):
    touch(tmp_path, "scan/s1.tif", "scan/s2.tif")
    (job,) = find_jobs([str(tmp_path / "scan")], folder_is_stack=True)
    assert (job.source.name, job.name) == ("scan", "scan")


def test_missing_input_stays_in_the_batch_with_a_reason(tmp_path):
    touch(tmp_path, "a.tif")
    inputs = [str(tmp_path / "a.tif"), str(tmp_path / "gone.tif"), str(tmp_path / "x*.tif")]
    jobs = find_jobs(inputs)
    assert [bool(job.missing) for job in jobs] == [False, True, True]


@pytest.mark.parametrize("name", ["gone.tif", "x*.tif", "empty"])
def test_nothing_to_read_at_all_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidSettingError, match=f"nothing to read: .*{name[:2]}"):
        find_jobs([str(tmp_path / name)])


@pytest.mark.parametrize("method", ["is_dir", "iterdir"])
def test_folder_without_permission(tmp_path, monkeypatch, method):
    touch(tmp_path, "open/a.tif", "shut/b.tif")
    genuine = getattr(Path, method)

    def refuse(path, *args, **kwargs):
        if path.name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return genuine(path, *args, **kwargs)

    monkeypatch.setattr(Path, method, refuse)
    jobs = find_jobs([str(tmp_path / "open"), str(tmp_path / "shut")])
    assert [job.missing for job in jobs] == ["", "cannot be read: Permission denied"]
    with pytest.raises(InvalidSettingError, match="shut: cannot be read: Permission denied"):
        find_jobs([str(tmp_path / "shut")])


def test_folder_without_permission_below_others(tmp_path, monkeypatch):
    touch(tmp_path, "a.tif", "shut/b.tif")
    genuine = Path.is_file

    def refuse(path):
        if path.parent.name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return genuine(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    assert [(j.source.name, j.missing) for j in find_jobs([str(tmp_path)])] == [("a.tif", "")]
    jobs = find_jobs([str(tmp_path)], recursive=True)
    assert [bool(j.missing) for j in jobs] == [False, True]


def test_the_present_folder_has_a_name(tmp_path, monkeypatch):
    touch(tmp_path, "scan/s1.tif", "empty/notes.txt")
    monkeypatch.chdir(tmp_path / "scan")
    (job,) = find_jobs(["."], folder_is_stack=True)
    assert (job.source.name, job.name) == ("scan", "scan")
    assert [job.source.name for job in find_jobs(["."])] == ["s1.tif"]
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InvalidSettingError, match="empty: the folder contains no images"):
        find_jobs(["."])


def test_equal_stems_get_different_names(tmp_path):
    touch(tmp_path, "x.tif", "x.png", "y.tif", "one/z.tif", "two/z.tif")
    names = found([tmp_path / "x.tif", tmp_path / "x.png", tmp_path / "y.tif"])
    assert names == {"x.tif": "x_tif", "x.png": "x_png", "y.tif": "y"}
    jobs = find_jobs([str(tmp_path / "one"), str(tmp_path / "two")])
    assert [job.name for job in jobs] == ["one_z", "two_z"]


def test_names_differ_in_more_than_case(tmp_path):
    touch(tmp_path, "one/a.tif", "two/A.tif")
    names = [j.name for j in find_jobs([str(tmp_path)], recursive=True)]
    assert sorted(names) == ["one_a", "two_A"]


def test_names_that_cannot_be_told_apart_are_refused(tmp_path):
    touch(tmp_path, "a/same/z.tif", "b/same/z.tif")
    with pytest.raises(InvalidSettingError, match="same name"):
        find_jobs([str(tmp_path)], recursive=True)


def test_ome_tiff_loses_both_endings(tmp_path):
    touch(tmp_path, "scan.ome.tif")
    assert list(found([tmp_path]).values()) == ["scan"]


@pytest.mark.parametrize(
    ("text", "micrometres"),
    [("0.012", 0.012), ("12nm", 0.012), ("12 nm", 0.012), ("0.5um", 0.5), ("0.5 µm", 0.5),
     ("2e-3 mm", 2.0), ("3E-1", 0.3)],
)  # fmt: skip
def test_pixel_size(text, micrometres):
    size = parse_pixel_size(text)
    assert (size.y, size.x) == pytest.approx((micrometres, micrometres))
    assert size.unit == "um"


@pytest.mark.parametrize("text", ["", "0", "-1", "12 px", "nan", "1.2.3", "abc", "inf"])
def test_pixel_size_refused(text):
    with pytest.raises(InvalidSettingError, match="--pixel-size"):
        parse_pixel_size(text)


@pytest.mark.parametrize(
    ("text", "planes"),
    [("0", [0]), ("0-3", [0, 1, 2, 3]), ("5, 1-2", [1, 2, 5]), ("0-9/4", [0, 4, 8]), ("3,3", [3])],
)
def test_planes(text, planes):
    assert choose_planes(text, 10) == planes


@pytest.mark.parametrize("text", ["", "5-2", "a", "0-4/0", "-1", "1,", "0-²"])
def test_planes_that_make_no_sense(text):
    with pytest.raises(InvalidSettingError, match="--planes expects"):
        parse_planes(text)


@pytest.mark.parametrize("text", ["10", "0-10", "99999999999999999999", "0,3-20/5"])
def test_planes_that_the_stack_lacks(text):
    parse_planes(text)
    with pytest.raises(InvalidSettingError, match="there are 10"):
        choose_planes(text, 10)


def test_a_search_stops_at_images_that_are_folders(tmp_path):
    store = tmp_path / "scans" / "cube.zarr"
    for level in ("0", "1"):
        (store / level).mkdir(parents=True)
        (store / level / ".zarray").write_text("{}")
        (store / level / "0.0.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (store / ".zgroup").write_text("{}")
    touch(tmp_path / "scans", "a.png")
    expected = ["a.png", "cube.zarr"]
    assert sorted(j.source.name for j in find_jobs([tmp_path], recursive=True)) == expected
    pattern = str(tmp_path / "**" / "*")
    assert sorted(j.source.name for j in find_jobs([pattern])) == expected
    assert [j.source.name for j in find_jobs([str(store / "0" / "*.png")])] == ["0.0.png"]

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phasesam.cli.prompts_file import read_prompts
from phasesam.core.errors import InvalidPromptError


def write(tmp_path, content):
    path = tmp_path / "prompts.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_points_and_box_in_image_order(tmp_path):
    path = write(
        tmp_path,
        {"objects": [{"points": [[3, 7], [4, 9]], "labels": [1, 0], "box": [1, 2, 8, 12]}]},
    )
    (item,) = read_prompts(path).for_plane(Path("any.tif"), 0)
    assert item.prompts.points.tolist() == [[3, 7], [4, 9]]
    assert item.prompts.labels.tolist() == [1, 0]
    assert item.prompts.boxes.tolist() == [[1, 2, 8, 12]]


def test_prompts_of_one_image_and_of_one_plane(tmp_path):
    path = write(
        tmp_path,
        {
            "objects": [{"points": [[1, 1]]}],
            "images": {
                "a.tif": {"objects": [{"points": [[2, 2]], "plane": 4}]},
                "b": {"objects": [{"box": [0, 0, 3, 3], "class": "pore", "scale": "group"}]},
            },
        },
    )
    prompts = read_prompts(path)
    assert len(prompts.for_plane(Path("x/a.tif"), 0)) == 1
    assert len(prompts.for_plane(Path("x/a.tif"), 4)) == 2
    assert prompts.for_plane(Path("b.png"), 0)[1].class_name == "pore"
    assert prompts.for_plane(Path("b.png"), 0)[1].scale == "group"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "not valid JSON"),
        ([], "expected"),
        ({}, "expected"),
        ({"objects": []}, "at least one object"),
        ({"objects": {}}, "expected"),
        ({"objects": [3]}, r"objects\[0\]"),
        ({"objects": [{}]}, "points, a box or both"),
        ({"objects": [{"points": [[1, 2]]}, {"points": [[1, 2, 3]]}]}, r"objects\[1\].*shape"),
        ({"objects": [{"points": [[1, 2]], "labels": [2]}]}, "labels must be"),
        ({"objects": [{"points": [[1, 2]], "labels": ["a"]}]}, r"objects\[0\]"),
        ({"objects": [{"box": [5, 5, 1, 1]}]}, "y1 > y0"),
        ({"objects": [{"box": [[0, 0, 1, 1], [0, 0, 2, 2]]}]}, "one box"),
        ({"objects": [{"point": [[1, 2]]}]}, "unknown"),
        ({"objects": [{"points": [[1, 2]], "scale": "huge"}]}, "scale"),
        ({"objects": [{"points": [[1, 2]], "plane": -1}]}, "plane"),
        ({"images": []}, "images"),
        ({"objects": [{"points": [[1, 2]]}], "image": {}}, r"unknown \['image'\]"),
        ({"images": {"a": {"objekts": []}}}, r"images\['a'\]: unknown \['objekts'\]"),
        ({"images": {"a": {"objects": [{}]}}}, r"images\['a'\]"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path, content, message):
    with pytest.raises(InvalidPromptError, match=message):
        read_prompts(write(tmp_path, content))


def test_byte_order_mark_of_windows_editors(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text('{"objects": [{"points": [[1, 2]], "class": "Körner"}]}', encoding="utf-8-sig")
    assert read_prompts(path).shared[0].class_name == "Körner"


def test_names_must_be_those_of_inputs(tmp_path):
    entry = {"objects": [{"points": [[1, 1]]}]}
    prompts = read_prompts(write(tmp_path, {"images": {"a.tif": entry, "b": entry}}))
    prompts.check_names([Path("x/a.tif"), Path("b.png"), Path("c.tif")])
    with pytest.raises(InvalidPromptError, match=r"no inputs: \['b'\].*a\.tif"):
        prompts.check_names([Path("x/a.tif")])


def test_missing_file(tmp_path):
    with pytest.raises(InvalidPromptError, match="cannot read"):
        read_prompts(tmp_path / "none.json")

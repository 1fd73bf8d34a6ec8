from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from phasesam.models.pickles import foreign_import, protocol_of


class Rounding:
    def __reduce__(self):
        return math.floor, (2.5,)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_pickles(tmp_path, protocol):
    path = tmp_path / "plain.pt"
    path.write_bytes(pickle.dumps({"a": OrderedDict(b=1)}, protocol))
    assert protocol_of(path) == protocol
    assert foreign_import(path) is None
    # The second import is made of remembered texts.
    path.write_bytes(pickle.dumps([Path, Rounding(), Path], protocol))
    assert foreign_import(path) == "pathlib.Path"
    path.write_bytes(pickle.dumps(["floor", "math", Rounding()], protocol))
    assert foreign_import(path) == "math.floor"


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_checkpoints(tmp_path, archive, protocol):
    path = tmp_path / "weights.pt"
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": archive}
    weight = torch.nn.Parameter(torch.ones(3))
    torch.save(OrderedDict(a=weight, b=torch.ones(2)), path, **options)
    assert protocol_of(path) == protocol
    assert foreign_import(path) is None
    torch.save({"a": weight, "b": Rounding()}, path, **options)
    assert foreign_import(path) == "math.floor"


def test_other_files_say_nothing(tmp_path):
    path = tmp_path / "x"
    assert protocol_of(path) is None
    assert foreign_import(path) is None
    for content in (b"", b"\x80", b"hello", b"\x80\x04\xff garbage", b"PK\x03\x04"):
        path.write_bytes(content)
        assert foreign_import(path) is None
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    assert protocol_of(path) is None
    assert foreign_import(path) is None

from __future__ import annotations

import sys

import pytest

from phasesam.models.llvm_clash import avoid_llvm_clash


@pytest.fixture(autouse=True)
def no_triton(monkeypatch):
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    yield
    monkeypatch.delitem(sys.modules, "triton", raising=False)


def test_triton_cannot_be_imported_beside_another_llvm(tmp_path):
    maps = tmp_path / "maps"
    maps.write_text("7f00-7f01 r-xp 0 08:01 1 /usr/lib/x86_64-linux-gnu/libLLVM-15.so.1\n")
    assert avoid_llvm_clash(maps)
    with pytest.raises(ImportError):
        import triton  # noqa: F401
    assert avoid_llvm_clash(maps)


def test_triton_stays_otherwise(tmp_path):
    maps = tmp_path / "maps"
    maps.write_text("7f00-7f01 r-xp 0 08:01 1 /usr/lib/libc.so.6\n")
    assert not avoid_llvm_clash(maps)
    assert not avoid_llvm_clash(tmp_path / "there is no such file")
    assert "triton" not in sys.modules

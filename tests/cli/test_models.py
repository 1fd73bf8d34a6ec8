from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from phasesam.cli.app import app
from phasesam.core.errors import CancelledError, CheckpointError, DownloadError
from phasesam.models import registry


def invoke(*args):
    return CliRunner().invoke(app, ["models", *map(str, args)])


def test_list_names_every_model():
    result = invoke("list")
    assert result.exit_code == 0
    for spec in registry.list_models():
        assert spec.name in result.stdout


def test_list_for_scripts():
    entries = {e["name"]: e for e in json.loads(invoke("list", "--json").stdout)}
    assert entries["mobile_sam"]["where"] == "bundled"
    assert entries["tiny"]["where"] == "generated"
    assert entries["sam_vit_b"]["licence"] == "Apache-2.0"


def test_info_shows_the_file_of_a_bundled_model():
    assert "mobile_sam.safetensors" in invoke("info", "mobile_sam").stdout
    entry = json.loads(invoke("info", "mobile_sam", "--json").stdout)
    assert entry["path"].endswith("mobile_sam.safetensors")


@pytest.mark.parametrize("command", [["info"], ["download"]])
def test_unknown_model(command):
    result = invoke(*command, "sam_vit_z")
    assert result.exit_code == 3
    assert "sam_vit_z" in result.stderr


def test_info_shows_addresses_whole(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = invoke("info", "sam_vit_b").stdout.splitlines()
    spec = registry.get_spec("sam_vit_b")
    for value in (spec.url, spec.sha256, spec.source):
        assert any(line.split()[-1] == value for line in lines)


@pytest.mark.parametrize("model", ["mobile_sam", "sam_vit_b"])
def test_spoilt_file_is_noticed(monkeypatch, model):
    def locate(spec, download=True, progress=None, should_stop=None):
        raise CheckpointError("the checksum differs")

    monkeypatch.setattr(registry, "where", lambda spec: "on disk")
    monkeypatch.setattr(registry, "locate", locate)
    result = invoke("download", model)
    assert result.exit_code == 3
    assert "checksum" in result.stderr


def test_download_of_what_is_there_does_nothing():
    result = invoke("download", "mobile_sam", "tiny")
    assert result.exit_code == 0
    assert "mobile_sam: bundled, " in result.stderr
    assert "tiny: generated" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"), [(DownloadError("checksum differs"), 3), (CancelledError("stop"), 130)]
)
def test_failed_and_stopped_downloads(monkeypatch, error, code):
    def locate(spec, download=True, progress=None, should_stop=None):
        progress(1, 10)
        raise error

    monkeypatch.setattr(registry, "locate", locate)
    assert invoke("download", "sam_vit_b").exit_code == code


def test_download_reports_the_file(monkeypatch, tmp_path):
    seen = []

    def locate(spec, download=True, progress=None, should_stop=None):
        progress(5, 10)
        seen.append((spec.name, should_stop()))
        return tmp_path / spec.filename

    monkeypatch.setattr(registry, "locate", locate)
    result = invoke("download", "sam_vit_b")
    assert seen == [("sam_vit_b", False)]
    assert str(tmp_path) in result.stderr


def test_import_use_and_forget(tmp_path):
    import torch

    from phasesam.models.registry import get_spec
    from phasesam.models.sam import build_model

    path = tmp_path / "mine.pt"
    torch.save(build_model(get_spec("mobile_sam")).state_dict(), path)
    result = invoke("import", path, "--name", "mine")
    assert result.exit_code == 0, result.stderr
    assert "vit_tiny" in result.stdout
    assert "mine" in invoke("list").stdout
    assert invoke("import", path, "--name", "mobile_sam").exit_code == 2
    assert invoke("forget", "mine").exit_code == 0
    assert invoke("forget", "mine").exit_code == 3


def test_import_of_something_else(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"no weights at all")
    result = invoke("import", tmp_path / "x.pt", "--name", "x")
    assert result.exit_code == 3
    assert invoke("import", tmp_path / "gone.pt", "--name", "x").exit_code == 3

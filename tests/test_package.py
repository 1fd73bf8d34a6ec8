from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import phasesam

HEAVY = ("torch", "torchvision", "timm", "segment_anything", "napari", "qtpy", "PySide6", "PyQt6")


def in_new_process(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_import_is_fast():
    code = (
        "import time; start = time.perf_counter(); import phasesam; "
        "print(time.perf_counter() - start)"
    )
    assert min(float(in_new_process(code)) for _ in range(5)) < 0.3


@pytest.mark.parametrize(
    "module",
    ["phasesam", "phasesam.core.mask_set", "phasesam.session", "phasesam.formats", "phasesam.cli"],
)
def test_import_loads_neither_torch_nor_a_window_system(module):
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert in_new_process(code).strip() == "[]"


def test_help_is_printed_without_torch():
    code = (
        "import sys\n"
        "from phasesam.cli.app import app\n"
        "try:\n"
        "    app(['segment', '--help'])\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        f"sys.stderr.write(str([m for m in {HEAVY!r} if m in sys.modules]))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stderr.strip() == "[]"
    assert "phasesam segment" in run.stdout


def test_version_is_a_release_number_and_the_installed_one():
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?", phasesam.__version__)
    assert metadata.version("napari-phasesam") == phasesam.__version__


def test_unknown_attribute_is_named():
    with pytest.raises(AttributeError, match="no attribute 'segmenter_factory'"):
        _ = phasesam.segmenter_factory


def test_no_qt_binding_is_required(project_root):
    project = tomllib.loads((project_root / "pyproject.toml").read_text(encoding="utf-8"))
    names = {re.split(r"[<>=!~;\[ ]", d)[0].lower() for d in project["project"]["dependencies"]}
    assert not names & {"pyside6", "pyqt6", "pyqt5", "pyside2", "napari"}
    assert any(d.startswith("PySide6") for d in project["project"]["optional-dependencies"]["all"])


def test_top_level_manifest_is_the_one_of_the_package(project_root):
    inside = (project_root / "src" / "phasesam" / "napari.yaml").read_text(encoding="utf-8")
    link = project_root / "napari.yaml"
    # A checkout without the right to make links holds the path as text instead.
    assert link.read_text(encoding="utf-8") in (inside, "src/phasesam/napari.yaml")


def test_versions_in_citation_and_changelog(project_root):
    citation = (project_root / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {phasesam.__version__}\n" in citation
    headings = re.findall(
        r"^## \[(.+?)\]", (project_root / "CHANGELOG.md").read_text("utf-8"), re.M
    )
    assert headings[0] == "Unreleased"


@pytest.fixture(scope="module")
def archives(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source archive and from it the wheel; skip when there is no build tool."""
    pytest.importorskip("build")
    target = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "checkout"
    shutil.copytree(
        project_root,
        source,
        symlinks=True,
        ignore=shutil.ignore_patterns(".venv", ".git", "dist", "results", "__pycache__"),
    )
    command = [sys.executable, "-m", "build", "--outdir", str(target), str(source)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if run.returncode and re.search("resolv|connection|retries", run.stdout + run.stderr, re.I):
        pytest.skip("the build backend cannot be fetched")
    assert run.returncode == 0, run.stdout + run.stderr
    return target


@pytest.mark.slow
def test_archives_are_complete(archives, project_root):
    check = [sys.executable, str(project_root / "tools" / "check_distribution.py"), str(archives)]
    run = subprocess.run(check, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_wheel_works_on_its_own(archives, tmp_path):
    """Manifest, weights and samples are found in an unpacked wheel, away from the checkout."""
    (wheel,) = archives.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        f"import sys, json; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import phasesam\n"
        "from phasesam.models.registry import get_spec, locate\n"
        "from pathlib import Path\n"
        "home = Path(phasesam.__file__).parent\n"
        "print(json.dumps([str(home), str(locate(get_spec('mobile_sam'))),\n"
        "                  (home / 'napari.yaml').is_file(),\n"
        "                  len(list((home / 'sample_data').glob('*.tif')))]))"
    )
    home, weights, has_manifest, samples = json.loads(in_new_process(code))
    assert Path(home) == tmp_path / "phasesam"
    assert Path(weights).is_relative_to(tmp_path)
    assert has_manifest
    assert samples >= 3

"""What npe2 does not check: unknown menus, missing commands and leading slashes pass in silence."""

from __future__ import annotations

import subprocess
import sys

import pytest
from npe2 import PluginManifest


@pytest.fixture(scope="module")
def manifest():
    return PluginManifest.from_distribution("napari-phasesam")


def test_python_names_exist(manifest):
    manifest.validate_imports()


def test_everything_used_is_defined(manifest):
    contributions = manifest.contributions
    defined = {command.id for command in contributions.commands}
    used = {
        item.command
        for kind in ("widgets", "readers", "writers", "sample_data")
        for item in getattr(contributions, kind) or ()
        if hasattr(item, "command")
    }
    in_menus = {
        item.command
        for items in contributions.menus.values()
        for item in items
        if hasattr(item, "command")
    }
    assert used | in_menus <= defined
    assert defined <= used | in_menus, "a command that nothing offers"


def test_menus_exist_in_napari(manifest):
    from napari._app_model.constants import MenuId

    known = {str(menu) for menu in MenuId.contributables()}
    known |= {submenu.id for submenu in manifest.contributions.submenus or ()}
    assert set(manifest.contributions.menus) <= known


def test_no_key_bindings_that_napari_would_ignore(manifest):
    assert not manifest.contributions.keybindings


def test_docks_and_samples_are_those_in_the_menus(manifest):
    contributions = manifest.contributions
    assert [widget.display_name for widget in contributions.widgets] == [
        "Prompt",
        "Automatic masks",
        "Objects",
        "Phases",
        "Phase ratio",
        "Encoder features",
        "Fine-tune",
        "Models",
    ]
    assert [sample.display_name for sample in contributions.sample_data] == [
        "SEM particles",
        "Three-phase steel",
        "XCT with pores",
    ]


def test_importing_the_docks_loads_no_torch():
    code = (
        "import sys; import phasesam.napari_widgets.prompts, phasesam.napari_widgets.models, "
        "phasesam.napari_widgets.automatic, phasesam.napari_widgets.objects, "
        "phasesam.napari_widgets.finetune, phasesam.napari_widgets.phases, "
        "phasesam.napari_widgets.readers, phasesam.napari_widgets.writers, "
        "phasesam.napari_widgets.sample_data; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

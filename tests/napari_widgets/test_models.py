import threading

import pytest
import torch

from phasesam.core.errors import CancelledError, CheckpointError, InvalidSettingError
from phasesam.models import manager as manager_module
from phasesam.models.manager import ModelManager, get_manager
from phasesam.models.registry import import_checkpoint
from phasesam.models.sam import build_model
from phasesam.napari_widgets import models as models_module
from phasesam.napari_widgets.model_status import choice_text, manager_watch, status_text
from phasesam.napari_widgets.model_table import Choice
from phasesam.napari_widgets.models import ModelsDock
from phasesam.napari_widgets.prompts import PromptDock


@pytest.fixture
def dock(qtbot, viewer_model, monkeypatch, tmp_path):
    monkeypatch.setenv("PHASESAM_CACHE", str(tmp_path))
    get_manager().unload_all()
    get_manager().set_device("cpu")
    dock = ModelsDock(viewer_model)
    qtbot.addWidget(dock)
    yield dock
    get_manager().unload_all()
    get_manager().set_device("auto")


def row(dock, name):
    item = dock.table.row(Choice(name))
    if item is None:
        raise AssertionError(name)
    return [item.text(column) for column in range(4)]


def test_every_model_is_listed_with_place_and_licence(dock):
    assert row(dock, "mobile_sam") == ["MobileSAM ✓", "bundled", "—", "Apache-2.0"]
    assert row(dock, "sam_vit_h")[1].startswith(("↓ 2.", "on disk"))
    assert dock.table.topLevelItemCount() >= 12
    with pytest.raises(AssertionError):
        row(dock, "tiny")


def test_an_imported_model_whose_file_is_gone_can_be_removed(dock, tmp_path):
    torch.save(build_model("tiny").state_dict(), tmp_path / "best.pt")
    spec = import_checkpoint(tmp_path / "best.pt", "steel")
    spec.path.unlink()
    dock.refresh()
    assert row(dock, "steel")[1] == "missing"
    assert choice_text(spec) == "steel (missing)"
    dock.table.select(Choice("steel"))
    assert not dock.download_button.isEnabled()
    assert dock.forget_button.isEnabled()


def test_load_and_unload_show_in_the_table(dock, until):
    dock.table.select(Choice("mobile_sam"))
    assert not dock.unload_button.isEnabled()
    dock.load_button.click()
    until(lambda: not dock.running)
    until(lambda: row(dock, "mobile_sam")[2].startswith("cpu · "))
    assert "MobileSAM is in memory" in dock.footer.result.text()
    assert dock.devices.figures.text().startswith("1 model, ")
    assert "1 model" in dock.header.dot.toolTip()
    dock.unload_button.click()
    until(lambda: row(dock, "mobile_sam")[2] == "—")
    until(lambda: "given back" in dock.footer.result.text())


def test_changes_from_other_threads_arrive(dock, until):
    thread = threading.Thread(target=lambda: get_manager().load("mobile_sam"))
    thread.start()
    until(lambda: row(dock, "mobile_sam")[2] != "—", timeout=60_000)
    thread.join()


def test_download_shows_progress_and_can_be_cancelled(dock, until, monkeypatch):
    gate = threading.Event()
    stopped = []

    def locate(spec, download, progress, should_stop):
        progress(10, 100)
        while not gate.wait(0.01):
            if should_stop():
                stopped.append(spec.name)
                raise CancelledError("stopped")

    monkeypatch.setattr(models_module, "locate", locate)
    dock.table.select(Choice("sam_vit_b"))
    dock.download_button.click()
    until(lambda: dock.footer.bar.value() == 10)
    assert "Downloading SAM ViT-B" in dock.footer.running_text.text()
    dock.footer.cancel.click()
    until(lambda: not dock.running)
    assert stopped == ["sam_vit_b"]
    gate.set()
    dock.download_button.click()
    until(lambda: "SAM ViT-B is on disk" in dock.footer.result.text())


def test_failed_import_says_why(dock, until, tmp_path, monkeypatch):
    def import_checkpoint(path, name):
        raise CheckpointError(f"{path.name} is no checkpoint of the SAM family")

    monkeypatch.setattr(models_module, "import_checkpoint", import_checkpoint)
    dock.import_file(tmp_path / "something else.pt")
    until(lambda: not dock.running)
    assert "something else.pt is no checkpoint" in dock.footer.result.text()
    assert "Traceback" in dock.footer.result.toolTip()


def test_use_switches_all_docks(dock, qtbot, viewer_model):
    prompt = PromptDock(viewer_model)
    qtbot.addWidget(prompt)
    dock.table.select(Choice("sam_vit_b"))
    dock.use_button.click()
    assert prompt.header.model_combo.currentText().startswith("SAM ViT-B")
    assert row(dock, "sam_vit_b")[0] == "SAM ViT-B ✓"
    assert "375 MB" in prompt.header.model_combo.currentText()


def test_device_that_is_not_there_is_refused(dock, until, monkeypatch):
    def refuse(self, device):
        raise InvalidSettingError(f"this computer has no device {device!r}")

    before = dock.devices.device.currentIndex()
    assert before != 3
    with monkeypatch.context() as patch:
        patch.setattr(ModelManager, "set_device", refuse)
        dock.devices.device.setCurrentIndex(3)
        dock.devices.device.activated.emit(3)
        until(lambda: not dock.running)
    assert "no device 'mps'" in dock.footer.result.text()
    assert dock.devices.device.currentIndex() == before, "the old device stays"


def test_memory_budget(dock, until):
    dock.devices.budget.setValue(1.5)
    until(lambda: "1.5 GB" in dock.footer.result.text())
    assert get_manager().budget_bytes == 1_500_000_000
    dock.devices.budget.setValue(0)
    until(lambda: get_manager().budget_bytes != 1_500_000_000)


def test_status_in_words():
    status = get_manager().status()
    assert "In memory: 0 models" in status_text(status)
    assert manager_watch() is manager_watch()


def test_a_new_dock_shows_what_was_chosen_before(qtbot, viewer_model):
    manager = get_manager()
    device, budget = manager.chosen.device, manager.chosen.budget
    manager.set_device("cpu")
    manager.set_budget(2_000_000_000)
    try:
        dock = ModelsDock(viewer_model)
        qtbot.addWidget(dock)
        assert dock.devices.device.currentData() == "cpu"
        assert dock.devices.budget.value() == 2.0
        assert manager.chosen.budget == 2_000_000_000, "showing it chooses nothing"
    finally:
        manager.set_device(device)
        manager.set_budget(budget)


def test_a_senseless_environment_is_told_in_the_dock(qtbot, viewer_model, monkeypatch):
    monkeypatch.setattr(manager_module, "_manager", None)
    monkeypatch.setenv("PHASESAM_DEVICE", "gpu")
    dock = ModelsDock(viewer_model)
    qtbot.addWidget(dock)
    assert "PHASESAM_DEVICE" in dock.footer.result.text()

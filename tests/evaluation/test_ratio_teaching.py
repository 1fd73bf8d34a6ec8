"""Networks learn from the specimen they are tested on, by its amounts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.training.conftest import disc_data

from phasesam.cli.evaluate_ratio import requests_of
from phasesam.core.errors import CancelledError, InvalidSettingError
from phasesam.evaluation import ratio_teaching
from phasesam.evaluation.adapter_scores import Watch
from phasesam.evaluation.ratio_teaching import Teacher
from phasesam.evaluation.ratio_trials import METHODS, Networks, RatioTester
from phasesam.models.adapter_config import AdapterConfig
from phasesam.models.manager import get_manager
from phasesam.training.class_hints import amounts
from phasesam.training.fine_tuning import TrainingSettings
from phasesam.training.run_folder import RunFolder, RunStatus

BY_NAME = {method.name: method for method in METHODS}
IMAGES = tuple(
    replace(image, specimen="a" if number < 2 else "b")
    for number, image in enumerate(disc_data("semantic", 3).images)
)
ASKED = requests_of((0.05,), 2)


@pytest.fixture
def taught(monkeypatch):
    """Examples of each lesson; the adapter that comes out is the one that went in."""
    lessons = []

    def learn(examples, adapter, folder, *, settings, callbacks):
        if any(callback.should_stop() for callback in callbacks):
            raise CancelledError("stopped")
        lessons.append(examples)
        run = RunFolder(folder)
        run.create()
        run.best_file.write_bytes(adapter.read_bytes())
        run.write_status(RunStatus("finished"))

    monkeypatch.setattr(ratio_teaching, "learn_from_ratios", learn)
    return lessons


@pytest.fixture
def plain(tmp_path, make_adapter):
    path = tmp_path / "plain.safetensors"
    make_adapter(path, config=AdapterConfig(rank=2, decoder_rank=2), classes=("ground", "disc"))
    yield path
    get_manager().unload_all()


def teacher(tmp_path, watch=None):
    settings = TrainingSettings(base="tiny", device="cpu")
    return Teacher(IMAGES, tmp_path / "taught", ASKED, settings, watch or Watch())


def asked(image, name, draw=0):
    true = amounts(image.label_array(), 2)
    return next(r for r in ASKED(true) if (r.name, r.draw) == (name, draw))


def test_the_images_of_a_specimen_are_learnt_together_each_with_its_amounts(
    taught, plain, tmp_path
):
    teach = teacher(tmp_path)
    exact, trust, own = (BY_NAME[n] for n in ("taught + exact", "taught + trust", "self-taught"))
    for name in ("true", "swapped", "off by 0.05"):
        first = teach(plain, IMAGES[0], asked(IMAGES[0], name, 0), exact)
        # The second image asks for what was learnt with the first.
        assert teach(plain, IMAGES[1], asked(IMAGES[1], name, 0), exact) == first
    assert len(taught) == 3
    true, swapped, off = taught
    assert [e.name for e in true] == ["disc0", "disc1"]
    shares = [amounts(image.label_array(), 2) for image in IMAGES]
    assert [e.fractions for e in true] == [pytest.approx(share) for share in shares[:2]]
    assert [e.fractions for e in swapped] == [pytest.approx(share[::-1]) for share in shares[:2]]
    assert [e.uncertainty for e in (*true, *swapped, *off)] == [0, 0, 0, 0, 0.05, 0.05]
    teach(plain, IMAGES[0], asked(IMAGES[0], "swapped"), trust)
    assert [e.uncertainty for e in taught[-1]] == [0.1, 0.1]
    teach(plain, IMAGES[2], asked(IMAGES[2], "true"), own)
    assert [(e.name, e.fractions) for e in taught[-1]] == [("disc2", [None, None])]
    before = len(taught)
    teach(plain, IMAGES[2], asked(IMAGES[2], "zero"), own)
    assert len(taught) == before
    teach(plain, IMAGES[0], asked(IMAGES[0], "off by 0.05", 1), exact)
    assert len(taught) == before + 1


def test_maps_are_made_once_for_all_lessons_of_a_specimen(taught, plain, tmp_path, monkeypatch):
    made = []

    def mapped(segmenter, should_stop):
        made.append(segmenter)
        return np.zeros((2, *segmenter.rgb.shape[:2]), np.float32)

    monkeypatch.setattr(ratio_teaching, "mapped", mapped)
    teach, exact = teacher(tmp_path), BY_NAME["taught + exact"]
    for name in ("true", "swapped", "zero"):
        teach(plain, IMAGES[0], asked(IMAGES[0], name), exact)
    assert len(made) == 2
    assert all(e.logits is taught[0][i].logits for lesson in taught for i, e in enumerate(lesson))
    teach(plain, IMAGES[2], asked(IMAGES[2], "true"), exact)
    assert len(made) == 3
    assert [key[2] for key in teach._seen] == ["disc2"]


def test_another_adapter_is_taught_anew(taught, plain, tmp_path, make_adapter):
    teach, request = teacher(tmp_path), asked(IMAGES[2], "true")
    first = teach(plain, IMAGES[2], request, BY_NAME["taught + exact"])
    make_adapter(plain, config=AdapterConfig(rank=3, decoder_rank=2), classes=("ground", "disc"))
    assert teach(plain, IMAGES[2], request, BY_NAME["taught + exact"]) != first
    assert len(taught) == 2


def test_taught_networks_are_asked(taught, plain, tmp_path):
    tester = RatioTester(IMAGES[2], Networks("tiny", {"plain": plain}, 1, teacher(tmp_path)))
    for name in ("true", "swapped"):
        request = asked(IMAGES[2], name)
        found = tester.answer(BY_NAME["taught + exact"], request)
        assert np.abs(found.achieved - request.wanted).max() < 1e-4
        tester.answer(BY_NAME["self-taught"], request)
    assert len(taught) == 3
    with pytest.raises(InvalidSettingError, match="nobody is there to teach"):
        RatioTester(IMAGES[2], Networks("tiny", {"plain": plain})).answer(
            BY_NAME["self-taught"], asked(IMAGES[2], "true")
        )


def test_teaching_can_be_stopped(taught, plain, tmp_path):
    stopped = teacher(tmp_path, Watch(should_stop=lambda: True))
    with pytest.raises(CancelledError):
        stopped(plain, IMAGES[2], asked(IMAGES[2], "true"), BY_NAME["self-taught"])
    assert not taught

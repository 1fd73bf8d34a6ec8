"""The adapters that come with PhaseSAM, on the samples that come with it."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from phasesam.core.ratio import solve
from phasesam.engines.phase_hints import PhaseHints, takes_ratio
from phasesam.engines.segmenter import Segmenter
from phasesam.engines.semantic import segment_classes
from phasesam.evaluation.phase_maps import score_phase_map
from phasesam.models import adapter_store
from phasesam.models.adapter_card import read_card
from phasesam.models.adapters import load_trainable
from phasesam.models.sam import build_model
from phasesam.simulation.samples import load_sample

# Name, sample, value of the first class in the sample, least mean IoU.
BUNDLED = (("steel_phases", "three_phase_steel", 1, 0.85), ("xct_phases", "xct_pores", 0, 0.8))
LARGEST = 6_000_000


@pytest.fixture
def folder(no_bundled_adapters):
    return no_bundled_adapters()


@pytest.mark.parametrize(("name", "sample", "first", "least"), BUNDLED)
def test_they_fit_the_bundled_model_and_say_what_they_are(folder, name, sample, first, least):
    path = folder / f"{name}.safetensors"
    card = read_card(path)
    assert (card.base, card.task) == ("mobile_sam", "semantic")
    assert card.classes == load_sample(sample).class_names[first:]
    assert card.details["licence"] == "Apache-2.0"
    assert takes_ratio(card)
    # Embeddings of the base serve them, too.
    assert card.config.encoder == ()
    assert path.stat().st_size < LARGEST
    load_trainable(build_model("mobile_sam"), path)


def test_users_see_them(folder, monkeypatch):
    monkeypatch.setattr(adapter_store, "bundled_folder", lambda: folder)
    assert {name for name, *_ in BUNDLED} <= {e.name for e in adapter_store.list_adapters()}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sample", "first", "least"), BUNDLED)
def test_they_map_their_samples(folder, name, sample, first, least):
    micrograph = load_sample(sample)
    image, truth = micrograph.image, micrograph.classes.astype(np.int32) - first
    if image.ndim == 3:
        image, truth = image[len(image) // 2], truth[len(truth) // 2]
    image, truth = image[:512, :512], truth[:512, :512]
    path = str(folder / f"{name}.safetensors")
    seg = Segmenter(image, "mobile_sam", adapter=path, exclude_data_bar=False)
    kept = {}
    found = segment_classes(seg, keep_probabilities=True, embeddings=kept)
    n = len(found.classes)
    assert score_phase_map(found.labels.astype(np.int32), truth, n).mean_iou > least
    true = np.bincount(truth.ravel(), minlength=n) / truth.size
    hints = PhaseHints(true.tolist())
    told = segment_classes(seg, keep_probabilities=True, embeddings=kept, hints=hints)
    labels = solve(np.log(np.maximum(told.probabilities, 1e-30)), true.tolist()).labels
    scores = score_phase_map(labels.astype(np.int32), truth, n)
    assert scores.mean_iou > least
    assert np.abs(scores.fraction_errors).max() < 1e-4


def test_half_the_digits_are_enough(tmp_path, make_adapter, project_root):
    script = project_root / "tools" / "train_bundled_adapters.py"
    spec = importlib.util.spec_from_file_location("train_bundled_adapters", script)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    whole = make_adapter(tmp_path / "whole.safetensors", classes=("a", "b"))
    tool.halved(whole, tmp_path / "half.safetensors")
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * whole.stat().st_size
    assert read_card(tmp_path / "half.safetensors") == read_card(whole)
    models = [
        load_trainable(build_model("tiny"), path)[0]
        for path in (whole, tmp_path / "half.safetensors")
    ]
    for one, two in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-3)

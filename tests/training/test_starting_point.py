from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.conftest import brief_recipe, disc_data

from phasesam.core.errors import CancelledError, CheckpointError, TrainingDataError
from phasesam.models.adapter_card import read_card
from phasesam.training.fine_tuning import TrainingSettings, train
from phasesam.training.going_back import decisive_parts, training_key
from phasesam.training.recipes import Recipe
from phasesam.training.run_folder import RunFolder
from phasesam.training.starting_point import content_key, going_on, learnt_before
from phasesam.training.trainer import Callback, Progress


def settings(recipe: Recipe, start: str = "", **changes: str) -> TrainingSettings:
    return TrainingSettings(
        recipe, base="tiny", device="cpu", precision="fp32", start=start, **changes
    )


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    brief = brief_recipe()
    few = replace(
        brief, epochs=1, adapter=replace(brief.adapter, rank=3),
        views=replace(brief.views, window=96),
    )  # fmt: skip
    return train(disc_data("semantic"), tmp_path_factory.mktemp("first"), settings(few)).path


def test_an_adapter_is_trained_further(first: Path, tmp_path: Path, brief: Recipe) -> None:
    still = replace(
        brief.optimiser, lr_encoder=1e-12, lr_decoder=1e-12, lr_heads=1e-12, weight_decay=0.0
    )
    further = replace(brief, epochs=1, views_per_epoch=1, optimiser=still, detail_steps=5)
    result = train(disc_data("semantic", 3), tmp_path / "then", settings(further, str(first)))
    old, new = load_file(first), load_file(result.path)
    assert old.keys() == new.keys()
    # With rates of nothing it ends where it began: neither anew, nor with another head start.
    assert all(torch.allclose(old[k], new[k], atol=1e-6) for k in old)
    assert result.card.config == read_card(first).config
    assert result.card.config.rank == 3
    assert (result.card.window, result.card.details["stretch"]) == (96, True)
    assert result.card.details["start"] == content_key(str(first))
    details = read_card(first).details
    assert (details["start"], details["learnt_before"]) == ("", {})
    # Of whom it is the heir: what that has learnt from is no test for it.
    learnt = {key for name, key in details["picture_keys"].items()}
    assert result.card.details["learnt_before"] == {"pictures": sorted(learnt), "specimens": []}
    assert learnt <= set(learnt_before(str(result.path))["pictures"])


def test_only_what_fits_is_gone_on_from(first: Path, tmp_path: Path, brief: Recipe) -> None:
    base_hash, start = read_card(first).base_hash, settings(brief, str(first))
    with pytest.raises(TrainingDataError, match=r"semantic \(class 0, class 1\), got instance"):
        going_on(start, disc_data("instance"), base_hash)
    others = replace(disc_data("semantic"), classes=("matrix", "pore"))
    with pytest.raises(TrainingDataError, match=r"got semantic \(matrix, pore\)"):
        train(others, tmp_path / "no", start)
    with pytest.raises(CheckpointError, match="other weights"):
        going_on(start, disc_data("semantic"), "0" * 64)
    (tmp_path / "text.safetensors").write_text("no adapter")
    with pytest.raises(CheckpointError):
        going_on(
            settings(brief, str(tmp_path / "text.safetensors")), disc_data("semantic"), base_hash
        )


def test_the_start_is_part_of_what_a_training_is(
    first: Path, tmp_path: Path, brief: Recipe
) -> None:
    data = disc_data("semantic")
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(first.read_bytes())
    starts = ("", str(first), str(moved))
    keys = [training_key(decisive_parts(data, settings(brief, s), "b")) for s in starts]
    assert keys[0] != keys[1] == keys[2]
    start = settings(brief, str(first))
    assert TrainingSettings.from_dict(start.to_dict()) == start


def test_a_result_may_be_the_start_of_the_next_training_in_its_folder(
    first: Path, tmp_path: Path, brief: Recipe
) -> None:
    run, data = RunFolder(tmp_path / "run"), disc_data("semantic")
    run.create()
    run.best_file.write_bytes(first.read_bytes())
    again = settings(brief, str(run.best_file))

    class Stop(Callback):
        def __init__(self, after: str) -> None:
            self.after, self.seen = after, ""

        def on_step(self, progress: Progress, loss: float) -> None:
            self.seen = self.seen or "step"

        def on_epoch(self, progress: Progress, row: Any, preview: Any) -> None:
            self.seen = "epoch"

        def should_stop(self) -> bool:
            return self.seen == self.after

    with pytest.raises(CancelledError):
        train(data, run.path, again, callbacks=[Stop("step")])
    assert run.best_file.read_bytes() == first.read_bytes(), "till there is a better one"
    with pytest.raises(CancelledError):
        train(data, run.path, again, resume=True, callbacks=[Stop("epoch")])
    assert run.start_file.read_bytes() == first.read_bytes()
    assert content_key(str(run.best_file)) != content_key(str(first))
    # The start is still what it was, whichever of the two names it is called by.
    result = train(data, run.path, again, resume=True)
    assert result.card.details["start"] == content_key(str(first))
    named = settings(brief, str(run.start_file))
    assert train(data, run.path, named, resume=True).rows == result.rows
    whole = train(data, tmp_path / "whole", settings(brief, str(first)))
    old, new = load_file(whole.path), load_file(result.path)
    assert all(torch.equal(old[k], new[k]) for k in old)

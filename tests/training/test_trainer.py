"""The loop on a problem small enough to be solved by hand: a straight line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from phasesam.core.errors import CancelledError, CheckpointError, SaveError, TrainingError
from phasesam.training.recipes import OptimiserConfig
from phasesam.training.trainer import Callback, Progress, Trainer, TrainerConfig


class Line:
    """Fits y = 3 x; dropout-like noise comes from torch's global generator."""

    def __init__(self) -> None:
        self.slope = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []
        self.scores: list[float] | None = None
        self.poison: int | None = None
        self.modes: list[bool] = []
        self.prepared = 0
        self.prepares = True

    def weights(self) -> dict[str, Tensor]:
        return {"slope": self.slope}

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": [self.slope], "lr": 0.1}]

    def prepare(self, report: Callable[[int, int], None]) -> bool:
        for done in range(1, 4) if self.prepares else ():
            self.prepared += 1
            with torch.no_grad():
                self.slope += 0.1 * torch.rand(1)
            report(done, 3)
        return self.prepares

    def samples(self, epoch: int) -> list[int]:
        return [epoch * 10 + i for i in range(10)]

    def learning(self, on: bool) -> None:
        self.modes.append(on)

    def backward(
        self, samples: Sequence[int], share: float, backward: Callable[[Tensor], None]
    ) -> float:
        self.seen.append(list(samples))
        x = torch.tensor([float(s % 7 + 1) for s in samples])
        noisy = self.slope * x + 0.01 * torch.randn(len(x))
        loss = (noisy - 3 * x).square().sum()
        if self.poison in samples:
            return float("nan")
        backward(loss * share)
        return float(loss.detach())

    def validate(self) -> tuple[dict[str, float], None]:
        if self.scores is not None:
            return {"val_score": self.scores.pop(0)}, None
        return {"val_score": -float((self.slope.detach() - 3).abs())}, None


class Recorder(Callback):
    def __init__(self, stop_at: int | None = None) -> None:
        self.steps: list[int] = []
        self.best: list[float] = []
        self.left: list[float | None] = []
        self.stop_at = stop_at

    def on_step(self, progress: Any, loss: float) -> None:
        self.steps.append(progress.step)
        self.left.append(progress.seconds_left)

    def on_best(self, row: Mapping[str, float]) -> None:
        self.best.append(row["epoch"])

    def should_stop(self) -> bool:
        return bool(self.steps) and self.steps[-1] == self.stop_at


def trainer(line: Line, path: Path | None = None, *callbacks: Callback, **changes: Any) -> Trainer:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"batch": 4, "epochs": 5, "key": "a", "micro_batch": 2, **changes}
    config = TrainerConfig(OptimiserConfig(clip=100.0), checkpoint=path, **settings)
    return Trainer(line, config, Accelerator(cpu=True), callbacks)


def test_learns_and_reports_every_step() -> None:
    line, recorder = Line(), Recorder()
    state = trainer(line, None, recorder, epochs=40).run()
    assert line.slope.item() == pytest.approx(3, abs=0.05)
    assert recorder.steps == list(range(1, 121))
    assert [row["epoch"] for row in state.rows] == list(range(1, 41))
    assert state.rows[-1]["loss"] < state.rows[0]["loss"] / 50
    assert recorder.left[-1] == 0


def test_takes_micro_batches_of_each_batch() -> None:
    line = Line()
    trainer(line, epochs=1).run()
    assert line.seen == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert line.modes == [True, False]


def test_a_step_is_the_same_in_parts() -> None:
    whole, parts = Line(), Line()
    trainer(whole, epochs=3, micro_batch=4).run()
    trainer(parts, epochs=3, micro_batch=1).run()
    assert parts.slope.item() == pytest.approx(whole.slope.item(), abs=1e-5)


@pytest.mark.parametrize("stop_at", [1, 4, 8, 9])
@pytest.mark.parametrize("prepares", [False, True])
def test_resuming_gives_the_same_to_the_last_bit(
    tmp_path: Path, stop_at: int, prepares: bool
) -> None:
    whole, again, fresh = Line(), Line(), Line()
    whole.prepares = again.prepares = fresh.prepares = prepares
    expected = trainer(whole, tmp_path / "a.pt").run()
    with pytest.raises(CancelledError, match="can be resumed"):
        trainer(again, tmp_path / "b.pt", Recorder(stop_at)).run()
    recorder = Recorder()
    second = trainer(fresh, tmp_path / "b.pt", recorder)
    assert second.resume()
    state = second.run()
    assert torch.equal(fresh.slope, whole.slope)
    assert fresh.prepared == 0
    # The last whole step is kept, within an epoch, too.
    assert recorder.steps == list(range(stop_at + 1, 16))
    assert state.best_score == expected.best_score
    assert [r["loss"] for r in state.rows] == [r["loss"] for r in expected.rows]


def test_stops_when_nothing_gets_better() -> None:
    line, recorder = Line(), Recorder()
    line.scores = [0.1, 0.5, 0.5, 0.4, 0.3, 0.2]
    state = trainer(line, None, recorder, epochs=6, patience=2).run()
    assert state.epoch == 4
    assert (state.best_epoch, state.best_score) == (2, 0.5)
    assert recorder.best == [1, 2]


def test_without_scores_the_newest_weights_are_kept() -> None:
    line, recorder = Line(), Recorder()
    line.validate = lambda: ({}, None)  # type: ignore[method-assign]
    state = trainer(line, None, recorder, epochs=3, patience=1).run()
    assert recorder.best == [1, 2, 3]
    assert state.best_score is None


def test_a_loss_that_is_no_number_ends_it_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    line = Line()
    line.poison = 25
    path = tmp_path / "c.pt"
    with pytest.raises(TrainingError, match="learning rate"):
        trainer(line, path).run()
    rescued = Line()
    again = trainer(rescued, path)
    assert again.resume()
    assert again.state.epoch == 2
    assert torch.isfinite(rescued.slope).all()


def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.pt"
    trainer(Line(), path, epochs=1).run()
    before = path.read_bytes()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SaveError, match="No space left"):
        trainer(Line(), path, epochs=1).run()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_refuses_checkpoints_of_other_trainings_and_damaged_ones(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    trainer(Line(), path, epochs=1).run()
    with pytest.raises(CheckpointError, match="other data or settings"):
        trainer(Line(), path, key="b").resume()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="cannot be read"):
        trainer(Line(), path).resume()


def test_the_learning_rate_rises_and_falls() -> None:
    config = OptimiserConfig(warm_up=0.1)
    course = [config.factor(x / 100) for x in range(101)]
    assert max(course) == pytest.approx(1)
    assert course[:10] == sorted(course[:10])
    assert course[10:] == sorted(course[10:], reverse=True)
    assert course[-1] == pytest.approx(0.01)


def test_prepares_once_and_not_again_when_resumed(tmp_path: Path) -> None:
    class Watch(Callback):
        def __init__(self) -> None:
            self.told: list[tuple[int, int]] = []

        def on_prepare(self, done: int, total: int) -> None:
            self.told.append((done, total))

    line, watch = Line(), Watch()
    trainer(line, tmp_path / "c", watch, epochs=2).run()
    assert line.prepared == 3
    assert watch.told == [(1, 3), (2, 3), (3, 3)]
    again = Line()
    longer = trainer(again, tmp_path / "c", epochs=2)
    assert longer.resume()
    longer.run()
    assert again.prepared == 0


def test_checkpoints_from_before_preparations_were_kept_are_read(tmp_path: Path) -> None:
    path = tmp_path / "c"
    trainer(Line(), path, epochs=1).run()
    content = torch.load(path, weights_only=True)
    del content["state"]["is_prepared"]
    torch.save(content, path)
    again = trainer(Line(), path)
    assert again.resume()
    assert (again.state.epoch, again.state.is_prepared) == (1, False)


def test_can_be_stopped_while_it_prepares(tmp_path: Path) -> None:
    class Impatient(Callback):
        def should_stop(self) -> bool:
            return True

    line = Line()
    with pytest.raises(CancelledError, match=r"training was stopped$"):
        trainer(line, tmp_path / "c", Impatient()).run()
    assert (line.prepared, line.seen) == (1, [])
    assert not (tmp_path / "c").exists()


def test_a_pause_does_not_count_as_work(tmp_path: Path) -> None:
    class Pause(Callback):
        def __init__(self) -> None:
            self.left: list[float] = []

        def on_step(self, progress: Progress, loss: float) -> None:
            self.left.append(progress.seconds_left or 0.0)

        def should_stop(self) -> bool:
            if len(self.left) == 1:
                time.sleep(2.0)
            return False

    pause = Pause()
    made = trainer(Line(), tmp_path / "checkpoint.pt", pause)
    made.run()
    assert len(pause.left) > 1
    assert made.state.seconds < 1.9
    assert max(pause.left) < 1.9

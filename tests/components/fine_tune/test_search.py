"""The search in a budget, with a clock that goes on with the steps of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from components.fine_tune.fine_tune import load_parts
from components.fine_tune.rate_search import LEARNING_RATES
from components.fine_tune.search.budget import Budget
from components.fine_tune.search.search import NOTHING_MORE, TIME_OVER, Search
from components.fine_tune.search.search_candidates import search_candidates
from components.fine_tune.search.search_space import find_parts
from regraft_core.formats.manifests.model import CandidatesManifest, ModelManifest
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.training.epoch_graphs import StartedEpoch
from regraft_core.training.loop import Trainer

if TYPE_CHECKING:
    from tests.conftest import Trained


class StepClock:
    """Seconds by the number of training steps: activations in memory take a third of the time."""

    def __init__(self) -> None:
        self.seconds, self.step_s = 0.0, 0.05

    def __call__(self) -> float:
        self.seconds += 1e-3
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StepClock:
    made, run, train = StepClock(), Trainer.run, StartedEpoch.train

    def counted(self: Trainer, settings: Any, order: Any, *others: Any) -> Any:
        made.seconds += made.step_s * len(order) / settings.batch_size
        return run(self, settings, order, *others)

    def counted_steps(self: StartedEpoch, steps: int) -> Any:
        made.seconds += 3 * made.step_s * steps
        return train(self, steps)

    monkeypatch.setattr(Trainer, "run", counted)
    monkeypatch.setattr(StartedEpoch, "train", counted_steps)
    return made


def search(
    dataset: Path, trained: Trained, head: Path, seconds: float, clock: StepClock, **options: Any
) -> Search:
    parts = load_parts(dataset, [trained.features], head)
    budget = Budget(seconds, 0.0, clock)
    return Search(parts, FineTuneOptions(budget="1m", **options), budget, 1.0, clock)


def test_parts_grow_from_the_cut_to_the_whole_backbone(dataset: Path, trained: Trained) -> None:
    parts = load_parts(dataset, [trained.features], trained.head)
    found = find_parts(parts)
    assert found[0].name == f"top from {parts.features.cut}"
    assert found[-1].name == "full"
    assert sorted(part.flops for part in found) == [part.flops for part in found]


def test_parts_that_read_images_can_augment_them(dataset: Path, trained: Trained) -> None:
    parts = load_parts(dataset, [trained.features], trained.head)
    found = find_parts(parts)
    assert found[0].all_views == [""]
    assert found[-1].all_views == ["", "light views with flips", "light views"]
    changed = found[-1].with_views("light views with flips").of(parts).features
    assert (changed.augment, changed.flips) == ("light", True)
    assert found[-1].of(parts).features.augment == "off"
    without = parts.features.model_copy(update={"flips_allowed": False})
    assert find_parts(replace(parts, features=without))[-1].all_views == ["", "light views"]
    chosen = parts.features.model_copy(update={"augment": "strong"})
    assert find_parts(replace(parts, features=chosen))[-1].all_views == ["strong views"]


@pytest.mark.long
def test_a_search_prolongs_what_gains_until_the_time_is_over(
    dataset: Path, trained: Trained, weak_head: Path, clock: StepClock, tmp_path: Path
) -> None:
    """An interrupted search resumes with its trainings and the time that it used."""
    options = {"work_dir": str(tmp_path / "work")}
    found = search(dataset, trained, weak_head, 40.0, clock, **options)
    winner = found.run()
    assert found.stopped == TIME_OVER
    assert 38.0 < clock.seconds < 42.0
    assert winner is not None and winner.against_head.difference < 0
    assert winner.against_head.trainings == len(found.trials)
    first = [trial for trial in found.trials if not trial.first]
    assert [trial.learning_rate for trial in first[:3]] == list(LEARNING_RATES)
    assert {trial.part for trial in first} == {part.name for part in found.space}
    assert winner.trainings[-1].first
    assert winner.trainings[-1].steps >= 3 * winner.trainings[0].steps
    again = search(dataset, trained, weak_head, 40.0, clock, **options)
    same = again.run()
    assert same is not None and (same.part, same.loss) == (winner.part, winner.loss)
    assert [trial.row() for trial in again.trials] == [trial.row() for trial in found.trials]


@pytest.mark.long
def test_without_a_gain_the_search_ends_early_with_the_head(
    dataset: Path, trained: Trained, weak_head: Path, clock: StepClock
) -> None:
    """The learning rate is so low that nothing changes."""
    found = search(dataset, trained, weak_head, 100.0, clock, learning_rate=1e-12)
    before = [value.copy() for value in found.head_weights]
    assert found.run() is None
    assert found.stopped == NOTHING_MORE
    after = found.parts.complete.get_weights()
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.long
def test_the_candidates_are_the_head_and_the_best_training(
    dataset: Path, trained: Trained, weak_head: Path, clock: StepClock, tmp_path: Path
) -> None:
    options = FineTuneOptions(budget="2h", learning_rate=1e-3)
    clock.step_s = 30.0
    manifest = search_candidates(
        dataset, trained.features, weak_head, tmp_path / "c", options, clock
    )
    assert CandidatesManifest.read(tmp_path / "c") == manifest
    head, best = (ModelManifest.read(tmp_path / "c" / name) for name in ("head", "search"))
    assert list(manifest.candidates) == ["head", "search"]
    assert best.requested_strategy == "search" and best.strategy in ("top", "full")
    assert best.validation_loss < head.validation_loss
    assert best.options["learning_rate"] == 1e-3
    measured = best.measurements["search"]
    assert measured["budget_s"] == 7200.0 and len(measured["trials"]) > 2
    assert best.measurements["against_head"]["trainings"] == len(measured["trials"])
    assert measured["stopped"] in best.reasoning[-1]
    assert [epoch.epoch for epoch in best.history[1:]] == list(range(len(best.history) - 1))


def test_a_budget_that_is_used_leaves_the_head_and_says_what_is_needed(
    dataset: Path, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = FineTuneOptions(budget="1s")
    manifest = search_candidates(dataset, trained.features, trained.head, tmp_path / "c", options)
    assert list(manifest.candidates) == ["head"]
    found = ModelManifest.read(tmp_path / "c" / "head")
    assert found.measurements["search"]["trials"] == []
    assert "no time for a first training; a budget of about" in capsys.readouterr().out

"""The precision of a long training on a CPU: steps are timed, and the choice is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from components.fine_tune import training_precision
from components.fine_tune.fine_tune import fine_tune, load_parts
from components.fine_tune.search.part_trainer import PartTrainer
from components.fine_tune.search.search_space import find_parts
from components.fine_tune.training_precision import (
    RunStep,
    Work,
    choose_precision,
    faster_precision,
)
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.runtime.kept_results import KeptResults
from regraft_core.training.mixed_precision import HalfPrecision
from regraft_core.training.model_files import load_model

if TYPE_CHECKING:
    from tests.conftest import Trained

LONG = Work("top", ("a network",), steps=10_000, step_flops=1e12)


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptResults:
    """The results, not the user's own."""
    found = KeptResults(tmp_path / "cache" / "training_precision.json")
    monkeypatch.setattr(training_precision, "KEPT", found)
    return found


class Clock:
    """A clock that only steps and graphs advance, in place of the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Engine:
    """Steps that take given times in each precision, and graphs that take a second.

    The times of a precision repeat.
    """

    def __init__(self, clock: Clock, float32_s: list[float], bfloat16_s: list[float]) -> None:
        self._clock, self._seconds = clock, {"": float32_s, "bfloat16": bfloat16_s}
        self.built: list[HalfPrecision] = []

    def build(self, half: HalfPrecision) -> RunStep:
        self.built.append(half)
        self._clock.now += 1.0
        seconds = self._seconds[half]
        calls = iter(range(10_000))

        def run() -> object:
            self._clock.now += seconds[next(calls) % len(seconds)]
            return None

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(training_precision, "time", made)
    return made


@pytest.mark.parametrize(
    ("float32_s", "bfloat16_s", "chosen"),
    [
        ([0.5], [0.1], "bfloat16"),
        ([0.1], [0.5], ""),
        ([0.1], [0.095], ""),  # not faster by a tenth
        ([0.9, 0.3, 0.5], [0.4, 0.1, 0.4], "bfloat16"),  # the shortest times count
        ([0.9, 0.1, 0.9], [0.1, 0.4], ""),
    ],
)
def test_bfloat16_must_be_faster_by_a_tenth(
    clock: Clock, float32_s: list[float], bfloat16_s: list[float], chosen: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    engine = Engine(clock, float32_s, bfloat16_s)
    found = faster_precision(LONG, engine.build)
    assert found.half == chosen
    times = {"float32_step_s": min(float32_s), "bfloat16_step_s": min(bfloat16_s)}
    measured = found.measurements()
    assert measured.pop("chosen") == (chosen or "float32")
    assert measured == pytest.approx(times)
    assert engine.built == ["", "bfloat16"]
    lines = capsys.readouterr().out.splitlines()
    assert [f"{chosen or 'float32'} is used" in line for line in lines] == [True]


def test_a_result_is_kept_for_the_same_work(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    first = faster_precision(LONG, Engine(clock, [0.5], [0.1]).build)
    capsys.readouterr()
    more = Work("top", LONG.key, LONG.steps + 1, LONG.step_flops)
    slower = Engine(clock, [0.1], [0.5])
    assert faster_precision(more, slower.build) == first
    assert slower.built == []
    assert "measured before on this kind of machine: bfloat16 is used" in capsys.readouterr().out
    other = Work("top", ("another",), LONG.steps, LONG.step_flops)
    assert faster_precision(other, slower.build).half == ""


@pytest.mark.parametrize(
    ("changed", "step_s"),
    [({"steps": 39}, 0.5), ({"seconds": 129.0}, 6.0)],
    ids=["few steps", "a short budget"],
)
def test_work_for_which_measuring_does_not_pay_stays_in_float32(
    clock: Clock, changed: dict[str, Any], step_s: float
) -> None:
    """A measurement of 2 or 13 seconds pays from ten times that on; its result is kept."""
    short = Work(**vars(LONG) | changed)
    engine = Engine(clock, [step_s], [0.1])
    found = faster_precision(short, engine.build)
    assert found.times is not None
    assert found.times.measuring_s == pytest.approx(1 + 2 * step_s)
    assert found.half == "" and found.measurements() == {}
    assert faster_precision(short, engine.build) == found
    assert engine.built == [""]
    assert faster_precision(LONG, engine.build).half == "bfloat16"


def test_in_little_time_only_a_result_that_is_kept_is_used(clock: Clock) -> None:
    little = Work("top", LONG.key, LONG.steps, LONG.step_flops, seconds=119.0)
    engine = Engine(clock, [0.5], [0.1])
    assert faster_precision(little, engine.build).half == ""
    assert engine.built == []
    faster_precision(LONG, engine.build)
    assert faster_precision(little, engine.build).half == "bfloat16"


@pytest.mark.parametrize("value", [3, "bfloat16", {"a": 1}, {"float32_s": -1, "measuring_s": 1},
                                   {"float32_s": "x", "measuring_s": 1}])  # fmt: skip
def test_a_damaged_result_is_measured_again(clock: Clock, kept: KeptResults, value: object) -> None:
    kept.keep(LONG.key, value)
    assert faster_precision(LONG, Engine(clock, [0.5], [0.1]).build).half == "bfloat16"


@pytest.mark.parametrize(
    ("changed", "is_long"),
    [({}, True), ({"step_flops": 1e8}, False), ({"steps": 29, "step_flops": 1e15}, False)],
)
def test_little_work_is_not_measured(changed: dict[str, Any], is_long: bool) -> None:
    assert Work(**vars(LONG) | changed).is_long is is_long


@pytest.fixture
def every_work_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_precision, "LEAST_FLOPS", 0.0)
    monkeypatch.setattr(training_precision, "PAYS", 0)


def keep_result(kept: KeptResults, parts: Any, float32_s: float, bfloat16_s: float) -> None:
    work = training_precision._work(parts, "top", FineTuneOptions(), 1e9)
    times = {"float32_s": float32_s, "measuring_s": 1.0, "bfloat16_s": bfloat16_s}
    kept.keep(work.key, times)


def test_a_resumed_training_keeps_its_precision(
    dataset: Path, trained: Trained, tmp_path: Path, kept: KeptResults, every_work_is_long: None
) -> None:
    """Also where it would be measured otherwise, such as on another machine."""
    parts = load_parts(dataset, [trained.features], trained.head)
    options = FineTuneOptions(work_dir=str(tmp_path / "work"))
    keep_result(kept, parts, 0.5, 0.1)
    first = choose_precision(parts, "top", options)
    assert first.half == "bfloat16"
    keep_result(kept, parts, 0.1, 0.5)
    assert choose_precision(parts, "top", options) == first
    other_seed = options.model_copy(update={"seed": 1})
    assert choose_precision(parts, "top", other_seed).half == ""


@pytest.mark.parametrize(
    ("options", "half"),
    [
        (FineTuneOptions(), "bfloat16"),
        (FineTuneOptions(precision="mixed"), "bfloat16"),
        (FineTuneOptions(precision="float32"), ""),
        (FineTuneOptions(deterministic=True), ""),
    ],
    ids=["auto", "mixed", "float32", "deterministic"],
)
def test_only_auto_without_determinism_follows_the_times(
    dataset: Path, trained: Trained, kept: KeptResults, every_work_is_long: None,
    options: FineTuneOptions, half: HalfPrecision,
) -> None:  # fmt: skip
    parts = load_parts(dataset, [trained.features], trained.head)
    keep_result(kept, parts, 0.5, 0.1)
    assert choose_precision(parts, "top", options).half == half


@pytest.mark.parametrize("strategy", ["top", pytest.param("full", marks=pytest.mark.long)])
def test_measuring_leaves_the_model_as_it_was(
    dataset: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch, every_work_is_long: None,
    strategy: str,
) -> None:  # fmt: skip
    """Also the statistics of BatchNormalization, which follow each step."""
    monkeypatch.setattr(training_precision, "ROUNDS_S", 0.0)
    parts = load_parts(dataset, [trained.features], trained.head)
    before = [variable.numpy() for variable in parts.complete.variables]
    options = FineTuneOptions(batch_norm="adapt", batch_size=8)
    found = choose_precision(parts, strategy, options)
    assert found.times is not None and found.times.bfloat16_s is not None
    for variable, values in zip(parts.complete.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), values)
    assert {layer.dtype_policy.name for layer in parts.backbone.layers} == {"float32"}


@pytest.mark.long
def test_measuring_changes_no_bit_of_a_training_in_float32(
    dataset: Path, trained: Trained, weak_head: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, every_work_is_long: None, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(training_precision, "LEAST_GAIN", 1e9)
    made = {}
    for precision in ("auto", "float32"):
        options = FineTuneOptions(
            fine_tune_epochs=1, learning_rate=1e-3, batch_norm="adapt", mix="mixup",
            precision=precision,
        )  # fmt: skip
        out = tmp_path / precision
        made[precision] = fine_tune(dataset, [trained.features], weak_head, out, options)
        assert ("float32 is used" in capsys.readouterr().out) is (precision == "auto")
    measured = made["auto"].measurements["precision"]
    assert measured["chosen"] == "float32" and measured["bfloat16_step_s"] > 0
    assert "precision" not in made["float32"].measurements
    models = [load_model(tmp_path / name)[0] for name in made]
    for mine, theirs in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_training_uses_the_precision_that_is_faster(
    dataset: Path, trained: Trained, weak_head: Path, tmp_path: Path, kept: KeptResults,
    every_work_is_long: None,
) -> None:  # fmt: skip
    keep_result(kept, load_parts(dataset, [trained.features], weak_head), 0.5, 0.1)
    losses = {}
    for precision in ("auto", "float32"):
        options = FineTuneOptions(fine_tune_epochs=1, learning_rate=1e-3, precision=precision)
        made = fine_tune(dataset, [trained.features], weak_head, tmp_path / precision, options)
        losses[precision] = made.history[-1].loss
    assert losses["auto"] != losses["float32"]
    assert losses["auto"] == pytest.approx(losses["float32"], rel=0.02)


def test_each_part_of_a_search_has_its_precision(
    dataset: Path, trained: Trained, kept: KeptResults, every_work_is_long: None
) -> None:
    parts = load_parts(dataset, [trained.features], trained.head)
    keep_result(kept, parts, 0.5, 0.1)
    first = find_parts(parts)[0]
    rows = np.arange(8)
    losses = {}
    for precision in ("auto", "float32"):
        options = FineTuneOptions(budget="1m", precision=precision)
        trainer = PartTrainer(first, parts, options, 60.0, rows, lambda: 0.0)
        losses[trainer.precision.half] = trainer.head_losses
    assert losses["bfloat16"] != pytest.approx(losses[""], rel=1e-6)
    assert losses["bfloat16"] == pytest.approx(losses[""], rel=0.1, abs=0.05)

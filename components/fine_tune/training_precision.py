"""Whether this processor trains a part faster in bfloat16: steps in both precisions are timed.

Processors with AMX train some networks several times as fast in bfloat16, and those of depthwise
convolutions slower. So long training is preceded by a measurement, whose result is kept for this
kind of machine. A resumed training keeps the precision that it started with.
"""

from __future__ import annotations

import functools
import gc
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import tensorflow as tf

from components.fine_tune.strategies import (
    Parts,
    model_and_data,
    shared_settings,
    training_flops,
    unfreeze,
)
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.options.fine_tune import FineTuneOptions
from regraft_core.formats.options.option_types import MACHINE_OPTIONS
from regraft_core.runtime.kept_results import KeptResults
from regraft_core.runtime.step_reports import log_progress
from regraft_core.training.checkpoint import checkpoint_folder, read_state, write_state
from regraft_core.training.distribution import same_everywhere
from regraft_core.training.loop import Trainer
from regraft_core.training.mixed_precision import (
    HalfPrecision,
    accelerate,
    choose_half_precision,
    gpu_capabilities,
)
from regraft_core.training.training_source import Source, epoch_order
from regraft_core.training.winograd import winograd

KEPT = KeptResults(Path("~/.cache/regraft/training_precision.json"))
LEAST_FLOPS = 1e13
"""Operations of a whole training below which nothing is measured: half a minute on two cores."""
LEAST_S = 120.0
"""Seconds of a training with a limit below which nothing is measured."""
PAYS = 10
"""Training must take so many times as long as the steps in float32 take to measure, so that
measuring both precisions takes at most about a fifth of it, once on each kind of machine."""
LEAST_GAIN = 1.1
FIRST_ROUNDS, ROUNDS, MAX_ROUNDS = 2, 3, 20
ROUNDS_S = 1.0
"""Short steps are timed more often, about so long, because the shortest time counts."""

RunStep = Callable[[], object]
"""Runs one training step, always on the same rows."""


@dataclass(frozen=True)
class Work:
    """A training: what decides the speed of its steps, their number, and the operations of one.

    `seconds` are the most that it may take.
    """

    what: str
    key: tuple[Any, ...]
    steps: int
    step_flops: float
    seconds: float = math.inf

    @property
    def is_long(self) -> bool:
        """Whether it can be long enough to measure it."""
        least_steps = PAYS * (1 + FIRST_ROUNDS)
        return self.steps >= least_steps and self.steps * self.step_flops >= LEAST_FLOPS

    def pays(self, times: StepTimes) -> bool:
        """Return whether it takes long in comparison with the measurement."""
        return min(self.steps * times.float32_s, self.seconds) >= PAYS * times.measuring_s


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a step; `bfloat16_s` is None if the work was too short to measure it.

    `measuring_s` are the seconds that the measurement of float32 took.
    """

    float32_s: float
    measuring_s: float
    bfloat16_s: float | None = None

    @classmethod
    def of_json(cls, values: Any) -> StepTimes | None:
        """Return times that were kept as `asdict` gives them; None if they are damaged."""
        try:
            found = cls(**values)
            numbers = [found.float32_s, found.measuring_s, found.bfloat16_s or 1.0]
            return found if all(0 < float(number) < math.inf for number in numbers) else None
        except (TypeError, ValueError):
            return None


@dataclass(frozen=True)
class TrainingPrecision:
    """The half precision of a training, "" for float32, and the times that decided, if any."""

    half: HalfPrecision
    times: StepTimes | None = None

    def measurements(self) -> dict[str, Any]:
        """Return the choice for the manifest, empty if both precisions were not measured."""
        if self.times is None or self.times.bfloat16_s is None:
            return {}
        return {
            "chosen": self.half or "float32",
            "float32_step_s": self.times.float32_s,
            "bfloat16_step_s": self.times.bfloat16_s,
        }


def half_precision(options: FineTuneOptions) -> HalfPrecision:
    """Return the half precision of a training, unless it is measured.

    Processes that train together compute in float32 if their GPUs would choose differently.
    """
    half = choose_half_precision(options.precision, gpu_capabilities())
    halves = get_args(HalfPrecision)
    return half if same_everywhere(halves.index(half), len(halves)) else ""


def is_measured(options: FineTuneOptions) -> bool:
    """Return whether steps are timed: without GPUs, and if no other machine shares the training.

    Times differ from run to run, so a deterministic training stays in float32.
    """
    alone = tf.distribute.get_strategy().num_replicas_in_sync == 1
    auto = options.precision == "auto" and not options.deterministic
    return auto and alone and not gpu_capabilities()


def choose_precision(
    parts: Parts, strategy: str, options: FineTuneOptions, seconds: float = math.inf
) -> TrainingPrecision:
    """Return the half precision of a training.

    Weights are the same afterwards. With a work folder, the first choice for this training is kept
    there.

    Args:
        parts: the input of fine-tuning.
        strategy: what is trained.
        options: of the step; `auto` measures if there is no GPU.
        seconds: the most that the training may take.
    """
    if not is_measured(options):
        return TrainingPrecision(half_precision(options))
    work = _work(parts, strategy, options, seconds)
    if not work.is_long:
        return TrainingPrecision("")
    used = options.model_dump(exclude={*MACHINE_OPTIONS})
    fingerprint = digest_of([parts.head.digest, parts.features.digest, work.key, used])
    folder = checkpoint_folder(options.work_dir, "fine_tune-precision", fingerprint)
    stored = read_state(folder, fingerprint, {}) if folder else None
    if stored is not None:
        metadata = stored[0]
        return TrainingPrecision(metadata["half"], StepTimes.of_json(metadata["times"]))
    before = [(variable, variable.numpy()) for variable in parts.complete.variables]
    try:
        chosen = faster_precision(work, StepBuilder(parts, strategy, options).build)
    finally:
        for variable, values in before:
            variable.assign(values)
        gc.collect()  # the graphs and moments of the measurement
    if folder is not None:
        write_state(folder, fingerprint, 0, {}, asdict(chosen))
    return chosen


def faster_precision(work: Work, build: Callable[[HalfPrecision], RunStep]) -> TrainingPrecision:
    """Return the precision in which a long training takes less time on this processor.

    Args:
        work: the training.
        build: builds a step in a precision.

    Returns:
        bfloat16 if its steps are faster by more than a tenth, otherwise float32.
    """
    kept = StepTimes.of_json(KEPT.find(work.key))
    times = kept
    if work.seconds >= LEAST_S and (
        times is None or (times.bfloat16_s is None and work.pays(times))
    ):
        times = _measure(work, build)
        KEPT.keep(work.key, asdict(times))
    if times is None or times.bfloat16_s is None:
        return TrainingPrecision("", times)
    chosen: HalfPrecision = "bfloat16" if times.bfloat16_s * LEAST_GAIN < times.float32_s else ""
    before = ", measured before on this kind of machine" if times is kept else ""
    log_progress(
        f"fine_tune {work.what}: a step takes {times.float32_s:.3g} s in float32 and "
        f"{times.bfloat16_s:.3g} s in bfloat16{before}: {chosen or 'float32'} is used"
    )
    return TrainingPrecision(chosen, times)


class StepBuilder:
    """Builds training steps of the same model on the same rows, with a learning rate of 0.

    Each can run as often as `rounds` after it was built.
    """

    def __init__(
        self, parts: Parts, strategy: str, options: FineTuneOptions,
        rounds: int = FIRST_ROUNDS + MAX_ROUNDS,
    ) -> None:  # fmt: skip
        self._parts, self._strategy, self._options = parts, strategy, options
        self._calls = 1 + rounds

    def build(self, half: HalfPrecision) -> RunStep:
        """Return a step in a precision, which has run once."""
        parts, options = self._parts, self._options
        with accelerate(parts.backbone.layers, half), winograd(parts.backbone.layers):
            model, source, validation = self._model_and_data
            unfreeze(parts, self._strategy, options, -(-source.count // options.batch_size))
            settings = shared_settings(parts, self._strategy, options, model, source.count, half)
            trainer = Trainer(model, source, validation, settings)
            trainer.begin(settings)
            rows = np.resize(epoch_order(source.count, options.seed, 0), options.batch_size)
            if source.resident is not None:
                run: RunStep = functools.partial(trainer.run, settings, rows, 0)
            else:
                # One input pipeline for all rounds, because starting it takes long.
                reading = trainer.open(settings, np.tile(rows, self._calls), 0)
                run = functools.partial(reading.train, 1)
            run()
        return run

    @functools.cached_property
    def _model_and_data(self) -> tuple[keras.Model, Source, Source]:
        return model_and_data(self._parts, self._strategy, self._options.seed)


def _measure(work: Work, build: Callable[[HalfPrecision], RunStep]) -> StepTimes:
    """Return the shortest times of a step in float32 and, if it pays, in turn with bfloat16."""
    start = time.perf_counter()
    exact = build("")
    float32_s = min(_time(exact) for _ in range(FIRST_ROUNDS))
    times = StepTimes(float32_s, time.perf_counter() - start)
    if not work.pays(times):
        return times
    rounded = build("bfloat16")
    pairs = [(_time(exact), _time(rounded)) for _ in range(_rounds(float32_s))]
    found = np.min(pairs, axis=0).tolist()
    return StepTimes(min(float32_s, found[0]), times.measuring_s, found[1])


def _rounds(step_s: float) -> int:
    return int(np.clip(ROUNDS_S / step_s, ROUNDS, MAX_ROUNDS))


def _time(run: RunStep) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _work(parts: Parts, strategy: str, options: FineTuneOptions, seconds: float) -> Work:
    count = DatasetManifest.read(parts.dataset).splits["train"].count
    cut = parts.features.cut if strategy == "top" else None
    key = (
        parts.head.backbone, parts.head.preprocessing.image_px, strategy, cut, parts.cached,
        parts.head.head["levels"], len(parts.head.classes), options.batch_size, options.batch_norm,
        options.mix,
    )  # fmt: skip
    return Work(
        strategy if cut is None else f"{strategy} from {cut}",
        key,
        options.fine_tune_epochs * -(-count // options.batch_size),
        options.batch_size * training_flops(parts, strategy),
        seconds,
    )

"""Which engine computes a backbone fastest on this machine: all that are possible are measured.

Processors with AMX compute some backbones five times as fast in bfloat16, those without are slower,
and which engine is fastest is not in any table. So long work is preceded by a race of a few
seconds, whose result is kept for this kind of machine, so that the next run has the same features.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import tensorflow as tf

from components.extract_features.engines import STREAMS, Arrays, Engine, Network, difference
from components.extract_features.kept_engines import Kept, Work, keep, read_kept
from regraft_core.images.prefetch import prefetch_map
from regraft_core.runtime.openvino_models import EngineError
from regraft_core.runtime.out_of_memory import first_line
from regraft_core.runtime.step_reports import log_progress

LEAST_PIXELS = 500 * 224**2
"""Pixels of all inputs below which no backbone takes long, so that a race would not pay."""
LEAST_S = 30.0
"""Seconds of the first engine below which a race does not pay."""
LEAST_XLA_PIXELS = 1_000_000 * 224**2
"""Pixels below which XLA is not tried: each run compiles again, which takes up to half a minute."""
LEAST_GAIN = 1.03
"""The first engine is used unless another is faster by this factor."""
LARGEST_ERROR = 0.01
"""Largest norm of the features' difference, relative to that of the first engine's features."""
ROUND_S, ROUNDS = 1.5, 2
"""An engine is measured for this time and at least this number of rounds."""
LOSING = 1.5
"""Time of a round, relative to the shortest of all engines, with which an engine loses at once."""
_SHOWN_ERROR = 1e-4
SPREAD = 1.1
"""Second shortest time relative to the shortest, above which other work has disturbed a race."""


@dataclass(frozen=True)
class ReadyEngine:
    """The engine of an extraction, its network, and the race in a sentence, "" without one."""

    engine: Engine
    network: Network
    sentence: str = ""


@dataclass
class Runner:
    """An engine in a race.

    Attributes:
        engine, network: the engine and its network.
        batch: the pixels that it computes in the race.
        error: difference of its features.
        image_s: seconds per image of each round.
    """

    engine: Engine
    network: Network
    batch: tf.Tensor
    error: float
    image_s: list[float] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether its features are near those of the first engine."""
        return self.error <= LARGEST_ERROR

    @property
    def disturbed(self) -> bool:
        """Whether it has several times, and no second one is near the shortest."""
        times = sorted(self.image_s)[:2]
        return times[-1] > SPREAD * times[0]

    def __str__(self) -> str:
        """Return the rate and the difference."""
        rate = f"{self.engine} {1 / min(self.image_s):.1f}"
        if self.error < _SHOWN_ERROR:
            return rate
        return f"{rate} (difference {self.error:.2%}{', too large' * (not self.agrees)})"


def choose_engine(
    engines: list[Engine], work: Work, build: Callable[[Engine], Network],
    pixels: Callable[[], tf.Tensor], *, alone: bool,
) -> ReadyEngine:  # fmt: skip
    """Return the engine of an extraction, ready to compute.

    It is the one that an earlier race on this machine has chosen for the same work, otherwise the
    fastest of a race if the work is long, otherwise the first.

    Args:
        engines: the possible ones; the first computes short work.
        work: the work.
        build: makes the network of an engine.
        pixels: returns a batch of images.
        alone: no other worker extracts a part of the same features, which belong together. Several
            workers do not race, because each could choose another engine.
    """
    pixels_of_all = work.images * work.image_px**2
    if pixels_of_all < LEAST_XLA_PIXELS:
        engines = [engine for engine in engines if not engine.xla]
    kept = read_kept(work, engines) if len(engines) > 1 else None
    if kept:
        ready = _first_usable([kept.engine, engines[0]], build)
        if ready.engine != kept.engine:
            return ready
        log_progress(f"extract_features: an earlier race is used. {kept.sentence}")
        return ReadyEngine(ready.engine, ready.network, kept.sentence)
    first = _first_usable(engines, build)
    if len(engines) == 1 or not alone or pixels_of_all < LEAST_PIXELS:
        return first
    return race(first, engines, work, build, pixels)


def race(
    first: ReadyEngine, engines: list[Engine], work: Work, build: Callable[[Engine], Network],
    pixels: Callable[[], tf.Tensor],
) -> ReadyEngine:  # fmt: skip
    """Return the fastest engine, or the first if it takes less than `LEAST_S`.

    Args:
        first: the engine that is used unless another is faster.
        engines, work, build, pixels: as for `choose_engine`.
    """
    batch = pixels()
    expected = first.network(batch)
    # A call alone takes at least as long per image as several at once, so short work ends here.
    start = time.perf_counter()
    first.network(batch)
    if work.images * (time.perf_counter() - start) / int(batch.shape[0]) < LEAST_S:
        return first
    runners = [Runner(first.engine, first.network, batch, 0.0)]
    _measure(runners[0], runners)
    if work.images * min(runners[0].image_s) < LEAST_S:
        return first
    for engine in engines:
        # XLA compiles only the engine that is the fastest without it.
        plain = replace(engine, xla=False)
        if engine != first.engine and (plain == engine or plain == _fastest(runners).engine):
            _enter(engine, build, batch, expected, runners)
    if any(runner.disturbed for runner in runners):
        log_progress("extract_features: other work has disturbed the race of engines; repeats it")
        for runner in runners:
            _measure(runner, runners)
    disturbed = any(runner.disturbed for runner in runners)
    fastest = _fastest(runners)
    if min(runners[0].image_s) <= LEAST_GAIN * min(fastest.image_s):
        fastest = runners[0]
    rates = ", ".join(map(str, runners))
    sentence = f"Images per second by engine: {rates}: {fastest.engine} is used"
    sentence += ", although other work disturbed the race." if disturbed else "."
    log_progress(f"extract_features: {sentence}")
    if not disturbed:
        keep(work, engines, Kept(fastest.engine, sentence))
    return ReadyEngine(fastest.engine, fastest.network, sentence)


def _first_usable(engines: list[Engine], build: Callable[[Engine], Network]) -> ReadyEngine:
    """Return the first engine that can compute the network; TensorFlow always can."""
    *others, last = [*engines, Engine("tf", engines[0].half)]
    for engine in others:
        try:
            return ReadyEngine(engine, build(engine))
        except EngineError as error:
            log_progress(f"extract_features: {engine} cannot compute this network: {error}")
    return ReadyEngine(last, build(last))


def _enter(
    engine: Engine, build: Callable[[Engine], Network], batch: tf.Tensor, expected: Arrays,
    runners: list[Runner],
) -> None:  # fmt: skip
    """Measure another engine; report one that cannot compute the network, or not in this memory."""
    count = int(batch.shape[0])
    if engine.batch_size:
        batch = tf.gather(batch, tf.range(engine.batch_size) % count)
    try:
        network = build(engine)
        arrays = {name: array[:count] for name, array in network(batch).items()}
        runner = Runner(engine, network, batch, difference(arrays, expected))
        _measure(runner, [*runners, runner])
    except (EngineError, tf.errors.OpError) as error:
        reason = first_line(error)
        log_progress(f"extract_features: {engine} cannot compute this network: {reason}")
    else:
        runners.append(runner)


def _measure(runner: Runner, runners: list[Runner]) -> None:
    """Add rounds of a runner, until it loses against the shortest of all."""
    best = min((min(one.image_s) for one in runners if one.image_s), default=float("inf"))
    images = STREAMS * int(runner.batch.shape[0])
    spent, rounds = 0.0, 0
    while spent < ROUND_S or rounds < ROUNDS:
        start = time.perf_counter()
        for _ in prefetch_map(runner.network, [runner.batch] * STREAMS, STREAMS):
            pass
        round_s = time.perf_counter() - start
        runner.image_s.append(round_s / images)
        spent, rounds = spent + round_s, rounds + 1
        if min(runner.image_s) > LOSING * best:
            return


def _fastest(runners: list[Runner]) -> Runner:
    return min((one for one in runners if one.agrees), key=lambda one: min(one.image_s))

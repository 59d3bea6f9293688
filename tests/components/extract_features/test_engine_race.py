"""The engine of a long extraction on a CPU: measured, agreed, kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components.extract_features import engine_race, kept_engines
from components.extract_features.engine_race import ReadyEngine, choose_engine
from components.extract_features.engines import Arrays, Engine, Network
from components.extract_features.extract_features import extract_features
from components.extract_features.kept_engines import Work
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.runtime.kept_results import KeptResults
from regraft_core.runtime.openvino_models import EngineError
from regraft_core.training.feature_store import FeatureRows

LONG = Work(("a network",), images=1_000_000, image_px=64, batch_size=2)
FLOAT32, BFLOAT16, OPENVINO = Engine(), Engine("tf", "bfloat16"), Engine("openvino")
ALL = [FLOAT32, BFLOAT16, OPENVINO]


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of results, not the user's own."""
    path = tmp_path / "cache" / "engines.json"
    monkeypatch.setattr(kept_engines, "KEPT", KeptResults(path))
    return path


class Clock:
    """A clock that only networks advance, in place of the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0
        self._lock = threading.Lock()

    def perf_counter(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds


CLOCK = Clock()


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_race, "time", CLOCK)


class Machine:
    """Engines that take a given time for a batch, and whose features differ by `errors`.

    An engine without a time cannot compute the network. Times of a sequence are those of one batch
    after another; the last remains.
    """

    def __init__(
        self,
        seconds: dict[Engine, float | Sequence[float]],
        errors: dict[Engine, float] | None = None,
    ) -> None:
        self._seconds, self._errors = seconds, errors or {}
        self.built: list[Engine] = []
        self.batches: dict[Engine, int] = {}

    def build(self, engine: Engine) -> Network:
        self.built.append(engine)
        if engine not in self._seconds:
            raise EngineError("no such operation")
        given = self._seconds[engine]
        times: Iterator[float] = iter([given] if isinstance(given, float) else given)
        last = 0.0

        def network(pixels: tf.Tensor) -> Arrays:
            nonlocal last
            last = next(times, last)
            CLOCK.advance(last)
            self.batches[engine] = self.batches.get(engine, 0) + 1
            exact = np.ones((len(pixels), 3), np.float32)
            # The large array is exact and does not hide the difference of the small one.
            differing = exact * (1 + self._errors.get(engine, 0.0))
            return {"cut": np.ones((len(pixels), 1000), np.float32), "gap": differing}

        return network

    def choose(
        self, engines: list[Engine] = ALL, work: Work = LONG, *, alone: bool = True
    ) -> ReadyEngine:
        pixels = tf.zeros([work.batch_size, 4, 4, 3])
        return choose_engine(engines, work, self.build, lambda: pixels, alone=alone)


@pytest.mark.parametrize(
    ("seconds", "errors", "chosen"),
    [
        ((0.1, 0.01, 0.05), {}, BFLOAT16),
        ((0.01, 0.1, 0.05), {}, FLOAT32),
        ((0.1, 0.05, 0.01), {}, OPENVINO),
        ((0.1, 0.0999, 0.2), {}, FLOAT32),  # not faster by enough to change the features
        ((0.1, 0.01, 0.05), {BFLOAT16: 0.005}, BFLOAT16),
        ((0.1, 0.01, 0.05), {BFLOAT16: 0.02}, OPENVINO),
        ((0.1, 0.01, 0.2), {BFLOAT16: np.nan}, FLOAT32),
    ],
)
def test_the_fastest_engine_that_agrees_is_chosen(
    seconds: tuple[float, ...], errors: dict[Engine, float], chosen: Engine,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    machine = Machine(dict(zip(ALL, seconds, strict=True)), errors)
    ready = machine.choose()
    assert ready.engine == chosen
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert ready.sentence in lines[0]
    assert f"{chosen} is used" in ready.sentence
    assert all(str(engine) in ready.sentence for engine in ALL)
    assert machine.built == ALL


def test_the_line_has_rates_and_differences(capsys: pytest.CaptureFixture[str]) -> None:
    times = {FLOAT32: 0.1, BFLOAT16: 0.01, OPENVINO: 0.05}
    Machine(times, {BFLOAT16: 0.034, OPENVINO: 0.001}).choose()
    expected = (
        "Images per second by engine: tf float32 20.0, tf bfloat16 200.0 (difference 3.40%, too "
        "large), openvino float32 40.0 (difference 0.10%): openvino float32 is used."
    )
    assert capsys.readouterr().out.endswith(f" {expected}\n")


def test_a_loser_is_stopped_after_a_round() -> None:
    machine = Machine({FLOAT32: 0.02, BFLOAT16: 5.0, OPENVINO: 0.01})
    machine.choose()
    assert machine.batches[BFLOAT16] == 1 + 2
    assert machine.batches[OPENVINO] * 0.01 > 1.5


def test_a_result_is_kept_for_the_same_work(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Machine({FLOAT32: 0.02, BFLOAT16: 0.002, OPENVINO: 0.01}).choose()
    other = Machine({FLOAT32: 0.002, BFLOAT16: 0.02, OPENVINO: 0.01})
    short = replace(LONG, images=3)
    for work, alone in ((LONG, True), (short, True), (LONG, False)):
        capsys.readouterr()
        ready = other.choose(work=work, alone=alone)
        assert (ready.engine, ready.sentence) == (BFLOAT16, first.sentence)
        assert first.sentence in capsys.readouterr().out
    assert other.built == [BFLOAT16] * 3
    for work in (replace(LONG, network=("another",)), replace(LONG, batch_size=4)):
        assert other.choose(work=work).engine == FLOAT32
    assert other.choose([FLOAT32, BFLOAT16]).engine == FLOAT32
    monkeypatch.setattr("importlib.metadata.version", lambda _: "another")
    assert other.choose().engine == FLOAT32
    assert len(json.loads(kept.read_text())) == 5


LARGE = Engine(batch_size=256)
GPU = [FLOAT32, BFLOAT16, LARGE, Engine(xla=True), Engine("tf", "bfloat16", xla=True),
       Engine(batch_size=256, xla=True)]  # fmt: skip


def test_larger_batches_count_by_the_image() -> None:
    """Their batches take 20 times as long, with 128 times as many images."""
    machine = Machine({FLOAT32: 0.01, BFLOAT16: 0.009, LARGE: 0.2})
    assert machine.choose(GPU[:3]).engine == LARGE
    assert machine.choose(GPU[:3], replace(LONG, batch_size=256)).engine == BFLOAT16


def test_xla_compiles_the_fastest_engine_for_long_work() -> None:
    compiled = GPU[4]
    machine = Machine(dict.fromkeys(GPU, 0.1) | {BFLOAT16: 0.02, compiled: 0.01, LARGE: 20.0})
    assert machine.choose(GPU).engine == BFLOAT16
    assert machine.built == [FLOAT32, BFLOAT16, LARGE]
    machine.built.clear()
    for _ in range(2):  # with a race, and with its result
        assert machine.choose(GPU, replace(LONG, image_px=224)).engine == compiled
        assert machine.choose(GPU).engine == BFLOAT16
    assert machine.built == [FLOAT32, BFLOAT16, LARGE, compiled, BFLOAT16, compiled, BFLOAT16]


def test_an_engine_that_exhausts_the_memory_does_not_take_part(
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = Machine({FLOAT32: 0.02, BFLOAT16: 0.01, LARGE: 0.0001})

    def build(engine: Engine) -> Network:
        def exhausted(pixels: tf.Tensor) -> Arrays:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\nmore")

        return exhausted if engine == LARGE else machine.build(engine)

    pixels = tf.zeros([2, 4, 4, 3])
    ready = choose_engine(GPU[:3], LONG, build, lambda: pixels, alone=True)
    assert ready.engine == BFLOAT16
    line = capsys.readouterr().out.splitlines()[0]
    assert line.endswith("256 cannot compute this network: OOM when allocating")


def test_a_result_is_not_used_with_another_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_engines, "gpu_names", lambda: ["NVIDIA A100"])
    Machine({FLOAT32: 0.1, BFLOAT16: 0.01, LARGE: 6.0}).choose(GPU[:3])
    other = Machine({FLOAT32: 0.01, BFLOAT16: 0.1, LARGE: 6.0})
    assert other.choose(GPU[:3]).engine == BFLOAT16
    monkeypatch.setattr(kept_engines, "gpu_names", lambda: ["NVIDIA H100"])
    assert other.choose(GPU[:3]).engine == FLOAT32


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[" * 100_000, b"[1]", b'{"a": 3}', b'{"KEY": 3}', b'{"KEY": {}}']
)
def test_a_damaged_file_of_results_is_replaced(kept: Path, content: bytes) -> None:
    machine = Machine({FLOAT32: 0.02, BFLOAT16: 0.002, OPENVINO: 0.01})
    machine.choose()
    (key,) = json.loads(kept.read_text())
    kept.write_bytes(content.replace(b"KEY", key.encode()))
    machine.built.clear()
    assert machine.choose().engine == BFLOAT16
    assert machine.built == ALL
    assert json.loads(kept.read_text())[key]["engine"] == "tf bfloat16"


@pytest.mark.parametrize(
    ("work", "batches"),
    [
        (replace(LONG, images=400, image_px=224), 0),
        (replace(LONG, images=1000, image_px=224), 2),  # 5 seconds, known after two batches
    ],
)
def test_short_work_is_computed_by_the_first(work: Work, batches: int, kept: Path) -> None:
    machine = Machine({FLOAT32: 0.01, BFLOAT16: 0.001, OPENVINO: 0.001})
    ready = machine.choose(work=work)
    assert (ready.engine, ready.sentence) == (FLOAT32, "")
    assert machine.built == [FLOAT32]
    assert machine.batches.get(FLOAT32, 0) == batches
    assert not kept.exists()


def test_several_workers_do_not_race(kept: Path) -> None:
    machine = Machine({FLOAT32: 0.02, BFLOAT16: 0.002, OPENVINO: 0.01})
    assert machine.choose(alone=False).engine == FLOAT32
    assert machine.built == [FLOAT32]
    assert not kept.exists()


def test_a_single_engine_does_not_race(kept: Path) -> None:
    machine = Machine({FLOAT32: 0.02})
    assert machine.choose([FLOAT32]).engine == FLOAT32
    assert (machine.batches, kept.exists()) == ({}, False)


# The batches of the warm-up and of the first look, then two batches a round.
QUIET, BUSY = [0.1, 1.0, 1.0, 1.0], [0.1, 1.0, 1.0, 1.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("seconds", "says", "is_kept"),
    [
        ([*QUIET, 1.0], "", True),
        ([*BUSY, 1.0], "repeats it", True),
        ([*BUSY, 0.5, 0.5, 2.0], "although other work disturbed the race", False),
    ],
)
def test_a_disturbed_race_is_repeated(
    seconds: list[float], says: str, is_kept: bool, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine({FLOAT32: seconds, BFLOAT16: 0.2})
    assert machine.choose([FLOAT32, BFLOAT16]).engine == BFLOAT16
    out = capsys.readouterr().out
    assert says in out
    assert out.count("repeats it") == bool(says)
    assert kept.exists() is is_kept


def test_an_engine_that_cannot_compute_a_network_does_not_take_part(
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = Machine({FLOAT32: 0.02, BFLOAT16: 0.002})
    assert machine.choose().engine == BFLOAT16
    out = capsys.readouterr().out
    assert "openvino float32 cannot compute this network: no such operation\n" in out


def test_an_engine_that_was_asked_for_falls_back_to_tensorflow(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = Engine("openvino", "bfloat16")
    machine = Machine({FLOAT32: 0.02, BFLOAT16: 0.002})
    assert machine.choose([half]).engine == BFLOAT16
    (line,) = capsys.readouterr().out.splitlines()
    assert "openvino bfloat16 cannot compute this network: no such operation" in line
    assert machine.choose([OPENVINO, half], alone=False).engine == FLOAT32
    Machine(dict.fromkeys(ALL, 0.1) | {OPENVINO: 0.01}).choose()
    assert machine.choose().engine == FLOAT32  # it is kept, but fails now
    assert kept.exists()


def test_a_home_that_cannot_be_written_changes_nothing(kept: Path) -> None:
    kept.parent.write_text("not a folder")
    machine = Machine({FLOAT32: 0.02, BFLOAT16: 0.002})
    assert machine.choose([FLOAT32, BFLOAT16]).engine == BFLOAT16


class LastIsFastest:
    """A clock by which each round takes less time than the one before."""

    def __init__(self) -> None:
        self.now, self.step = 0.0, 1.0

    def perf_counter(self) -> float:
        self.now += self.step
        self.step /= 2
        return self.now


def test_an_extraction_races_and_others_use_its_result(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_race, "time", LastIsFastest())
    monkeypatch.setattr(engine_race, "LEAST_PIXELS", 0)
    monkeypatch.setattr(engine_race, "LEAST_S", 0.0)
    monkeypatch.setattr(engine_race, "ROUND_S", 0.0)
    monkeypatch.setattr(engine_race, "SPREAD", float("inf"))
    options = FeatureOptions(backbone="tiny", precision="float32", feature_dtype="float32")
    pinned = options.model_copy(update={"feature_engine": "tf"})
    made = [
        extract_features(dataset, tmp_path / name, given, 0, shard_count)
        for name, given, shard_count in (
            ("race", options, 1), ("worker", options, 2), ("pinned", pinned, 1)
        )
    ]  # fmt: skip
    assert [one.engine for one in made] == ["openvino", "openvino", "tf"]
    assert [one.precision for one in made] == ["float32"] * 3
    assert "openvino float32 is used" in made[0].reasoning[0]
    assert [one.reasoning for one in made[1:]] == [made[0].reasoning, []]
    assert made[0].digest != made[2].digest
    for array in ("gap", "levels", "cut"):
        ours, exact = (
            np.concatenate(FeatureRows([tmp_path / name], "train", array).parts())
            for name in ("race", "pinned")
        )
        np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-4)

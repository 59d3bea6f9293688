"""The benchmark of the families of KerasHub: its rounds, its limit of time, and its table."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchmarks.backbones import LEAST_ROUNDS, Way, measure_within, shortest_times
from benchmarks.result import Metric
from docs.results.training_tables import backbones
from docs.results.values import Value


def test_ways_take_turns_after_a_first_call() -> None:
    calls: list[str] = []
    ways = {name: Way(lambda name=name: calls.append(name)) for name in ("predict", "forward")}
    found = shortest_times(ways, seconds=0.0)
    assert calls == ["predict", "forward"] * (1 + LEAST_ROUNDS)
    assert all(0 < value < float("inf") for value in found.values())


@pytest.mark.parametrize(
    ("limit_s", "left"), [(0.0, ["swin", "mit"]), (float("inf"), [])], ids=["short", "enough"]
)
def test_networks_that_would_end_too_late_are_left(limit_s: float, left: list[str]) -> None:
    measured: list[str] = []

    def measure_one(name: str) -> dict[str, Metric]:
        measured.append(name)
        return {f"{name}_predict": Metric(1.0)}

    metrics, found = measure_within(["vit", "swin", "mit"], limit_s, measure_one)
    assert found == left and measured == [n for n in ("vit", "swin", "mit") if n not in left]
    assert list(metrics) == [f"{name}_predict" for name in measured]


def test_the_table_has_the_networks_that_are_measured() -> None:
    rates = {"predict": 20.0, "forward": 24.0, "extraction": 25.0}
    values = {f"mit_{way}": Value(rate) for way, rate in rates.items()}
    values["mit_extraction_of_predict"] = Value(1.25, ">= 1", True)
    *_, row = backbones({"backbones": SimpleNamespace(**values)}).splitlines()
    assert row == "| MiT-B0 | 20.0 images/s | 24.0 images/s | 25.0 images/s | 1.25 | at least 1 |"

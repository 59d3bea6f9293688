"""Search for the batching parameters with the highest throughput."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.load_generator import Load, run_load
from benchmarks.result import Metric
from serving.batching_file import batching_flags, batching_text
from serving.running.runner import ServeOptions, running_server

SIZES, THREADS = (4, 8, 16, 32), (1, 2, 4)
# A single short measurement is too noisy to choose the finalists.
SCREENING_ROUNDS, FINALISTS = 2, 4
CONCURRENCY = 16
Choice = tuple[int, int]
MakeLoad = Callable[[str, str, int], Load]


def tune(
    base: Path, model: str, engine: str, make_load: MakeLoad, target: Path, rounds: int
) -> dict[str, Metric]:
    """Measure all sizes and threads, then the best few again in turn; write the best file."""
    choices = [(size, threads) for size in SIZES for threads in THREADS]
    rates = {
        choice: measure_rates(base, model, engine, make_load, [choice], SCREENING_ROUNDS)[choice]
        for choice in choices
    }
    finalists = sorted(rates, key=lambda choice: rates[choice], reverse=True)[:FINALISTS]
    final = measure_rates(base, model, engine, make_load, finalists, rounds)
    best = max(final, key=lambda choice: final[choice])
    target.write_text(batching_text(*best), encoding="utf-8")
    return {
        "best_max_execution_batch_size": Metric(best[0], "images"),
        "best_num_batch_threads": Metric(best[1], "threads"),
        **{
            f"size_{size}_threads_{threads}": Metric(rate, "images/s")
            for (size, threads), rate in (rates | final).items()
        },
    }


def measure_rates(
    base: Path, model: str, engine: str, make_load: MakeLoad, choices: Sequence[Choice], rounds: int
) -> dict[Choice, float]:
    """Return the median rate of each choice; the servers of several are measured in turn."""
    rates: dict[Choice, list[float]] = {choice: [] for choice in choices}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        addresses = {}
        for choice in choices:
            file = folder / f"{choice[0]}-{choice[1]}.config"
            file.write_text(batching_text(*choice), encoding="utf-8")
            options = ServeOptions(flags=batching_flags(file))
            addresses[choice] = stack.enter_context(running_server(base, model, engine, options))
        for _ in range(rounds):
            for choice, at in addresses.items():
                rates[choice].append(run_load(make_load("grpc", at.grpc, CONCURRENCY)).rate)
    return {choice: statistics.median(values) for choice, values in rates.items()}

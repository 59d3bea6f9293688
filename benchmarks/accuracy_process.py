"""Runs one column of the accuracy benchmark, or the fit of a head, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Settings:
    """What the columns share; tests use a smaller backbone and fewer epochs."""

    backbone: str = "efficientnet_lite0"
    image_px: int = 64
    seed: int = 0
    head_epochs: int = 20
    all_epochs: int = 10
    top_epochs: int = 10
    batch_size: int = 32
    budget: str = "3m"


@dataclass(frozen=True)
class Outcome:
    """The result of a fit, which is the test accuracy of a column, and its cost."""

    value: float
    seconds: float
    peak_mb: float


def measure_in_process(what: str, folder: Path, settings: Settings) -> Outcome:
    """Run a column or the fit of a head in a new process."""
    values = [what, str(folder.absolute()), json.dumps(asdict(settings))]
    command = [sys.executable, "-m", "benchmarks.accuracy_process", *values]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def measure_here(what: str, folder: Path, settings: Settings) -> Outcome:
    """Run a column or the fit of a head in this process; its test is not timed."""
    from benchmarks.accuracy_columns import COLUMNS
    from benchmarks.accuracy_heads import HEADS
    from benchmarks.training_scaling import peak_mb

    fit = {**COLUMNS, **HEADS}[what](folder, settings)
    start = time.perf_counter()
    test = fit()
    seconds, peak = time.perf_counter() - start, peak_mb()
    return Outcome(test(), seconds, peak)


if __name__ == "__main__":
    outcome = measure_here(sys.argv[1], Path(sys.argv[2]), Settings(**json.loads(sys.argv[3])))
    print(json.dumps(asdict(outcome)))

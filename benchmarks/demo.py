"""The demo as its user meets it: time, memory, accuracy, parity.

    regraft bench demo --json benchmarks/results/demo.json

Runs `python -m regraft.demo` in a process of its own and samples the memory of that process and
of all below it (proportional set size, so that shared pages count once). Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.result import Figure, Measured, run_benchmark

SAMPLE_EVERY_S = 0.25


def family_memory_mb(root: int) -> float:
    """Return the memory of a process and its descendants in MB; those that just ended count 0."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    family = {root}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(map(_memory_mb, family))


def _memory_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def run_demo(out: Path) -> tuple[float, float]:
    """Run the demo; return its seconds and its peak memory in MB.

    Raises:
        RuntimeError: it ended with another code than 0.
    """
    peak, ended = 0.0, threading.Event()
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "regraft.demo", "--out", str(out)])

    def watch() -> None:
        nonlocal peak
        while not ended.wait(SAMPLE_EVERY_S):
            peak = max(peak, family_memory_mb(process.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - start
    ended.set()
    watcher.join()
    if code:
        raise RuntimeError(f"expected the demo to end with 0, got {code}")
    return seconds, peak


def measure(options: argparse.Namespace) -> Measured:
    """Run the demo and hold what it says against the goals."""
    with tempfile.TemporaryDirectory() as work:
        out = Path(work)
        seconds, peak = run_demo(out)
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    metrics = summary["metrics"]
    differences = {
        f"largest_difference_{protocol}": Figure(value, "probability", "<= 1e-4")
        for protocol, value in summary["parity"].items()
    }
    steps = {f"step_{name}": Figure(value, "s") for name, value in summary["timings"].items()}
    return Measured(
        f"digits on efficientnet_lite0 at 64 px, strategies head and top; verdict "
        f"{summary['verdict']}; memory sampled every {SAMPLE_EVERY_S} s",
        {
            "wall_time": Figure(seconds, "s", "<= 180"),
            "peak_memory": Figure(peak, "MB", "<= 4000"),
            "test_accuracy": Figure(metrics["test_accuracy"], "", ">= 0.97"),
            "test_accuracy_low": Figure(metrics["test_accuracy_low"]),
            "test_accuracy_high": Figure(metrics["test_accuracy_high"]),
            **differences,
            **steps,
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the figures."""
    run_benchmark("demo", __doc__, lambda parser: None, measure, arguments)


if __name__ == "__main__":
    main()

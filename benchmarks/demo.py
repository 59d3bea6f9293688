"""The demo: wall time, peak memory, accuracy and parity.

    regraft bench demo --json benchmarks/results/demo.json

Runs `python -m regraft.demo` in a new process and samples the memory of that process and its
descendants (proportional set size, so that shared pages count once). Linux only.
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

from benchmarks.result import Measurement, Metric, run_benchmark

SAMPLE_EVERY_S = 0.25


def process_tree_mb(root: int) -> float:
    """Return the memory of a process and its descendants in MB; ended processes count 0."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    tree = {root}
    while children := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= children
    return sum(map(_memory_mb, tree))


def _memory_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def run_demo(out: Path) -> tuple[float, float]:
    """Run the demo; return its wall time in seconds and its peak memory in MB.

    Raises:
        RuntimeError: the exit code is not 0.
    """
    peak, done = 0.0, threading.Event()
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "regraft.demo", "--out", str(out)])

    def watch() -> None:
        nonlocal peak
        while not done.wait(SAMPLE_EVERY_S):
            peak = max(peak, process_tree_mb(process.pid))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = process.wait()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    if code:
        raise RuntimeError(f"demo: expected exit code 0, got {code}")
    return seconds, peak


def measure(options: argparse.Namespace) -> Measurement:
    """Run the demo and read its summary."""
    with tempfile.TemporaryDirectory() as work:
        out = Path(work)
        seconds, peak = run_demo(out)
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    metrics = summary["metrics"]
    differences = {
        f"max_abs_diff_{protocol}": Metric(value, "probability", "<= 1e-4")
        for protocol, value in summary["parity"].items()
    }
    steps = {f"step_{name}": Metric(value, "s") for name, value in summary["timings"].items()}
    return Measurement(
        f"digits on efficientnet_lite0 at 64 px, strategies head and top; verdict "
        f"{summary['verdict']}; memory sampled every {SAMPLE_EVERY_S} s",
        {
            "wall_time": Metric(seconds, "s", "<= 180"),
            "peak_memory": Metric(peak, "MB", "<= 4000"),
            "test_accuracy": Metric(metrics["test_accuracy"], "", ">= 0.97"),
            "test_accuracy_low": Metric(metrics["test_accuracy_low"]),
            "test_accuracy_high": Metric(metrics["test_accuracy_high"]),
            **differences,
            **steps,
        },
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("demo", __doc__, lambda parser: None, measure, arguments)


if __name__ == "__main__":
    main()

"""The demo: wall time, peak memory, accuracy and parity.

    regraft bench demo --json benchmarks/results/demo.json

Runs `python -m regraft.demo` in a new process and samples the memory of that process and its
descendants (proportional set size, so that shared pages count once). Linux only.

Other kinds of processors compute other last digits, which can change a prediction, and need another
time. So the demo runs again with the instructions of older ones, to which oneDNN, TensorFlow's
library for convolutions, is limited by its variable `ONEDNN_MAX_CPU_ISA`. The lowest and the
highest values of all runs are those with `_lowest` and `_highest`.

With `--before CHECKOUT`, the demo of that checkout, an earlier version, runs first, with the same
packages.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.result import Measurement, Metric, run_benchmark

CHECKOUT = Path(__file__).resolve().parents[1]
SAMPLE_EVERY_S = 0.25
# The processor's own instructions, and those of processors without bfloat16 and without AVX-512.
OLDER = ("AVX512_CORE", "AVX2") if platform.machine() == "x86_64" else ()
INSTRUCTIONS = ("DEFAULT", *OLDER)


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


def run_demo(
    out: Path, instructions: str = "DEFAULT", checkout: Path = CHECKOUT
) -> tuple[float, float]:
    """Run the demo; return its wall time in seconds and its peak memory in MB.

    Raises:
        RuntimeError: the exit code is not 0.
    """
    peak, done = 0.0, threading.Event()
    start = time.perf_counter()
    # Version 0.1 had it in another package.
    module = "regraft.demo" if (checkout / "regraft" / "demo.py").exists() else "pipelines.demo"
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--out", str(out)], cwd=checkout,
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": instructions, "PYTHONPATH": str(checkout)},
    )  # fmt: skip

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
    """Run the demo with each kind of instructions and read its summary."""
    before_s, runs = 0.0, []
    if options.before is not None:
        with tempfile.TemporaryDirectory() as work:
            before_s, _ = run_demo(Path(work), checkout=options.before.absolute())
    for instructions in INSTRUCTIONS:
        with tempfile.TemporaryDirectory() as work:
            out = Path(work)
            seconds, peak = run_demo(out, instructions)
            summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        runs.append((seconds, peak, summary))
    seconds, peak, summary = runs[0]
    metrics = summary["metrics"]
    accuracies = [one["metrics"]["test_accuracy"] for _, _, one in runs]
    differences = {
        f"max_abs_diff_{protocol}": Metric(value, "probability", "<= 1e-4")
        for protocol, value in summary["parity"].items()
    }
    steps = {f"step_{name}": Metric(value, "s") for name, value in summary["timings"].items()}
    compared = {}
    if before_s:
        compared["wall_time_before"] = Metric(before_s, "s")
        compared["wall_time_ratio"] = Metric(seconds / before_s, "", "<= 0.5")
    return Measurement(
        f"digits on efficientnet_lite0 at 64 px, strategies head and top; verdict "
        f"{summary['verdict']}; memory sampled every {SAMPLE_EVERY_S} s; instructions "
        f"{', '.join(INSTRUCTIONS)}",
        {
            "wall_time": Metric(seconds, "s", "<= 180"),
            **compared,
            "wall_time_highest": Metric(max(one for one, _, _ in runs), "s", "<= 180"),
            "test_accuracy_lowest": Metric(min(accuracies), "", ">= 0.97"),
            "test_accuracy_highest": Metric(max(accuracies)),
            "peak_memory": Metric(peak, "MB", "<= 4000"),
            "test_accuracy": Metric(metrics["test_accuracy"], "", ">= 0.97"),
            "test_accuracy_low": Metric(metrics["test_accuracy_low"]),
            "test_accuracy_high": Metric(metrics["test_accuracy_high"]),
            **differences,
            **steps,
        },
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--before", type=Path, help="Checkout of an earlier version.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("demo", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()

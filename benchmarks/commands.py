"""How long the first commands of a newcomer take, which need no TensorFlow.

    regraft bench commands --json benchmarks/results/commands.json

Each command starts in a new process, as in a shell. The shortest of `--repeats` counts: the others
include what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.result import Measurement, Metric, run_benchmark

# Name of the metric: the words of the command, and the goal.
COMMANDS = {
    "first_steps": ((), ""),
    "help": (("--help",), "<= 0.3"),
    "version": (("--version",), ""),
    "run_help": (("run", "--help"), "<= 0.3"),
    "manual_page": (("--man",), ""),
    "completion": ((), ""),
}
# What a shell sets when Tab is pressed after `regraft cla`.
COMPLETION = {
    "_REGRAFT_COMPLETE": "complete_bash",
    "COMP_WORDS": "regraft cla",
    "COMP_CWORD": "1",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--repeats", type=int, default=15, help="Starts of each command.")


def measure(options: argparse.Namespace) -> Measurement:
    """Measure each command."""
    metrics = {}
    for name, (words, goal) in COMMANDS.items():
        variables = COMPLETION if name == "completion" else {}
        seconds = min(start(words, variables) for _ in range(options.repeats))
        metrics[f"{name}_s"] = Metric(seconds, "s", goal)
    return Measurement(f"shortest of {options.repeats} starts, files in the page cache", metrics)


def start(words: Sequence[str], variables: dict[str, str]) -> float:
    """Run `regraft` with these words; return its seconds."""
    command = [sys.executable, "-m", "regraft", *words]
    before = time.perf_counter()
    subprocess.run(command, env=os.environ | variables, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - before


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    run_benchmark("commands", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()

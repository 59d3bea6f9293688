"""The command line and the JSON result that all benchmarks share."""

from __future__ import annotations

import argparse
import datetime
import json
import operator
import os
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft_core.runtime.machine import instructions

_COMPARISONS = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Metric:
    """One measured value. `goal` is empty or a comparison such as `>= 0.9`."""

    value: float
    unit: str = ""
    goal: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the value reaches its goal; None without a goal."""
        if not self.goal:
            return None
        sign, bound = self.goal.split()
        return bool(_COMPARISONS[sign](self.value, float(bound)))

    def as_json(self) -> dict[str, Any]:
        """Return the metric as a result file contains it."""
        return {
            "value": float(f"{self.value:.5g}"),
            "unit": self.unit,
            "goal": self.goal,
            "holds": self.holds,
        }


@dataclass(frozen=True)
class Measurement:
    """The metrics that a benchmark measured, and the conditions.

    `parts` names the parts that this run measured, if parts can be measured at different times.
    """

    conditions: str
    metrics: Mapping[str, Metric]
    parts: Sequence[str] = ()


def read_metrics(file: Path) -> dict[str, Metric]:
    """Return the metrics of an existing result, so that a run can replace some of them."""
    if not file.exists():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))["figures"]
    return {name: Metric(one["value"], one["unit"], one["goal"]) for name, one in found.items()}


def read_parts(file: Path) -> dict[str, dict[str, str]]:
    """Return the command, date and machine of each part of an existing result."""
    if not file.exists():
        return {}
    found = json.loads(file.read_text(encoding="utf-8")).get("parts", {})
    return {part: dict(run) for part, run in found.items()}


def run_benchmark(
    name: str,
    description: str | None,
    add_options: Callable[[argparse.ArgumentParser], object],
    measure: Callable[[argparse.Namespace], Measurement],
    arguments: Sequence[str] | None = None,
) -> Path:
    """Parse the command line, measure, write the result to `--json` and print its metrics.

    The result has the command, date and machine of this run, with the processor's instructions for
    vectors and matrices; each part has its own.
    """
    parser = argparse.ArgumentParser(
        prog=f"regraft bench {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, required=True, help="File to write the result to.")
    add_options(parser)
    options = parser.parse_args(arguments)
    measurement = measure(options)
    values = vars(options).items()
    flags = [flag for key, value in values if value is not None for flag in _flags(key, value)]
    metrics = {key: metric.as_json() for key, metric in measurement.metrics.items()}
    run = {
        "command": f"regraft bench {name} {shlex.join(flags)}",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "instructions": instructions(),
    }
    parts = read_parts(options.json) | dict.fromkeys(measurement.parts, run)
    result = {
        "name": name,
        **run,
        "conditions": measurement.conditions,
        **({"parts": parts} if parts else {}),
        "figures": metrics,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(metrics, indent=2))
    return Path(options.json)


def _flags(key: str, value: object) -> list[str]:
    """Return an option as it is written on the command line."""
    name = f"--{key.replace('_', '-')}"
    return [name, *map(str, value)] if isinstance(value, list) else [f"{name}={_shown(value)}"]


def _shown(value: object) -> object:
    """Return an option's value; of a folder of this machine, its name only."""
    return value.name if isinstance(value, Path) and value.is_absolute() else value

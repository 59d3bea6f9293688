"""What every benchmark shares: its command line, and figures held against their goals as JSON."""

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

_COMPARISONS = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Figure:
    """One measured value; `goal` is empty, or a comparison as `>= 0.9`."""

    value: float
    unit: str = ""
    goal: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if not self.goal:
            return None
        sign, bound = self.goal.split()
        return bool(_COMPARISONS[sign](self.value, float(bound)))

    def as_json(self) -> dict[str, Any]:
        """Return the figure as it stands in a result."""
        return {
            "value": float(f"{self.value:.5g}"),
            "unit": self.unit,
            "goal": self.goal,
            "holds": self.holds,
        }


@dataclass(frozen=True)
class Measured:
    """What a benchmark returns: under which conditions it measured what.

    `parts` names what was measured now, where parts can be measured at different times.
    """

    conditions: str
    figures: Mapping[str, Figure]
    parts: Sequence[str] = ()


def kept(file: Path) -> dict[str, Figure]:
    """Return the figures that a result holds already, to measure only some of them anew."""
    if not file.exists():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))["figures"]
    return {name: Figure(one["value"], one["unit"], one["goal"]) for name, one in found.items()}


def kept_parts(file: Path) -> dict[str, dict[str, str]]:
    """Return command, date and machine of each part that a result tells them of."""
    if not file.exists():
        return {}
    found = json.loads(file.read_text(encoding="utf-8")).get("parts", {})
    return {part: dict(run) for part, run in found.items()}


def run_benchmark(
    name: str,
    about: str | None,
    add_options: Callable[[argparse.ArgumentParser], object],
    measure: Callable[[argparse.Namespace], Measured],
    arguments: Sequence[str] | None = None,
) -> Path:
    """Parse the command line, measure, write the result to `--json` and print its figures.

    The result's own command, date and machine are those of this run; each part has its own.
    """
    parser = argparse.ArgumentParser(
        prog=f"regraft bench {name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, required=True, help="File to write the result to.")
    add_options(parser)
    given = parser.parse_args(arguments)
    measured = measure(given)
    shown = vars(given).items()
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in shown if value is not None]
    figures = {key: figure.as_json() for key, figure in measured.figures.items()}
    run = {
        "command": f"regraft bench {name} {shlex.join(flags)}",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
    }
    parts = kept_parts(given.json) | dict.fromkeys(measured.parts, run)
    result = {
        "name": name,
        **run,
        "conditions": measured.conditions,
        **({"parts": parts} if parts else {}),
        "figures": figures,
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))
    return Path(given.json)

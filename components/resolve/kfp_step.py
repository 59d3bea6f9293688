"""Runs the step on the artifacts of KFP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.resolve.resolve import resolve_options
from regraft_core.runtime.step_reports import run_step


def run(values: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Run the step; the arguments are those of the component `resolve`."""
    with run_step("resolve"):
        options = resolve_options(values)
    return tuple(options.values())

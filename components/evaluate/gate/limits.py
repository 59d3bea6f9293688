"""Comparisons of a metric with a limit; an unknown metric (None or NaN) never passes."""

from __future__ import annotations

import math
from typing import TypeGuard

from regraft_core.formats.manifests.evaluation import Check


def is_known(value: float | None) -> TypeGuard[float]:
    """Return whether a metric is available."""
    return value is not None and not math.isnan(value)


def at_least(name: str, value: float | None, limit: float, what: str) -> Check:
    """Return the check that a value reaches a limit; `what` describes the value."""
    return Check(
        name=name,
        expected=f"at least {limit:.4g} ({what})",
        received=format_value(value, limit),
        passed=value is not None and value >= limit,
    )


def at_most(name: str, value: float | None, limit: float, unit: str) -> Check:
    """Return the check that a value does not exceed a limit."""
    return Check(
        name=name,
        expected=f"at most {limit:.4g}{unit}",
        received=format_value(value, limit, unit),
        passed=value is not None and value <= limit,
    )


def format_value(value: float | None, limit: float, unit: str = "") -> str:
    """Format a metric, with all digits if the short form would hide a difference to the limit."""
    if not is_known(value):
        return "not available"
    short = f"{value:.4g}"
    if float(short) == limit != value:
        short = repr(float(value))
    return short + unit

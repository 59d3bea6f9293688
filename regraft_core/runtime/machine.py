"""The cores and the kind of this machine, which decide how TensorFlow computes without a GPU."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_kind() -> str:
    """Return the kind of processor and the versions of system and TensorFlow, without importing it.

    Machines of the same kind execute the same kernels of TensorFlow.
    """
    return (
        f"{platform.system()} {platform.machine()}, {_processor()}, "
        f"tensorflow {metadata.version('tensorflow')}"
    )


def _processor() -> str:
    """Return the processor's name as the system knows it."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    values = dict(line.partition(":")[::2] for line in reversed(lines))
    known = {name.strip(): value.strip() for name, value in values.items()}
    return known.get("model name") or known.get("CPU part") or platform.processor()

"""The cores and the kind of this machine, which decide how TensorFlow computes without a GPU."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

from regraft_core.runtime.errors import InputError

_CPU_INFO = Path("/proc/cpuinfo")
# Names of Linux for such instructions of x86 and of ARM.
_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
# Instructions by which libraries choose their kernels; virtual machines often hide the model.
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_fp16", "amx_int8", "asimd", "sve",
                 *sorted(_BFLOAT16))  # fmt: skip


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_kind() -> str:
    """Return the kind of processor and the versions of system and TensorFlow, without importing it.

    Machines of the same kind execute the same kernels of TensorFlow.
    """
    return (
        f"{platform.system()} {platform.machine()}, {processor_name()} ({instructions()}), "
        f"tensorflow {metadata.version('tensorflow')}"
    )


def instructions() -> str:
    """Return which of the instructions that decide the kernels this processor has."""
    return " ".join(name for name in _INSTRUCTIONS if name in _flags())


def processor_name() -> str:
    """Return the processor's name as the system knows it."""
    known = _cpu_info()
    return known.get("model name") or known.get("CPU part") or platform.processor()


def computes_bfloat16() -> bool:
    """Return whether the processor has instructions for bfloat16; false if it is not known."""
    return not _BFLOAT16.isdisjoint(_flags())


def check_bfloat16(option: str) -> None:
    """Check that this processor computes in bfloat16.

    Raises:
        InputError: it does not; others take several times as long as in float32.
    """
    if not computes_bfloat16():
        raise InputError(
            f"{option}: expected a processor that computes in bfloat16 (avx512_bf16, amx_bf16), "
            f"got {processor_name() or 'an unknown one'}; use float32"
        )


def _flags() -> frozenset[str]:
    known = _cpu_info()
    return frozenset(f"{known.get('flags', '')} {known.get('Features', '')}".split())


def _cpu_info() -> dict[str, str]:
    """Return what Linux knows of the first processor; nothing on other systems."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    values = dict(line.partition(":")[::2] for line in reversed(lines))
    return {name.strip(): value.strip() for name, value in values.items()}

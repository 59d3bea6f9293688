"""The kind of this machine, from what Linux knows of its processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft_core.runtime import machine
from regraft_core.runtime.machine import computes_bfloat16, machine_kind, processor_name

X86 = "processor\t: 0\nmodel name\t: A Xeon\nflags\t\t: fpu {}\n\nprocessor\t: 1\nflags\t\t: fpu\n"


@pytest.mark.parametrize(
    ("text", "name", "half"),
    [
        (X86.format("avx512f"), "A Xeon", False),
        (X86.format("avx512_bf16"), "A Xeon", True),
        (X86.format("amx_tile amx_bf16"), "A Xeon", True),
        ("processor : 0\nFeatures : fp asimd bf16\nCPU part : 0xd40\n", "0xd40", True),
        ("processor : 0\nFeatures : fp asimd\nCPU part : 0xd0c\n", "0xd0c", False),
    ],
)
def test_the_processor_is_that_of_linux(
    text: str, name: str, half: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "cpuinfo")
    assert (processor_name(), computes_bfloat16()) == (name, half)
    assert f" {name} (" in machine_kind()


def test_processors_of_one_name_with_other_instructions_are_of_another_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "cpuinfo")
    kinds = set()
    for flags in ("avx2", "avx2 avx512f", "avx2 avx512f amx_bf16", "avx2 fpu"):
        (tmp_path / "cpuinfo").write_text(X86.format(flags))
        kinds.add(machine_kind())
    assert len(kinds) == 3


def test_a_system_without_that_file_has_no_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "missing")
    assert not computes_bfloat16()
    assert machine_kind()

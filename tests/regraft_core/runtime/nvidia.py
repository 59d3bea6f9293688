"""A stand-in for `nvidia-smi`: a program that prints what a driver would report."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HOLDER = """<process_info><pid>417</pid><process_name>/usr/bin/python3 -m x</process_name>
<used_memory>{mb} MiB</used_memory></process_info>"""
SLICE = """<mig_device><index>0</index><fb_memory_usage><total>9856 MiB</total>
<used>12 MiB</used><free>9844 MiB</free></fb_memory_usage></mig_device>"""


def report(
    *, cuda: str = "13.0", free_mb: int = 81000, held_mb: int = 0, slices: int = 0, cards: int = 1
) -> str:
    """Return the report of a machine with cards of 81559 MiB."""
    gpu = f"""<gpu id="{{number}}"><product_name>NVIDIA H100 80GB HBM3</product_name>
    <mig_devices>{SLICE * slices or "None"}</mig_devices>
    <uuid>GPU-{{number}}a</uuid>
    <fb_memory_usage><total>81559 MiB</total><reserved>551 MiB</reserved><used>8 MiB</used>
    <free>{free_mb} MiB</free></fb_memory_usage>
    <processes>{HOLDER.format(mb=held_mb) if held_mb else ""}</processes></gpu>"""
    return f"""<?xml version="1.0" ?>
    <!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
    <nvidia_smi_log><driver_version>580.95.05</driver_version><cuda_version>{cuda}</cuda_version>
    {"".join(gpu.format(number=number) for number in range(cards))}</nvidia_smi_log>"""


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> None:
    """Put a program `nvidia-smi` that prints `text` first on the path."""
    (folder / "report.xml").write_text(text)
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nexec cat {folder}/report.xml\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

"""The server over time: its memory, a new version under load, and its end."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.load import Answered, Load, percentile, run_load, started_load
from benchmarks.result import Figure
from regraft_client.rest import RestClient
from serving.running.runner import Addresses, ServeOptions, running_server
from serving.running.serve import batching_flags

SHARES = 5
SWAP_SECONDS, CALM_SECONDS = 300.0, 8.0
Ask = Callable[[str, str, int], Load]


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def memory(
    base: Path, model: str, engine: str, ask: Callable[[str], Load], requests: int
) -> dict[str, Figure]:
    """Send `requests`; the memory after the first fifth is held against that at the end."""
    share = requests // SHARES
    found = []
    with running_server(base, model, engine, ServeOptions(flags=batching_flags())) as at:
        for _ in range(SHARES):
            answered = run_load(replace(ask(at.grpc), requests=share))
            found.append(resident_mb(at.pid))
    return {
        "memory_requests": Figure(share * SHARES, "requests"),
        "memory_rate": Figure(answered.rate, "requests/s"),
        "memory_at_the_end": Figure(found[-1], "MB"),
        "memory_growth_after_a_fifth": Figure(found[-1] - found[0], "MB", "<= 20"),
    }


def swap(base: Path, model: str, engine: str, ask: Ask) -> dict[str, Figure]:
    """Publish a version while nothing is asked, one under load, and stop the server."""
    flags = (*batching_flags(), "--file_system_poll_wait_seconds=1")
    with running_server(base, model, engine, ServeOptions(flags=flags)) as at:
        idle_s = publish(base, 2, model, at, ask)
        with started_load(replace(ask("grpc", at.grpc, 1), seconds=SWAP_SECONDS)) as sending:
            time.sleep(CALM_SECONDS)
            begin = time.monotonic()
            publish(base, 3, model, at, ask)
            end = time.monotonic()
            answered = sending.stop()
        stopped_s = stop_time(at)
    calm, during = split_at(answered, begin, end)
    return {
        "publish_to_first_answer": Figure(idle_s, "s"),
        "publish_to_first_answer_under_load": Figure(end - begin, "s"),
        "swap_failed_requests": Figure(answered.failed, "requests", "<= 0"),
        "calm_c1_p99": Figure(percentile(calm, 99) * 1e3, "ms"),
        "swap_c1_p50": Figure(percentile(during, 50) * 1e3, "ms"),
        "swap_c1_p99": Figure(percentile(during, 99) * 1e3, "ms"),
        "swap_c1_longest": Figure(max(during) * 1e3, "ms"),
        "sigterm_to_exit": Figure(stopped_s, "s"),
    }


def split_at(answered: Answered, begin: float, end: float) -> tuple[list[float], list[float]]:
    """Return the seconds of the requests outside a span of time, and of those that touch it."""
    calm, during = [], []
    for started, ended in answered.spans:
        (during if ended > begin and started < end else calm).append(ended - started)
    return calm, during


def publish(base: Path, version: int, model: str, at: Addresses, ask: Ask) -> float:
    """Return the seconds from the rename of a new version to its first answer."""
    staging = base / f".new-{version}"
    shutil.copytree(base / "1", staging)
    call = replace(ask("rest", at.rest, 1), requests=1)
    path = f"/v1/models/{model}/versions/{version}:predict"
    start = time.monotonic()
    staging.rename(base / str(version))
    with RestClient(at.rest, model, version=version) as client:
        client.wait_ready(300)
    ((_, ended),) = run_load(replace(call, path=path)).spans
    return ended - start


def stop_time(at: Addresses) -> float:
    """Return the seconds from SIGTERM to the end of the server."""
    start = time.monotonic()
    os.kill(at.pid, signal.SIGTERM)
    os.waitid(os.P_PID, at.pid, os.WEXITED | os.WNOWAIT)
    return time.monotonic() - start

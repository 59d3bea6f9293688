"""The server over time: memory growth, a new version under load, and shutdown."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.load_generator import Load, LoadResult, percentile, run_load, started_load
from benchmarks.result import Metric
from regraft_client.rest import RestClient
from serving.batching_file import batching_flags
from serving.running.runner import Addresses, ServeOptions, running_server

MEMORY_SAMPLES = 5
SWAP_SECONDS, STEADY_SECONDS = 300.0, 8.0
MakeLoad = Callable[[str, str, int], Load]


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def memory(
    base: Path, model: str, engine: str, make_load: Callable[[str], Load], requests: int
) -> dict[str, Metric]:
    """Send `requests`; compare the memory at the end with that after the first fifth."""
    per_sample = requests // MEMORY_SAMPLES
    samples = []
    with running_server(base, model, engine, ServeOptions(flags=batching_flags())) as at:
        for _ in range(MEMORY_SAMPLES):
            result = run_load(replace(make_load(at.grpc), requests=per_sample))
            samples.append(resident_mb(at.pid))
    return {
        "memory_requests": Metric(per_sample * MEMORY_SAMPLES, "requests"),
        "memory_rate": Metric(result.rate, "requests/s"),
        "memory_end": Metric(samples[-1], "MB"),
        "memory_growth_after_first_fifth": Metric(samples[-1] - samples[0], "MB", "<= 20"),
    }


def swap(base: Path, model: str, engine: str, make_load: MakeLoad) -> dict[str, Metric]:
    """Publish a version to an idle server and one under load, then stop the server."""
    flags = (*batching_flags(), "--file_system_poll_wait_seconds=1")
    with running_server(base, model, engine, ServeOptions(flags=flags)) as at:
        idle_s = publish(base, 2, model, at, make_load)
        load = replace(make_load("grpc", at.grpc, 1), seconds=SWAP_SECONDS)
        with started_load(load) as running:
            time.sleep(STEADY_SECONDS)
            start = time.monotonic()
            publish(base, 3, model, at, make_load)
            end = time.monotonic()
            result = running.stop()
        stopped_s = stop_time(at)
    steady, during = split_latencies(result, start, end)
    return {
        "publish_to_first_response": Metric(idle_s, "s"),
        "publish_to_first_response_under_load": Metric(end - start, "s"),
        "swap_failed_requests": Metric(result.failed, "requests", "<= 0"),
        "steady_c1_p99": Metric(percentile(steady, 99) * 1e3, "ms"),
        "swap_c1_p50": Metric(percentile(during, 50) * 1e3, "ms"),
        "swap_c1_p99": Metric(percentile(during, 99) * 1e3, "ms"),
        "swap_c1_max": Metric(max(during) * 1e3, "ms"),
        "sigterm_to_exit": Metric(stopped_s, "s"),
    }


def split_latencies(
    result: LoadResult, start: float, end: float
) -> tuple[list[float], list[float]]:
    """Return the latencies of the requests outside an interval, and of those that overlap it."""
    steady, during = [], []
    for sent, done in result.spans:
        (during if done > start and sent < end else steady).append(done - sent)
    return steady, during


def publish(base: Path, version: int, model: str, at: Addresses, make_load: MakeLoad) -> float:
    """Return the seconds from the rename of a new version to its first response."""
    staging = base / f".new-{version}"
    shutil.copytree(base / "1", staging)
    load = replace(make_load("rest", at.rest, 1), requests=1)
    path = f"/v1/models/{model}/versions/{version}:predict"
    start = time.monotonic()
    staging.rename(base / str(version))
    with RestClient(at.rest, model, version=version) as client:
        client.wait_ready(300)
    ((_, done),) = run_load(replace(load, path=path)).spans
    return done - start


def stop_time(at: Addresses) -> float:
    """Return the seconds from SIGTERM to the exit of the server."""
    start = time.monotonic()
    os.kill(at.pid, signal.SIGTERM)
    os.waitid(os.P_PID, at.pid, os.WEXITED | os.WNOWAIT)
    return time.monotonic() - start

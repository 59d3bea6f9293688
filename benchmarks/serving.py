"""Serving figures: in-process calls against the server, by protocol and concurrency.

`python -m benchmarks.serving --json FILE` measures `efficientnet_lite0` at 224 px (or `--model`, a
SavedModel folder); `--tune FILE` writes the best batching file for the model and this machine, in
TF Serving's own format.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from serving.client.grpc import AsyncGrpcClient
from serving.client.rest import AsyncRestClient, RestClient
from serving.runner import Addresses, ServeOptions, running_server
from serving.serve import BATCHING_FILE

PX, CLASSES, MODEL = 224, 10, "pictures"
BATCHES = (1, 8, 16, 32)
GOAL_SHARE, GOAL_LATENCY = 0.9, (1.15, 3.0)


def photographs(count: int) -> list[bytes]:
    """Return JPEG pictures of several sizes, about as costly to decode as small photographs."""
    random = np.random.default_rng(0)
    found = []
    for number in range(count):
        rough = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        size = 320 + 8 * (number % 5), 240 + 8 * (number % 3)
        buffer = io.BytesIO()
        rough.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def export_model(folder: Path) -> None:
    """Export `efficientnet_lite0` at 224 px with a head of 10 classes."""
    from components.core.artifacts import Preprocessing
    from components.core.backbones import build_backbone, find_backbone
    from components.core.models import build_head, pooling_layer
    from components.core.options import HeadOptions
    from components.core.surgery import join
    from components.export.signatures import Answering, build_archive

    row = find_backbone("efficientnet_lite0")
    head = build_head(row.width, CLASSES, HeadOptions(seed=1))
    part = build_backbone(row, PX, "imagenet")
    model = join(part, [pooling_layer("gap"), *head.layers[1:]])
    names = tuple(f"class {number}" for number in range(CLASSES))
    answering = Answering(Preprocessing(image_px=PX, scaling=row.scaling), names, 1.0, None)
    build_archive(model, "head_gap", answering).write_out(str(folder), verbose=False)


def in_process(model: Path, pictures: Sequence[bytes], seconds: float) -> dict[str, float]:
    """Return pictures a second at the best batch size, and latencies in ms at batch 1."""
    import tensorflow as tf

    call = tf.saved_model.load(str(model)).signatures["serving_default"]
    best, best_batch = 0.0, 0
    latencies: list[float] = []
    for batch in BATCHES:
        data = tf.constant([pictures[n % len(pictures)] for n in range(batch)])
        for _ in range(3):
            call(image_bytes=data)
        times = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            call(image_bytes=data)
            times.append(time.perf_counter() - start)
        rate = batch * len(times) / sum(times)
        if batch == 1:
            latencies = times
        if rate > best:
            best, best_batch = rate, batch
    return {"rate": best, "batch": best_batch, **percentiles(latencies)}


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50": cuts[49] * 1e3, "p99": cuts[98] * 1e3}


async def load(
    ask: Callable[[bytes], Awaitable[Any]],
    pictures: Sequence[bytes],
    concurrency: int,
    seconds: float,
) -> dict[str, float]:
    """Ask with so many requests under way; return requests a second and latencies in ms."""
    times: list[float] = []
    start = time.perf_counter()
    end = start + seconds

    async def caller(number: int) -> None:
        while (begin := time.perf_counter()) < end:
            await ask(pictures[number % len(pictures)])
            times.append(time.perf_counter() - begin)
            number += concurrency

    await asyncio.gather(*(caller(n) for n in range(concurrency)))
    return {"rate": len(times) / (time.perf_counter() - start), **percentiles(times)}


async def measure(
    at: Addresses, pictures: Sequence[bytes], seconds: float
) -> dict[str, dict[str, float]]:
    """Measure both protocols at concurrency 1 and 16."""
    found = {}
    grpc, rest = AsyncGrpcClient(at.grpc, MODEL, 300), AsyncRestClient(at.rest, MODEL, 300)
    async with grpc, rest:
        await grpc.predict(pictures[:1])  # a model without warm-up requests is slow at first
        for name, client in (("grpc", grpc), ("rest", rest)):

            async def ask(picture: bytes, client: Any = client) -> Any:
                return await client.predict([picture])

            await load(ask, pictures, 16, min(seconds, 3))
            for concurrency in (1, 16):
                found[f"{name}_c{concurrency}"] = await load(ask, pictures, concurrency, seconds)
    return found


def batching_flags(path: Path) -> tuple[str, ...]:
    """Return the flags that switch batching by a file on."""
    return ("--enable_batching", f"--batching_parameters_file={path}")


def stop_time(at: Addresses) -> float:
    """Return the seconds from SIGTERM to the end of the server."""
    import signal

    start = time.perf_counter()
    os.kill(at.pid, signal.SIGTERM)
    os.waitid(os.P_PID, at.pid, os.WEXITED | os.WNOWAIT)
    return time.perf_counter() - start


def publish_time(model: Path, base: Path, at: Addresses, picture: bytes) -> float:
    """Return the seconds from the rename of a new version to its first answer."""
    staging = base / ".new"
    shutil.copytree(model, staging)
    start = time.perf_counter()
    staging.rename(base / "2")
    with RestClient(at.rest, MODEL, version=2) as client:
        client.wait_ready(300)
        client.predict([picture])
    return time.perf_counter() - start


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


async def memory_growth(at: Addresses, pictures: Sequence[bytes], requests: int) -> float:
    """Return by how many MB the server grew over the second half of so many requests."""
    async with AsyncGrpcClient(at.grpc, MODEL, timeout_s=120) as client:

        async def some(count: int) -> None:
            numbers = iter(range(count))

            async def caller() -> None:
                for number in numbers:
                    await client.predict([pictures[number % len(pictures)]])

            await asyncio.gather(*(caller() for _ in range(16)))

        await some(requests // 2)
        before = resident_mb(at.pid)
        await some(requests - requests // 2)
        return resident_mb(at.pid) - before


def figures(
    inside: dict[str, float], served: dict[str, dict[str, float]], others: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the figures in the form of the benchmarks, each with its goal."""
    found: dict[str, dict[str, Any]] = {
        "in_process_rate": figure(inside["rate"], "pictures/s"),
        "in_process_best_batch": figure(inside["batch"], "pictures"),
    }
    for name, values in served.items():
        found[f"{name}_rate"] = figure(values["rate"], "pictures/s")
        for part in ("p50", "p99"):
            goal = None
            if name.endswith("_c1"):
                goal = inside[part] * GOAL_LATENCY[0] + GOAL_LATENCY[1]
            found[f"{name}_{part}"] = figure(values[part], "ms", goal)
        if name.endswith("_c16"):
            share = values["rate"] / inside["rate"]
            found[f"{name}_share"] = {
                "value": round(share, 3),
                "unit": "of in-process",
                "goal": GOAL_SHARE,
                "holds": share >= GOAL_SHARE,
            }
    for part in ("p50", "p99"):
        found[f"in_process_{part}"] = figure(inside[part], "ms")
    return found | others


def figure(value: float, unit: str, at_most: float | None = None) -> dict[str, Any]:
    """Return one figure; its goal, where there is one, is an upper bound."""
    return {
        "value": round(value, 3),
        "unit": unit,
        "goal": None if at_most is None else round(at_most, 3),
        "holds": None if at_most is None else value <= at_most,
    }


def batching_text(size: int, threads: int) -> str:
    """Return a batching file of TF Serving."""
    return (
        f"max_batch_size {{ value: {size} }}\nbatch_timeout_micros {{ value: 0 }}\n"
        f"max_enqueued_batches {{ value: 1000 }}\nnum_batch_threads {{ value: {threads} }}\n"
    )


def tune(base: Path, pictures: Sequence[bytes], seconds: float, target: Path) -> None:
    """Try batch sizes and threads; write the file with the highest rate at concurrency 16."""
    results: dict[tuple[int, int], float] = {}
    for size in (8, 16, 32):
        for threads in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "batching.config"
                file.write_text(batching_text(size, threads))
                options = ServeOptions(flags=batching_flags(file))
                with running_server(base, MODEL, "embedded", options) as at:
                    found = asyncio.run(measure(at, pictures, seconds))
            results[size, threads] = found["grpc_c16"]["rate"]
            print(f"batch {size}, threads {threads}: {results[size, threads]:.1f} pictures/s")
    best = max(results, key=lambda key: results[key])
    target.write_text(batching_text(*best))
    print(f"{target}: max_batch_size {best[0]}, num_batch_threads {best[1]}")


def main(arguments: Sequence[str]) -> int:
    """Measure or tune; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--tune", type=Path, help="write the best batching file here")
    parser.add_argument("--model", type=Path, help="a SavedModel folder")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each measurement")
    parser.add_argument("--requests", type=int, default=50_000, help="of the memory test; 0: none")
    options = parser.parse_args(arguments)
    pictures = photographs(32)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / MODEL
        base.mkdir()
        if options.model is None:
            export_model(base / "1")
        else:
            shutil.copytree(options.model, base / "1")
        if options.tune is not None:
            tune(base, pictures, options.seconds, options.tune)
            return 0
        report = run(base, pictures, options.seconds, options.requests)
    text = json.dumps(report, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")
    return 0


def run(base: Path, pictures: Sequence[bytes], seconds: float, requests: int) -> dict[str, Any]:
    """Take all measurements; return the report."""
    inside = in_process(base / "1", pictures, seconds)
    others: dict[str, Any] = {}
    flags = (*batching_flags(BATCHING_FILE), "--file_system_poll_wait_seconds=1")
    with running_server(base, MODEL, "embedded", ServeOptions(flags=flags)) as at:
        served = asyncio.run(measure(at, pictures, seconds))
        if requests:
            grown = asyncio.run(memory_growth(at, pictures, requests))
            others["memory_growth_second_half"] = figure(grown, "MB", 20.0)
        taken = publish_time(base / "1", base, at, pictures[0])
        others["publish_to_first_answer"] = figure(taken, "s")
        others["sigterm_to_exit"] = figure(stop_time(at), "s")
    return {
        "name": "serving",
        "command": "python -m benchmarks.serving " + " ".join(sys.argv[1:]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "conditions": f"efficientnet_lite0 at {PX} px, one JPEG a request, client on the same "
        f"machine, embedded server with {BATCHING_FILE.name}, {seconds:g} s a measurement, "
        f"{requests} requests in the memory test",
        "figures": figures(inside, served, others),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

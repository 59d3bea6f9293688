"""Ingest beside a bare Pillow decode loop of the same files, with the same processes.

    python -m benchmarks.ingest --json benchmarks/results/ingest.json

Each measurement runs in a process of its own, both sides in turn; the figures are medians. Both
sides open the same files from the disk; imports are not timed. With two processes, both sides start
theirs by fork, inside the timing. The step is timed from the call to the finished dataset. The
bare loop is `Image.open(file).load()`.

The share by CPU time is the same comparison in seconds of CPU, which other load on the machine
disturbs less; it leaves out how well the processes are kept busy.

Fashion-MNIST comes from Debian's package dataset-fashion-mnist; the photographs are crops of the
two that scikit-learn ships, enlarged to 1280 x 960 JPEG.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SHARE_GOAL, MEMORY_GOAL = 0.8, 1.15


def write_photos(folder: Path, count: int) -> None:
    """Write `count` JPEG files of 1280 x 960 in two class folders."""
    from sklearn.datasets import load_sample_image

    random = np.random.default_rng(0)
    for name in ("china", "flower"):
        (folder / name).mkdir(parents=True)
        whole = Image.fromarray(load_sample_image(f"{name}.jpg"))
        for number in range(count // 2):
            width = int(random.integers(240, 480))
            left = int(random.integers(0, whole.width - width))
            top = int(random.integers(0, whole.height - width * 3 // 4))
            crop = whole.crop((left, top, left + width, top + width * 3 // 4))
            path = folder / name / f"{number:04d}.jpg"
            crop.resize((1280, 960), Image.Resampling.BICUBIC).save(path, quality=90)


def decode_files(files: list[str]) -> int:
    """The bare loop: open and decode, nothing else."""
    for file in files:
        with Image.open(file) as picture:
            picture.load()
    return len(files)


def run_bare(folder: Path, processes: int) -> float:
    """Return the seconds of the bare loop."""
    files = sorted(str(path) for path in folder.rglob("*") if path.is_file())
    start = time.perf_counter()
    if processes == 1:
        decode_files(files)
    else:
        chunks = [files[number : number + 256] for number in range(0, len(files), 256)]
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            pool.map(decode_files, chunks, chunksize=1)
    return time.perf_counter() - start


def run_ingest(folder: Path, processes: int) -> float:
    """Return the seconds of the step, from the call to the finished dataset."""
    from components.core.options import IngestOptions
    from components.ingest.ingest import ingest

    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        start = time.perf_counter()
        ingest([str(folder)], Path(out) / "dataset", IngestOptions(processes=processes))
        return time.perf_counter() - start


def measured(side: str, folder: Path, processes: int) -> dict[str, float]:
    """Run one side in a new process; return its seconds and peak memory (KiB, all processes)."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.ingest",
        "--side",
        side,
        str(folder),
        str(processes),
    ]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    values: dict[str, float] = json.loads(output.splitlines()[-1])
    return values


def one_side(side: str, folder: Path, processes: int) -> None:
    """Measure in this process and print the result."""
    before = cpu_seconds()
    seconds = (run_bare if side == "bare" else run_ingest)(folder, processes)
    cpu = cpu_seconds() - before
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    peak = own + child * processes * (processes > 1)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak}))


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its ended children."""
    return sum(os.times()[:4])


def speed_figures(name: str, folder: Path, count: int, runs: int) -> dict[str, Any]:
    """Measure both sides in turn at 1 and 2 processes, by the clock and by CPU time."""
    figures: dict[str, Any] = {}
    for processes in (1, 2):
        measurements: dict[str, list[dict[str, float]]] = {"bare": [], "ingest": []}
        for _ in range(runs):
            for side, values in measurements.items():
                values.append(measured(side, folder, processes))
        medians = {
            side: {key: statistics.median(value[key] for value in values) for key in values[0]}
            for side, values in measurements.items()
        }
        suffix = f"{name}_{processes}_process{'es' if processes > 1 else ''}"
        for side, value in medians.items():
            figures[f"{side}_{suffix}"] = figure(count / value["seconds"], "pictures/s")
        share = medians["bare"]["seconds"] / medians["ingest"]["seconds"]
        figures[f"share_of_bare_{suffix}"] = figure(
            share, "", f">= {SHARE_GOAL}", share >= SHARE_GOAL
        )
        share_of_cpu = medians["bare"]["cpu"] / medians["ingest"]["cpu"]
        figures[f"share_of_bare_by_cpu_time_{suffix}"] = figure(share_of_cpu, "")
    return figures


def figure(value: float, unit: str, goal: str = "", holds: bool | None = None) -> dict[str, Any]:
    return {"value": round(value, 3), "unit": unit, "goal": goal, "holds": holds}


def memory_figures(small: Path, large: Path) -> dict[str, Any]:
    """Compare the peak memory of ten times the pictures, at 2 processes."""
    figures = {}
    peaks = [measured("ingest", folder, 2)["peak"] / 1024 for folder in (small, large)]
    figures["peak_memory_6000"] = figure(peaks[0], "MiB")
    figures["peak_memory_60000"] = figure(peaks[1], "MiB")
    ratio = peaks[1] / peaks[0]
    figures["peak_memory_ratio"] = figure(ratio, "", f"< {MEMORY_GOAL}", ratio < MEMORY_GOAL)
    return figures


def benchmark(work: Path, runs: int, photos: int) -> dict[str, Any]:
    """Write the pictures where they are not there yet, measure, and return all figures."""
    from components.ingest.samples import write_fashion

    sizes = {"small": 6_000, "large": 60_000}
    for name, limit in sizes.items():
        if not (work / name).exists():
            (work / name).mkdir()
            write_fashion(work / name, limit=limit)
            shutil.rmtree(work / name / "test")
    if not (work / "photos").exists():
        write_photos(work / "photos", photos)
    figures = speed_figures("fashion_mnist", work / "large" / "train", sizes["large"], runs)
    figures |= speed_figures("photos", work / "photos", photos, runs)
    return figures | memory_figures(work / "small" / "train", work / "large" / "train")


def main() -> None:
    """Measure and write the JSON form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--work", type=Path, help="a folder that keeps the pictures")
    parser.add_argument("--side", nargs=3, metavar=("SIDE", "FOLDER", "PROCESSES"))
    options = parser.parse_args()
    if options.side:
        side, folder, processes = options.side
        one_side(side, Path(folder), int(processes))
        return
    with tempfile.TemporaryDirectory() as work:
        figures = benchmark(options.work or Path(work), options.runs, options.photos)
    result = {
        "name": "ingest",
        "command": "python -m benchmarks.ingest --json FILE",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
        "conditions": f"60,000 Fashion-MNIST PNG, {options.photos} JPEG of 1280 x 960, warm page "
        f"cache; medians of {options.runs} runs, both sides in turn",
        "figures": figures,
    }
    text = json.dumps(result, indent=2) + "\n"
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()

"""Ingest beside a bare Pillow decode loop of the same files, with the same processes.

    regraft bench ingest --json benchmarks/results/ingest.json

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
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.result import Figure, Measured, run_benchmark

CHECKOUT = Path(__file__).resolve().parents[1]
SHARE_GOAL, MEMORY_GOAL = ">= 0.8", "<= 1.15"
SIZES = {"small": 6_000, "large": 60_000}


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
        with Image.open(file) as image:
            image.load()
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
    from components.ingest.ingest import ingest
    from regraft_core.formats.options import IngestOptions

    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        start = time.perf_counter()
        ingest([str(folder)], Path(out) / "dataset", IngestOptions(processes=processes))
        return time.perf_counter() - start


def measured(side: str, folder: Path, processes: int) -> dict[str, float]:
    """Run one side in a new process; return its seconds and peak memory (KiB, all processes)."""
    command = [sys.executable, "-m", "benchmarks.ingest", side, str(folder), str(processes)]
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=CHECKOUT
    ).stdout
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


def speed_figures(name: str, folder: Path, count: int, runs: int) -> dict[str, Figure]:
    """Measure both sides in turn at 1 and 2 processes, by the clock and by CPU time."""
    figures: dict[str, Figure] = {}
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
            figures[f"{side}_{suffix}"] = Figure(count / value["seconds"], "images/s")
        share = medians["bare"]["seconds"] / medians["ingest"]["seconds"]
        figures[f"share_of_bare_{suffix}"] = Figure(share, goal=SHARE_GOAL)
        share_of_cpu = medians["bare"]["cpu"] / medians["ingest"]["cpu"]
        figures[f"share_of_bare_by_cpu_time_{suffix}"] = Figure(share_of_cpu)
    return figures


def memory_figures(small: Path, large: Path) -> dict[str, Figure]:
    """Compare the peak memory of ten times the images, at 2 processes."""
    peaks = [measured("ingest", folder, 2)["peak"] / 1024 for folder in (small, large)]
    return {
        "peak_memory_6000": Figure(peaks[0], "MiB"),
        "peak_memory_60000": Figure(peaks[1], "MiB"),
        "peak_memory_ratio": Figure(peaks[1] / peaks[0], goal=MEMORY_GOAL),
    }


def write_images(work: Path, photos: int) -> None:
    """Write the images where they are not there yet."""
    from components.ingest.sources.samples import write_fashion

    for name, limit in SIZES.items():
        if not (work / name).exists():
            (work / name).mkdir(parents=True)
            write_fashion(work / name, limit=limit)
            shutil.rmtree(work / name / "test")
    if not (work / "photos").exists():
        write_photos(work / "photos", photos)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what may be varied."""
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--work", type=Path, help="A folder that keeps the images.")


def measure(options: argparse.Namespace) -> Measured:
    """Measure speed beside the bare loop, and the peak memory of two sizes."""
    with tempfile.TemporaryDirectory() as folder:
        work = (options.work or Path(folder)).absolute()
        write_images(work, options.photos)
        large = work / "large" / "train"
        figures = speed_figures("fashion_mnist", large, SIZES["large"], options.runs)
        figures |= speed_figures("photos", work / "photos", options.photos, options.runs)
        figures |= memory_figures(work / "small" / "train", large)
    return Measured(
        f"60,000 Fashion-MNIST PNG, {options.photos} JPEG of 1280 x 960, warm page cache; "
        f"medians of {options.runs} runs, both sides in turn",
        figures,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the figures."""
    run_benchmark("ingest", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    one_side(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))

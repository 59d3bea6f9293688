"""Ingest compared with a bare Pillow loop over the same files, with the same number of processes.

    regraft bench ingest --json benchmarks/results/ingest.json

The Pillow loop calls `Image.open(file).load()`. Ingest is timed from the call to the finished
dataset. Each measurement runs in a new process, ingest and Pillow in turn, and the metrics are
medians. Both read the same files from disk; imports are not timed. With two processes, both fork
them inside the timed code.

The ratio of CPU time is the same comparison in CPU seconds. Other load on the machine disturbs it
less, but it does not show how busy the processes are.

`--only forms` measures ingest of WebDataset shards and class folders of the same images, in turn;
`--only pillow` all else. The metrics of the other part stay in the result.

Fashion-MNIST comes from Debian's package dataset-fashion-mnist. The photographs are crops of the
two that scikit-learn ships, enlarged to 1280 x 960 JPEG.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.result import Measurement, Metric, read_metrics, run_benchmark

CHECKOUT = Path(__file__).resolve().parents[1]
SPEED_GOAL, MEMORY_GOAL, FORM_GOAL = ">= 0.8", "<= 1.15", ">= 0.9"
PARTS = ("pillow", "forms")
SHARD_IMAGES = 10_000
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


def write_shards(folder: Path, target: Path) -> Path:
    """Write the images of class folders to WebDataset shards; return their pattern."""
    target.mkdir(parents=True, exist_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    np.random.default_rng(0).shuffle(files)  # type: ignore[arg-type]
    shards = range(0, len(files), SHARD_IMAGES)
    for number, start in enumerate(shards):
        with tarfile.open(target / f"images-{number:03d}.tar", "w") as archive:
            for position, path in enumerate(files[start : start + SHARD_IMAGES]):
                label = path.parent.name.encode()
                for kind, data in ((path.suffix, path.read_bytes()), (".cls", label)):
                    member = tarfile.TarInfo(f"{position:06d}{kind}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return target / f"images-{{000..{len(shards) - 1:03d}}}.tar"


def decode_files(files: list[str]) -> int:
    """Open and decode each file; return the number of files."""
    for file in files:
        with Image.open(file) as image:
            image.load()
    return len(files)


def run_pillow(folder: Path, processes: int) -> float:
    """Return the seconds of the Pillow loop."""
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
    """Return the seconds of ingest, from the call to the finished dataset."""
    from components.ingest.ingest import ingest
    from regraft_core.formats.options.ingest import IngestOptions

    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        start = time.perf_counter()
        ingest([str(folder)], Path(out) / "dataset", IngestOptions(processes=processes))
        return time.perf_counter() - start


def measure_in_process(side: str, folder: Path, processes: int) -> dict[str, float]:
    """Run one side in a new process; return its seconds and peak memory (KiB, all processes)."""
    command = [sys.executable, "-m", "benchmarks.ingest", side, str(folder), str(processes)]
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=CHECKOUT
    ).stdout
    values: dict[str, float] = json.loads(output.splitlines()[-1])
    return values


def print_one_side(side: str, folder: Path, processes: int) -> None:
    """Measure one side in this process and print the result as JSON."""
    before = cpu_seconds()
    seconds = (run_pillow if side == "pillow" else run_ingest)(folder, processes)
    cpu = cpu_seconds() - before
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    peak = own + child * processes * (processes > 1)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak}))


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its terminated children."""
    return sum(os.times()[:4])


def speed_metrics(name: str, folder: Path, count: int, runs: int) -> dict[str, Metric]:
    """Measure both sides in turn with 1 and 2 processes: wall time and CPU time."""
    metrics: dict[str, Metric] = {}
    for processes in (1, 2):
        sides = {"pillow": ("pillow", folder), "ingest": ("ingest", folder)}
        medians = measure_in_turn(sides, processes, runs)
        suffix = f"{name}_{processes}_process{'es' if processes > 1 else ''}"
        for side, value in medians.items():
            metrics[f"{side}_{suffix}"] = Metric(count / value["seconds"], "images/s")
        ratio = medians["pillow"]["seconds"] / medians["ingest"]["seconds"]
        metrics[f"ratio_to_pillow_{suffix}"] = Metric(ratio, goal=SPEED_GOAL)
        cpu_ratio = medians["pillow"]["cpu"] / medians["ingest"]["cpu"]
        metrics[f"cpu_ratio_to_pillow_{suffix}"] = Metric(cpu_ratio)
    return metrics


def measure_in_turn(
    sides: dict[str, tuple[str, Path]], processes: int, runs: int
) -> dict[str, dict[str, float]]:
    """Return the medians of each side, given as what to run and on what."""
    measurements: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    order = [*sides.items()]
    for _ in range(runs):
        for name, (side, source) in order:
            measurements[name].append(measure_in_process(side, source, processes))
        order.reverse()  # so that no side always follows the other
    return {
        name: {key: statistics.median(value[key] for value in values) for key in values[0]}
        for name, values in measurements.items()
    }


def form_metrics(name: str, folder: Path, shards: Path, count: int, runs: int) -> dict[str, Metric]:
    """Measure ingest of class folders and of WebDataset shards in turn, with 1 and 2 processes."""
    metrics: dict[str, Metric] = {}
    for processes in (1, 2):
        sides = {"folder": ("ingest", folder), "web_dataset": ("ingest", shards)}
        medians = measure_in_turn(sides, processes, runs)
        suffix = f"{name}_{processes}_process{'es' if processes > 1 else ''}"
        for side, value in medians.items():
            metrics[f"{side}_{suffix}"] = Metric(count / value["seconds"], "images/s")
            metrics[f"{side}_peak_memory_{suffix}"] = Metric(value["peak"] / 1024, "MiB")
        for key, what in (("seconds", "ratio"), ("cpu", "cpu_ratio")):
            ratio = medians["folder"][key] / medians["web_dataset"][key]
            goal = FORM_GOAL if key == "seconds" else ""
            metrics[f"{what}_to_folder_{suffix}"] = Metric(ratio, goal=goal)
    return metrics


def memory_metrics(small: Path, large: Path) -> dict[str, Metric]:
    """Compare the peak memory for ten times the images, with 2 processes."""
    peaks = [measure_in_process("ingest", folder, 2)["peak"] / 1024 for folder in (small, large)]
    return {
        "peak_memory_6000": Metric(peaks[0], "MiB"),
        "peak_memory_60000": Metric(peaks[1], "MiB"),
        "peak_memory_ratio": Metric(peaks[1] / peaks[0], goal=MEMORY_GOAL),
    }


def write_images(work: Path, photos: int) -> None:
    """Write the images unless `work` has them."""
    from components.ingest.sources.samples import write_fashion

    for name, limit in SIZES.items():
        if not (work / name).exists():
            (work / name).mkdir(parents=True)
            write_fashion(work / name, limit=limit)
            shutil.rmtree(work / name / "test")
    if not (work / "photos").exists():
        write_photos(work / "photos", photos)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--only", choices=PARTS, help="Measure only this part.")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--work", type=Path, help="Folder that keeps the images for the next run.")


def measure(options: argparse.Namespace) -> Measurement:
    """Measure the parts that `--only` selects; the metrics of the other stay in the result."""
    parts = [options.only] if options.only else PARTS
    metrics = read_metrics(options.json)
    with tempfile.TemporaryDirectory() as folder:
        work = (options.work or Path(folder)).absolute()
        write_images(work, options.photos)
        for part in parts:
            metrics |= (measure_forms if part == "forms" else measure_pillow)(options, work)
    return Measurement(
        f"60,000 Fashion-MNIST PNG, {options.photos} JPEG of 1280 x 960, warm page cache; medians "
        f"of {options.runs} runs; ingest and Pillow, or folders and shards, in turn",
        metrics,
        parts,
    )


def measure_pillow(options: argparse.Namespace, work: Path) -> dict[str, Metric]:
    """Measure the speed compared with Pillow, and the peak memory for two sizes."""
    large = work / "large" / "train"
    metrics = speed_metrics("fashion_mnist", large, SIZES["large"], options.runs)
    metrics |= speed_metrics("photos", work / "photos", options.photos, options.runs)
    return metrics | memory_metrics(work / "small" / "train", large)


def measure_forms(options: argparse.Namespace, work: Path) -> dict[str, Metric]:
    """Measure the speed of WebDataset shards compared with that of class folders."""
    metrics: dict[str, Metric] = {}
    large = work / "large" / "train"
    sets = (("fashion_mnist", large, SIZES["large"]), ("photos", work / "photos", options.photos))
    for name, folder, count in sets:
        shards = write_shards(folder, work / "shards" / name)
        os.sync()  # not while ingest is timed
        metrics |= form_metrics(name, folder, shards, count, options.runs)
    return metrics


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("ingest", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    print_one_side(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))

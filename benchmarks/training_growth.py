"""How time and memory of extraction and head training grow with the number of pictures."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.result import Figure

COUNTS = (1_000, 10_000, 50_000)
BACKBONE, IMAGE_PX = "tiny", 32


def growth(work: Path, _seeds: int = 0) -> Iterator[tuple[str, Figure]]:
    """Yield seconds and peak memory of both steps for each number of pictures.

    Each number is a process of its own, as memory is told by its peak.
    """
    seconds: dict[int, float] = {}
    megabytes: dict[int, float] = {}
    for count in COUNTS:
        out = work / str(count)
        command = [sys.executable, "-m", "benchmarks.training_growth", str(count), str(out)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        told = dict(line.split() for line in done.stdout.splitlines() if not line.startswith("["))
        for name in ("extraction", "head"):
            yield f"growth_{name}_{count}", Figure(float(told[name]), "s")
        yield f"growth_memory_{count}", Figure(float(told["memory"]), "MB")
        seconds[count], megabytes[count] = float(told["extraction"]), float(told["memory"])
    least, middle, most = COUNTS
    share = (seconds[most] - seconds[middle]) / (most - middle)
    share /= (seconds[middle] - seconds[least]) / (middle - least)
    yield "growth_time_a_picture", Figure(share)
    yield "growth_memory_times", Figure(megabytes[most] / megabytes[least])


def _one(count: int, work: Path) -> None:
    """Ingest the first `count` pictures of Fashion-MNIST and run both steps; print the figures."""
    from components.core.options import FeatureOptions, HeadOptions, IngestOptions
    from components.extract_features.extract_features import extract_features
    from components.ingest.ingest import ingest
    from components.ingest.samples import write_fashion
    from components.train_head.train_head import train_head

    (work / "pictures").mkdir(parents=True)
    write_fashion(work / "pictures", limit=count)
    # Only the training part counts: all of it is trained on and validated with, but for few.
    fractions = {"validation_fraction": 0.02, "test_fraction": 0.02}
    ingest(
        [str(work / "pictures" / "train")],
        work / "dataset",
        IngestOptions(near_duplicates="off", min_per_class=1, **fractions),
    )
    start = time.perf_counter()
    options = FeatureOptions(backbone=BACKBONE, image_px=IMAGE_PX)
    extract_features(work / "dataset", work / "features", options)
    middle = time.perf_counter()
    train_head([work / "features"], work / "head", HeadOptions(head_epochs=20, patience=20))
    end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"extraction {middle - start}\nhead {end - middle}\nmemory {peak}")


if __name__ == "__main__":
    _one(int(sys.argv[1]), Path(sys.argv[2]))

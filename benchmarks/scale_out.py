"""How well the cost model of `regraft estimate` foretells extraction on 1, 2 and 4 workers.

Each worker is the step's own function in a process of its own, one after the other, so that each
has the machine for itself as a node would. One more before them is not counted: it reads libraries
and images from the disk, the others from memory. Start and rate are fitted to two workers (the
one that has all shards, and the one of four with the fewest); the others are foretold and compared.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.result import Figure, Measured, run_benchmark
from components.ingest.ingest import ingest
from components.ingest.sources.samples import write_fashion
from pipelines.cluster.runtime_estimate import Rates, extraction_s, fit_rates
from regraft_core.formats.manifests import FeaturesManifest
from regraft_core.formats.options import IngestOptions

WORKERS = (1, 2, 4)
_STEP = """
import sys
from regraft_core.formats.options import FeatureOptions
from components.extract_features.extract_features import extract_features
dataset, out, backbone, px, index, count = sys.argv[1:]
options = FeatureOptions(backbone=backbone, image_px=int(px))
extract_features(dataset, out, options, int(index), int(count))
"""


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("scale_out", __doc__, _add_options, _measure, arguments)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=19_200, help="Of Fashion-MNIST's train part.")
    parser.add_argument("--backbone", default="efficientnet_lite0", help="Backbone to run.")
    parser.add_argument("--image-px", type=int, default=64, help="Side of the images.")


def _measure(given: argparse.Namespace) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_fashion(root / "images", limit=given.images)
        ingest([str(root / "images")], root / "dataset", IngestOptions())
        _worker(root, "warm-up", given, 0, max(WORKERS))
        took = {
            count: [
                _worker(root, f"features-{index}-of-{count}", given, index, count)
                for index in range(count)
            ]
            for count in WORKERS
        }
    rates = fit_rates(took[1][0], min(took[4]), Rates())
    figures = {
        "start": Figure(rates.start_s, "s"),
        "rate": Figure(rates.extract_rate, "images/s"),
        "alone": Figure(took[1][0][1], "s"),
    }
    for count in WORKERS[1:]:
        images, seconds = max(took[count])
        foretold = extraction_s(images, rates)
        figures[f"longest_of_{count}"] = Figure(seconds, "s")
        figures[f"foretold_of_{count}"] = Figure(foretold, "s")
        figures[f"off_by_of_{count}"] = Figure(abs(foretold / seconds - 1), "", "<= 0.1")
        figures[f"efficiency_of_{count}"] = Figure(took[1][0][1] / (count * seconds))
    shares = {count: [images for images, _ in took[count]] for count in WORKERS}
    return Measured(f"workers one after the other, images each: {shares}", figures)


def _worker(
    root: Path, name: str, given: argparse.Namespace, index: int, count: int
) -> tuple[int, float]:
    """Run one worker; return its images and its seconds, the start of the process included."""
    out = root / name
    values = [root / "dataset", out, given.backbone, given.image_px, index, count]
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", _STEP, *map(str, values)], check=True, capture_output=True
    )
    seconds = time.perf_counter() - start
    return sum(info.count for info in FeaturesManifest.read(out).shards), seconds


if __name__ == "__main__":
    main()

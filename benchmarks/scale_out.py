"""The accuracy of the cost model of `regraft estimate` for extraction on 1, 2 and 4 workers.

Each worker runs the step's function in a new process. The workers run one after the other, so that
each has the whole machine, as a node would. A warm-up worker before them is not counted: it reads
the libraries and images from disk, the others read them from memory. The start time and the rate
are fitted to two workers (the one with all shards, and the one of four with the fewest images).
The times of the other workers are predicted and compared.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.result import Measurement, Metric, run_benchmark
from components.ingest.ingest import ingest
from components.ingest.sources.samples import write_fashion
from pipelines.cluster.runtime_estimate import Rates, extraction_s, fit_rates
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.options.ingest import IngestOptions

WORKERS = (1, 2, 4)
_STEP = """
import sys
from regraft_core.formats.options.extract_features import FeatureOptions
from components.extract_features.extract_features import extract_features
dataset, out, backbone, px, index, count = sys.argv[1:]
options = FeatureOptions(backbone=backbone, image_px=int(px))
extract_features(dataset, out, options, int(index), int(count))
"""


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("scale_out", __doc__, _add_options, _measure, arguments)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", type=int, default=19_200, help="Training images of Fashion-MNIST."
    )
    parser.add_argument("--backbone", default="efficientnet_lite0", help="Backbone to run.")
    parser.add_argument("--image-px", type=int, default=64, help="Input image size in pixels.")


def _measure(options: argparse.Namespace) -> Measurement:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_fashion(root / "images", limit=options.images)
        ingest([str(root / "images")], root / "dataset", IngestOptions())
        _worker(root, "warm-up", options, 0, max(WORKERS))
        workers = {
            count: [
                _worker(root, f"features-{index}-of-{count}", options, index, count)
                for index in range(count)
            ]
            for count in WORKERS
        }
    rates = fit_rates(workers[1][0], min(workers[4]), Rates())
    metrics = {
        "start_time": Metric(rates.start_s, "s"),
        "extract_rate": Metric(rates.extract_rate, "images/s"),
        "one_worker": Metric(workers[1][0][1], "s"),
    }
    for count in WORKERS[1:]:
        images, seconds = max(workers[count])
        predicted = extraction_s(images, rates)
        metrics[f"slowest_of_{count}"] = Metric(seconds, "s")
        metrics[f"predicted_of_{count}"] = Metric(predicted, "s")
        metrics[f"relative_error_of_{count}"] = Metric(abs(predicted / seconds - 1), "", "<= 0.1")
        metrics[f"efficiency_of_{count}"] = Metric(workers[1][0][1] / (count * seconds))
    images_each = {count: [images for images, _ in workers[count]] for count in WORKERS}
    return Measurement(f"workers one after the other, images of each: {images_each}", metrics)


def _worker(
    root: Path, name: str, options: argparse.Namespace, index: int, count: int
) -> tuple[int, float]:
    """Run one worker; return its images and its seconds, including the start of the process."""
    out = root / name
    values = [root / "dataset", out, options.backbone, options.image_px, index, count]
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", _STEP, *map(str, values)], check=True, capture_output=True
    )
    seconds = time.perf_counter() - start
    return sum(info.count for info in FeaturesManifest.read(out).shards), seconds


if __name__ == "__main__":
    main()

"""Extraction from JPEG photographs, compared with what decoding and the engine allow together.

    regraft bench extraction --json benchmarks/results/extraction.json

`efficientnet_lite0` at 224 px and photographs of 0.2, 2 and 12 megapixels: crops of the two that
scikit-learn ships, enlarged, with the noise of a camera. In turn and in one process, as extraction
runs them: decoding alone, the engine alone, and whole `extract_features`, without its start, which
is that of a few images. Without a GPU, decoding and engine share the cores, so that their times add
up; the limit is their sum.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.result import Measurement, Metric, run_benchmark

BATCH, GOAL = 32, ">= 0.95"


@dataclass(frozen=True)
class Photos:
    """The photographs of one size, and how many more than `few` are extracted."""

    width: int
    height: int
    count: int
    few: int = 64
    backbone: str = "efficientnet_lite0"
    image_px: int = 224


SIZES = {
    "0_2_mp": Photos(512, 384, 960),
    "2_mp": Photos(1632, 1224, 480),
    "12_mp": Photos(4000, 3000, 128),
}


def write_photos(folder: Path, photos: Photos, count: int) -> Path:
    """Write different photographs in two class folders, and ingest them; return the dataset."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_image

    from components.ingest.ingest import ingest
    from regraft_core.formats.options import IngestOptions

    random = np.random.default_rng(0)
    noise = random.normal(0, 4, (photos.height, photos.width, 3)).astype(np.float32)
    for number in range(count):
        name = ("china.jpg", "flower.jpg")[number % 2]
        left, top = (int(random.integers(0, side)) for side in (140, 52))
        crop = Image.fromarray(load_sample_image(name)).crop((left, top, left + 500, top + 375))
        enlarged = np.asarray(crop.resize((photos.width, photos.height)), np.float32)
        moved = np.roll(noise, int(random.integers(0, noise.size)))
        pixels = np.clip(enlarged + moved, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        file = folder / "images" / Path(name).stem / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(buffer.getvalue())
    few_others = IngestOptions(near_duplicates="off", validation_fraction=0.02, test_fraction=0.02)
    ingest([str(folder / "images")], folder / "dataset", few_others)
    return folder / "dataset"


def measure_photos(work: Path, photos: Photos, rounds: int) -> dict[str, Metric]:
    """Measure the photographs of one size."""
    import keras
    import tensorflow as tf

    from benchmarks.training import count_of
    from components.extract_features.engines import STREAMS, Engine, build_network
    from components.extract_features.extract_features import extract_features
    from regraft_core.backbones.backbone_table import find_backbone
    from regraft_core.backbones.build import build_backbone
    from regraft_core.backbones.cuts import freeze
    from regraft_core.formats.options import FeatureOptions
    from regraft_core.formats.records import read_split
    from regraft_core.images.batch_decoding import decode_batches, make_decoder
    from regraft_core.images.prefetch import prefetch_map

    few, many = (
        write_photos(work / str(count), photos, count)
        for count in (photos.few, photos.few + photos.count)
    )
    options = FeatureOptions(
        backbone=photos.backbone,
        image_px=photos.image_px,
        batch_size=BATCH,
        keep_cut=False,
        levels="last",
    )
    records = list(read_split(many, "train"))
    records = records[: len(records) // BATCH * BATCH]
    decode = make_decoder(photos.image_px)
    batch = decode(tf.constant([record.encoded for record in records[:BATCH]]))
    # Extraction races its engines, and keeps the result for the rounds.
    manifest = extract_features(many, work / "first", options)
    row = find_backbone(photos.backbone)
    model = build_backbone(row, photos.image_px)
    freeze(model)
    pooled = keras.layers.GlobalAveragePooling2D()(model.output)
    extractor = keras.Model(model.input, {"gap": pooled})
    half: Any = "" if manifest.precision == "float32" else manifest.precision
    engine = Engine(manifest.engine, half)
    network = build_network(engine, model, extractor, row, BATCH)
    network(batch)

    def decoding() -> None:
        for _ in decode_batches(records, BATCH, decode):
            pass

    def computing() -> None:
        for _ in prefetch_map(network, [batch] * (len(records) // BATCH), STREAMS):
            pass

    seconds: dict[str, list[float]] = {"decode": [], "forward": [], "extraction": []}
    for number in range(rounds):
        seconds["decode"].append(timed(decoding) / len(records))
        seconds["forward"].append(timed(computing) / len(records))
        few_s = timed(lambda: extract_features(few, work / f"few{number}", options))  # noqa: B023
        many_s = timed(lambda: extract_features(many, work / f"many{number}", options))  # noqa: B023
        seconds["extraction"].append((many_s - few_s) / (count_of(many) - count_of(few)))
    image_s = {name: statistics.median(values) for name, values in seconds.items()}
    limit_s = image_s["decode"] + image_s["forward"]
    return {
        **{f"{name}_speed": Metric(1 / value, "images/s") for name, value in image_s.items()},
        "limit": Metric(1 / limit_s, "images/s"),
        "ratio_to_limit": Metric(limit_s / image_s["extraction"], "", GOAL),
    }


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rounds", type=int, default=3)


def measure(options: argparse.Namespace) -> Measurement:
    """Measure all sizes."""
    metrics = {}
    for name, photos in SIZES.items():
        with tempfile.TemporaryDirectory() as work:
            found = measure_photos(Path(work), photos, options.rounds)
        metrics |= {f"{name}_{metric}": value for metric, value in found.items()}
    return Measurement(
        f"no GPU; efficientnet_lite0 at 224 px, batches of {BATCH}, last level; median of "
        f"{options.rounds} rounds",
        metrics,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("extraction", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()

"""Extraction from JPEG photographs, compared with what decoding and the engine allow together.

    regraft bench extraction --json benchmarks/results/extraction.json

`efficientnet_lite0` at 224 px and photographs of 0.2, 2 and 12 megapixels: crops of the two that
scikit-learn ships, enlarged, with the noise of a camera, each of them several times. In turn and in
one process, as extraction runs them: decoding alone, the engine alone, and whole
`extract_features`, without its start, which is that of fewer images. These are enough for batches
of nearly the full size, for which the engine and the allocator prepare at the start. Without a GPU,
decoding and engine share the cores, so that their times add up; the limit is their sum.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.export import write_large_photos, write_photo_copies
from benchmarks.result import Measurement, Metric, run_benchmark

BATCH, GOAL = 32, ">= 0.95"


@dataclass(frozen=True)
class Photos:
    """The photographs of one size, and how many more than `few` are extracted.

    All are copies of `originals`.
    """

    width: int
    height: int
    count: int
    few: int = 512
    originals: int = 64
    backbone: str = "efficientnet_lite0"
    image_px: int = 224


SIZES = {
    "0_2_mp": Photos(512, 384, 1920),
    "2_mp": Photos(1632, 1224, 1440),
    "12_mp": Photos(4000, 3000, 1280),
}


def write_dataset(folder: Path, photos: Path, count: int) -> Path:
    """Write copies of photographs in two class folders, and ingest them; return the dataset."""
    from components.ingest.ingest import ingest
    from regraft_core.formats.options.ingest import IngestOptions

    write_photo_copies(photos, folder / "images", count)
    few_others = IngestOptions(near_duplicates="off", validation_fraction=0.02, test_fraction=0.02)
    ingest([str(folder / "images")], folder / "dataset", few_others)
    shutil.rmtree(folder / "images")
    return folder / "dataset"


def measure_photos(work: Path, large: Photos, rounds: int) -> dict[str, Metric]:
    """Measure the photographs of one size."""
    import keras
    import tensorflow as tf

    from benchmarks.training import count_of, timed
    from components.extract_features.engines import STREAMS, Engine, build_network
    from components.extract_features.extract_features import extract_features
    from regraft_core.backbones.backbone_table import find_backbone
    from regraft_core.backbones.build import build_backbone
    from regraft_core.backbones.cuts import freeze
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.formats.records import read_split
    from regraft_core.images.batch_decoding import decode_batches, make_decoder
    from regraft_core.images.prefetch import prefetch_map

    write_large_photos(work / "photos", large.originals, large.width, large.height)
    few, many = (
        write_dataset(work / str(count), work / "photos", count)
        for count in (large.few, large.few + large.count)
    )
    options = FeatureOptions(
        backbone=large.backbone,
        image_px=large.image_px,
        batch_size=BATCH,
        keep_cut=False,
        levels="last",
    )
    manifest = extract_features(many, work / "first", options)  # sets up TensorFlow, so it is first
    records = list(read_split(many, "train"))
    records = records[: len(records) // BATCH * BATCH]
    decode = make_decoder(large.image_px)
    batch = decode(tf.constant([record.encoded for record in records[:BATCH]]))
    row = find_backbone(large.backbone)
    model = build_backbone(row, large.image_px)
    freeze(model)
    pooled = keras.layers.GlobalAveragePooling2D()(model.output)
    extractor = keras.Model(model.input, {"gap": pooled})
    half: Any = "" if manifest.precision == "float32" else manifest.precision
    # In each round the chosen engine, without a race, whose time does not depend on the images.
    options = options.model_copy(
        update={"feature_engine": manifest.engine, "precision": manifest.precision}
    )
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rounds", type=int, default=5)


def measure(options: argparse.Namespace) -> Measurement:
    """Measure all sizes."""
    metrics = {}
    for name, large in SIZES.items():
        with tempfile.TemporaryDirectory() as work:
            found = measure_photos(Path(work), large, options.rounds)
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

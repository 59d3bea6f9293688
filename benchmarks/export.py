"""The exported model: export time, speed compared with its parts, size on disk.

    regraft bench export --json benchmarks/results/export.json

`efficientnet_lite0` at 224 px with a head of three classes; JPEG crops of 500 x 375 of the two
photographs that scikit-learn ships. Decoding (with resizing) and the backbone (with scaling and
head) run separately and as one signature, in turn, in one process. Speeds are those of the median
times. Large photographs, enlarged crops with noise, are also decoded whole, which loading avoids.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.result import Measurement, Metric, run_benchmark

SECONDS_GOAL, SPEED_GOAL, SIZE_GOAL, PHOTO_GOAL = "<= 20", ">= 0.9", "<= 1.25", ">= 1.7"
LARGE = {"2_mp": (1632, 1224), "12_mp": (4000, 3000)}
BACKBONE, PX = "efficientnet_lite0", 224


def photos(count: int) -> list[bytes]:
    """Return `count` JPEG images of 500 x 375."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_image

    random = np.random.default_rng(0)
    made = []
    for number in range(count):
        whole = Image.fromarray(load_sample_image(("china.jpg", "flower.jpg")[number % 2]))
        left, top = (int(random.integers(0, side)) for side in (140, 52))
        buffer = io.BytesIO()
        whole.crop((left, top, left + 500, top + 375)).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def medians(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each function, run in turn after two warm-up rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 2):
        for name, run in functions.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[2:]) for name, values in seconds.items()}


def export_once(folder: Path) -> tuple[Path, Metric]:
    """Export a new candidate to `folder/saved_model`; return the candidate and the export time."""
    from components.export.export import export
    from tests.components.export.building import build

    built = build(folder, backbone=BACKBONE, px=PX)
    start = time.perf_counter()
    export(built.candidate, built.evaluation, built.dataset, folder / "saved_model")
    return built.candidate, Metric(time.perf_counter() - start, "s", SECONDS_GOAL)


def speed_metrics(candidate: Path, saved_model: Path, rounds: int) -> dict[str, Metric]:
    """Measure decoding and backbone separately and as one signature, for batches of 1 and 32."""
    import tensorflow as tf

    from regraft_core.images.preprocess import load_images, scale
    from regraft_core.training.model_files import load_model

    model, manifest = load_model(candidate)
    scaling = manifest.preprocessing.scaling
    decode = tf.function(
        lambda encoded: load_images(encoded, PX),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    backbone = tf.function(
        lambda pixels: model(scale(pixels, scaling), training=False),
        input_signature=[tf.TensorSpec([None, PX, PX, 3], tf.float32)],
        autograph=False,
    )
    loaded = tf.saved_model.load(str(saved_model))
    signature = loaded.signatures["serving_default"]
    metrics = {}
    for size in (1, 32):
        encoded = tf.constant(photos(size))
        pixels = decode(encoded)
        functions = {
            "decode": lambda encoded=encoded: decode(encoded).numpy(),
            "backbone": lambda pixels=pixels: backbone(pixels).numpy(),
            "bytes": lambda encoded=encoded: signature(image_bytes=encoded)["label"].numpy(),
        }
        seconds = medians(functions, rounds if size > 1 else rounds * 6)
        for name, value in seconds.items():
            metrics[f"{name}_batch_{size}"] = Metric(size / value, "images/s")
        separate = seconds["decode"] + seconds["backbone"]
        ratio = separate / seconds["bytes"]
        metrics[f"ratio_to_separate_batch_{size}"] = Metric(ratio, goal=SPEED_GOAL)
    return metrics


def large_photo(photo: bytes, width: int, height: int, seed: int = 0) -> bytes:
    """Return a photo enlarged, with the noise of a camera: its coefficients are not mostly zero."""
    import numpy as np
    from PIL import Image

    enlarged = Image.open(io.BytesIO(photo)).resize((width, height))
    noise = np.random.default_rng(seed).normal(0, 4, (height, width, 3))
    pixels = np.clip(np.asarray(enlarged) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_large_photos(folder: Path, count: int, width: int, height: int) -> None:
    """Write different large photographs in a folder for each of two classes."""
    for number, photo in enumerate(photos(count)):
        file = folder / ("china", "flower")[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(large_photo(photo, width, height, seed=number))


def write_photo_copies(originals: Path, target: Path, count: int) -> None:
    """Write copies of such photographs, which ingest keeps: each has a comment of its own."""
    files = sorted(originals.glob("*/*.jpg"))
    images = [(path.parent.name, path.read_bytes()) for path in files]
    for number in range(count):
        label, image = images[number % len(images)]
        folder = target / label
        folder.mkdir(parents=True, exist_ok=True)
        comment = b"%08d" % number
        segment = struct.pack(">HH", 0xFFFE, 2 + len(comment)) + comment
        (folder / f"{number}.jpg").write_bytes(image[:2] + segment + image[2:])


def photo_metrics(rounds: int) -> dict[str, Metric]:
    """Compare loading large photographs with decoding them whole, then resizing."""
    import tensorflow as tf

    from regraft_core.images.preprocess import decode_image, load_images

    one = [tf.TensorSpec([], tf.string)]
    load = tf.function(lambda image: load_images(image[None], PX)[0], input_signature=one)
    whole = tf.function(
        lambda image: tf.image.resize(decode_image(image), [PX, PX], antialias=True),
        input_signature=one,
    )
    metrics = {}
    for name, sides in LARGE.items():
        image = tf.constant(large_photo(photos(1)[0], *sides))
        seconds = medians({"whole": lambda i=image: whole(i).numpy(),
                           "loaded": lambda i=image: load(i).numpy()}, rounds)  # fmt: skip
        difference = float(tf.reduce_mean(tf.abs(whole(image) - load(image))))
        metrics |= {
            f"photo_{name}_whole": Metric(1000 * seconds["whole"], "ms"),
            f"photo_{name}": Metric(1000 * seconds["loaded"], "ms"),
            f"photo_{name}_difference": Metric(difference, "of 255"),
        }
    speedup = seconds["whole"] / seconds["loaded"]
    return metrics | {"photo_12_mp_speedup": Metric(speedup, goal=PHOTO_GOAL)}


def size_metrics(candidate: Path, saved_model: Path) -> dict[str, Metric]:
    """Compare the size of the exported model with that of the trained model."""
    from regraft_core.training.model_files import MODEL_FILE

    exported = sum(path.stat().st_size for path in saved_model.rglob("*") if path.is_file())
    trained = (candidate / MODEL_FILE).stat().st_size
    return {
        "saved_model": Metric(exported / 1e6, "MB"),
        "keras_file": Metric(trained / 1e6, "MB"),
        "size_ratio": Metric(exported / trained, goal=SIZE_GOAL),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rounds", type=int, default=15)


def measure(options: argparse.Namespace) -> Measurement:
    """Export once and measure."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        candidate, export_time = export_once(folder)
        speed = speed_metrics(candidate, folder / "saved_model", options.rounds)
        photo = photo_metrics(options.rounds)
        sizes = size_metrics(candidate, folder / "saved_model")
    return Measurement(
        f"{BACKBONE} at {PX} px, CPU, load average {load:.1f} at the start",
        {"export": export_time, **speed, **photo, **sizes},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("export", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()

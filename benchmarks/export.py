"""The exported model beside its parts: export time, speed of the bytes signature, size on disk.

    python -m benchmarks.export --json benchmarks/results/export.json

`efficientnet_lite0` at 224 px with a head of three classes; JPEG crops of 500 x 375 of the two
photographs that scikit-learn ships. Decoding (with resizing) and backbone (with scaling and head)
run apart and then together, in turn, in one process; speeds are of the median times.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS_GOAL, SHARE_GOAL, SIZE_GOAL = 20.0, 0.9, 1.25
BACKBONE, PX = "efficientnet_lite0", 224


def photos(count: int) -> list[bytes]:
    """Return `count` JPEG pictures of 500 x 375."""
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


def medians(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each side, run in turn; the first two rounds warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 2):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[2:]) for name, values in seconds.items()}


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Export once and measure; return the figures."""
    import tensorflow as tf

    from components.core.models import MODEL_FILE, load_model
    from components.core.preprocess import load_pictures, scale
    from components.export.export import export
    from tests.export.building import build

    built = build(folder, backbone=BACKBONE, px=PX)
    start = time.perf_counter()
    export([built.candidate], built.evaluation, built.dataset, folder / "saved_model")
    figures = {"export": figure(time.perf_counter() - start, "s", SECONDS_GOAL, at_most=True)}

    model, manifest = load_model(built.candidate)
    scaling = manifest.preprocessing.scaling
    decode = tf.function(
        lambda encoded: load_pictures(encoded, PX),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )
    backbone = tf.function(
        lambda pixels: model(scale(pixels, scaling), training=False),
        input_signature=[tf.TensorSpec([None, PX, PX, 3], tf.float32)],
        autograph=False,
    )
    loaded = tf.saved_model.load(str(folder / "saved_model"))
    signature = loaded.signatures["serving_default"]
    for size in (1, 32):
        encoded = tf.constant(photos(size))
        pixels = decode(encoded)
        sides = {
            "decode": lambda encoded=encoded: decode(encoded).numpy(),
            "backbone": lambda pixels=pixels: backbone(pixels).numpy(),
            "bytes": lambda encoded=encoded: signature(image_bytes=encoded)["label"].numpy(),
        }
        seconds = medians(sides, rounds if size > 1 else rounds * 6)
        for name, value in seconds.items():
            figures[f"{name}_batch_{size}"] = figure(size / value, "pictures/s")
        apart = seconds["decode"] + seconds["backbone"]
        share = apart / seconds["bytes"]
        figures[f"share_of_apart_batch_{size}"] = figure(share, "share", SHARE_GOAL)
    exported = sum(p.stat().st_size for p in (folder / "saved_model").rglob("*") if p.is_file())
    trained = (built.candidate / MODEL_FILE).stat().st_size
    figures["saved_model"] = figure(exported / 1e6, "MB")
    figures["keras_file"] = figure(trained / 1e6, "MB")
    figures["size_share"] = figure(exported / trained, "share", SIZE_GOAL, at_most=True)
    return figures


def figure(
    value: float, unit: str, goal: float | None = None, *, at_most: bool = False
) -> dict[str, Any]:
    """Return one figure as the results hold it."""
    holds = None if goal is None else bool(value <= goal if at_most else value >= goal)
    return {"value": round(value, 4), "unit": unit, "goal": goal, "holds": holds}


def main() -> None:
    """Measure and print or write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), arguments.rounds)
    result = {
        "name": "export",
        "command": f"python -m benchmarks.export --rounds {arguments.rounds}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "conditions": f"{BACKBONE} at {PX} px, CPU, load average {load:.1f} at the start",
        "figures": figures,
    }
    text = json.dumps(result, indent=2) + "\n"
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()

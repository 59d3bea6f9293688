"""The precisions that an extraction on a CPU chooses from, for several backbones.

    regraft bench engines --json benchmarks/results/engines.json

Each backbone computes batches of noise with random weights, in float32 (with Winograd's convolution
where extraction uses it) and in bfloat16, in turn, the shortest of `--rounds` times. The choice is
that of an extraction of 100,000 images.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.result import Measurement, Metric, run_benchmark

BACKBONES = {"efficientnet_lite0": 224, "vgg16": 150, "resnet50": 224, "mobilenetv2": 224}
BATCH, IMAGES = 32, 100_000
GOAL = ">= 0.95"


def measure_backbone(name: str, image_px: int, rounds: int) -> dict[str, Metric]:
    """Measure one backbone in each precision, and what an extraction would choose."""
    import keras
    import numpy as np

    from components.extract_features.precision_race import Work, faster_precision, prepare_forward
    from regraft_core.backbones.backbone_table import find_backbone
    from regraft_core.backbones.build import build_backbone
    from regraft_core.backbones.cuts import freeze

    keras.utils.set_random_seed(0)
    backbone = find_backbone(name)
    model = build_backbone(backbone, image_px, "random")
    freeze(model)
    pooled = keras.layers.GlobalAveragePooling2D()(model.output)
    extractor = keras.Model(model.input, {"gap": pooled})

    def prepare(half: Any) -> Any:
        return prepare_forward(model, extractor, backbone, BATCH, half)

    forwards = {"float32": prepare(""), "bfloat16": prepare("bfloat16")}
    features = {kind: forward() for kind, forward in forwards.items()}
    seconds = dict.fromkeys(forwards, float("inf"))
    for _ in range(rounds):
        for kind, forward in forwards.items():
            start = time.perf_counter()
            forward()
            seconds[kind] = min(seconds[kind], time.perf_counter() - start)
    chosen = faster_precision(Work((name,), IMAGES, image_px, BATCH), prepare) or "float32"
    exact = features["float32"]
    error = np.linalg.norm(features["bfloat16"] - exact) / np.linalg.norm(exact)
    rates = {kind: BATCH / value for kind, value in seconds.items()}
    best = max(rates.values())
    return {
        **{f"{name}_{kind}": Metric(rate, "images/s") for kind, rate in rates.items()},
        f"{name}_bfloat16_error": Metric(float(error)),
        f"{name}_choice_bfloat16": Metric(float(chosen == "bfloat16")),
        f"{name}_choice_of_best": Metric(rates[chosen] / best, goal=GOAL),
    }


def processor_features() -> str:
    """Return which of the instructions for half precision this processor has."""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
        return ", ".join(flag for flag in ("amx_bf16", "avx512_bf16", "avx512f") if flag in flags)
    return ""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rounds", type=int, default=8)


def measure(options: argparse.Namespace) -> Measurement:
    """Measure all backbones, without results that are kept."""
    from components.extract_features import precision_race

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        precision_race.KEPT_FILE = Path(folder) / "precision.json"
        metrics = {}
        for name, image_px in BACKBONES.items():
            metrics |= measure_backbone(name, image_px, options.rounds)
    return Measurement(
        f"batches of {BATCH}, sides {BACKBONES} px; "
        f"instructions {processor_features() or 'unknown'}; load average {load:.1f} at the start",
        metrics,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("engines", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()

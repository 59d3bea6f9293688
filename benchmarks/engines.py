"""The engines that an extraction chooses from on this machine, and its choice.

    regraft bench engines --json benchmarks/results/engines.json

Each possible engine computes `--rounds` rounds of batches of noise, in turn; the shortest counts.
On a GPU, XLA takes up to half a minute to compile each of its engines. TensorFlow's engines have no
prefix. The choice is that of an extraction of 100,000 images, whose race stops losers early; it is
compared with the fastest of the engines whose features agree.

Peers in the same run: `predict` of Keras and, with `--torch`, PyTorch with the model of timm in
channels-last order. They compute the same network up to its pooled features.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.result import Measurement, Metric, run_benchmark
from regraft_core.runtime.errors import InputError

if TYPE_CHECKING:
    from components.extract_features.engines import Engine

BACKBONES = {"efficientnet_lite0": 224, "vgg16": 150, "resnet50": 224, "mobilenetv2": 224}
TIMM_NAMES = {"mobilenetv2": "mobilenetv2_100"}  # the others have the same name there
TORCH_FORWARD = Path(__file__).with_name("torch_forward.py")
# Only its weights come with a package.
WITH_WEIGHTS = "efficientnet_lite0"
BATCH, IMAGES = 32, 100_000
GOAL = ">= 0.95"


def measure_backbone(
    name: str, image_px: int, rounds: int, torch: Path | None = None
) -> dict[str, Metric]:
    """Measure one backbone with each engine and its peers, and what an extraction would choose."""
    import keras
    import numpy as np
    import tensorflow as tf

    from components.extract_features.engine_race import LARGEST_ERROR, choose_engine
    from components.extract_features.engines import (
        STREAMS,
        Network,
        build_network,
        difference,
        possible_engines,
    )
    from components.extract_features.kept_engines import Work
    from regraft_core.backbones.backbone_table import find_backbone
    from regraft_core.backbones.build import build_backbone
    from regraft_core.backbones.cuts import freeze
    from regraft_core.formats.options.extract_features import FeatureOptions
    from regraft_core.images.prefetch import prefetch_map
    from regraft_core.runtime.openvino_models import EngineError
    from regraft_core.training.mixed_precision import gpu_capabilities

    keras.utils.set_random_seed(0)
    backbone = find_backbone(name)
    model = build_backbone(backbone, image_px, "imagenet" if name == WITH_WEIGHTS else "random")
    freeze(model)
    pooled = keras.layers.GlobalAveragePooling2D()(model.output)
    extractor = keras.Model(model.input, {"gap": pooled})
    shape = (BATCH, *extractor.input.shape[1:])
    batch = tf.constant(np.random.default_rng(0).uniform(0, 255, shape), tf.float32)

    def build(engine: Engine) -> Network:
        size = engine.batch_size or BATCH
        return build_network(engine, model, extractor, backbone, size)

    engines = possible_engines(FeatureOptions(), gpu_capabilities())
    networks: dict[Engine, Network] = {}
    for engine in engines:
        with contextlib.suppress(EngineError):
            networks[engine] = build(engine)
    batches = {
        engine: tf.tile(batch, [max(engine.batch_size // BATCH, 1), 1, 1, 1]) for engine in networks
    }
    features = {
        engine: {name: array[:BATCH] for name, array in network(batches[engine]).items()}
        for engine, network in networks.items()
    }
    errors = {engine: difference(found, features[engines[0]]) for engine, found in features.items()}
    seconds = dict.fromkeys(networks, float("inf"))
    predicted = np.concatenate([batch] * STREAMS)
    extractor.predict(predicted, BATCH, verbose=0)
    predict_s = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        extractor.predict(predicted, BATCH, verbose=0)
        predict_s = min(predict_s, (time.perf_counter() - start) / len(predicted))
        for engine, network in networks.items():
            start = time.perf_counter()
            for _ in prefetch_map(network, [batches[engine]] * STREAMS, STREAMS):
                pass
            image_s = (time.perf_counter() - start) / STREAMS / len(batches[engine])
            seconds[engine] = min(seconds[engine], image_s)
    work = Work((name,), IMAGES, image_px, BATCH)
    chosen = choose_engine(engines, work, build, lambda: batch, alone=True).engine
    rates = {engine: 1 / value for engine, value in seconds.items()}
    best = max(rate for engine, rate in rates.items() if errors[engine] <= LARGEST_ERROR)
    metrics = {}
    for engine, rate in rates.items():
        metrics[f"{name}_{label(engine)}"] = Metric(rate, "images/s")
        metrics[f"{name}_{label(engine)}_error"] = Metric(errors[engine])
        metrics[f"{name}_{label(engine)}_chosen"] = Metric(float(engine == chosen))
    peers = {"keras_predict": 1 / predict_s}
    if torch:
        found = torch_rates(torch, name, image_px, rounds)
        peers |= {f"torch_{precision}": rate for precision, rate in found.items()}
    metrics |= {f"{name}_{peer}": Metric(rate, "images/s") for peer, rate in peers.items()}
    return metrics | {f"{name}_choice_of_best": Metric(rates[chosen] / best, goal=GOAL)}


def torch_rates(python: Path, name: str, image_px: int, rounds: int) -> dict[str, float]:
    """Return PyTorch's images per second by precision, measured by another Python.

    Raises:
        InputError: it cannot be run, or has no torch or timm.
    """
    values = [TIMM_NAMES.get(name, name), str(image_px), str(BATCH), str(rounds)]
    try:
        done = subprocess.run([python, "-I", TORCH_FORWARD, *values], capture_output=True,
                              text=True, check=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        text = getattr(error, "stderr", "") or str(error)
        raise InputError(
            f"torch: expected a Python with torch and timm: {text.strip().splitlines()[-1]}"
        ) from error
    rates: dict[str, float] = json.loads(done.stdout)
    return rates


def label(engine: Engine) -> str:
    """Return the name of an engine in the results."""
    return str(engine).removeprefix("tf ").replace(" ", "_")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument(
        "--torch", type=Path, help="Python of an environment with torch and timm, to compare with."
    )


def measure(options: argparse.Namespace) -> Measurement:
    """Measure the backbones, without results that are kept."""
    from components.extract_features import kept_engines
    from regraft_core.runtime.kept_results import KeptResults

    load = os.getloadavg()[0]
    chosen = {name: BACKBONES[name] for name in options.backbones}
    with tempfile.TemporaryDirectory() as folder:
        kept_engines.KEPT = KeptResults(Path(folder) / "engines.json")
        metrics = {}
        for name, image_px in chosen.items():
            metrics |= measure_backbone(name, image_px, options.rounds, options.torch)
    return Measurement(
        f"batches of {BATCH}, sides {chosen} px; load average {load:.1f} at the start",
        metrics,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("engines", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()

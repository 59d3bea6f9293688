"""Extraction with a network of each family of KerasHub, against Keras' `predict` of the same.

    regraft bench backbones --json benchmarks/results/backbones.json

The networks have the sizes of small published ones (ViT-S, Swin-T, MiT-B0, HGNetV2-B0) and random
weights, because the rates do not depend on their values. `forward` is the graph that an extraction
uses, with one batch at a time; `extraction` computes two at a time. Both return the pooled
features, `predict` all tokens of as many images as `extraction`. They take turns for `--seconds`,
at least three rounds; the shortest time of each counts.

No network is started that would end after `--minutes`, as the longest one before shows. The result
names those that are left; a run with `--networks` adds them to the file.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.result import Measurement, Metric, read_metrics, run_benchmark

BATCH, LEAST_ROUNDS = 8, 3
GOAL = ">= 1"
_SMALL = {"num_layers": 12, "num_heads": 6, "hidden_dim": 384}
# The class and its arguments; images have 224 px.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTBackbone", {**_SMALL, "patch_size": 16, "mlp_dim": 1536}),
    "deit": ("DeiTBackbone", {**_SMALL, "patch_size": 16, "intermediate_dim": 1536}),
    "dinov2": (
        "DINOV2Backbone",
        {**_SMALL, "patch_size": 14, "intermediate_dim": 1536,
         "position_embedding_shape": (518, 518, 3)},
    ),
    "dinov3": ("DINOV3Backbone", {**_SMALL, "patch_size": 16, "intermediate_dim": 1536}),
    "siglip": ("SigLIPVisionEncoder", {**_SMALL, "patch_size": 16, "intermediate_dim": 1536}),
    "swin": (
        "SwinTransformerBackbone",
        {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "window_size": 7},
    ),
    "mit": (
        "MiTBackbone",
        {"num_layers": 4, "layerwise_depths": [2, 2, 2, 2], "layerwise_num_heads": [1, 2, 5, 8],
         "layerwise_sr_ratios": [8, 4, 2, 1], "max_drop_path_rate": 0.1,
         "layerwise_patch_sizes": [7, 3, 3, 3], "layerwise_strides": [4, 2, 2, 2],
         "hidden_dims": [32, 64, 160, 256]},
    ),
    "hgnetv2": (
        "HGNetV2Backbone",
        {"depths": [1, 1, 2, 1], "embedding_size": 16, "hidden_sizes": [64, 256, 512, 1024],
         "stem_channels": [3, 16, 16], "hidden_act": "relu", "use_learnable_affine_block": True,
         "stackwise_stage_filters": [(16, 16, 64, 1, 3, 3), (64, 32, 256, 1, 3, 3),
                                     (256, 64, 512, 2, 3, 5), (512, 128, 1024, 1, 3, 5)],
         "apply_downsample": [False, True, True, True],
         "use_lightweight_conv_block": [False, False, True, True]},
    ),
}  # fmt: skip
_PX = 224


@dataclass(frozen=True)
class Way:
    """A way to compute a network: one call, and how many batches it computes."""

    call: Callable[[], object]
    batches: int = 1


def measure_network(name: str, seconds: float) -> dict[str, Metric]:
    """Measure one network for about so many seconds after its graphs are built."""
    batch_s = shortest_times(build_ways(name), seconds)
    rates = {way: BATCH / value for way, value in batch_s.items()}
    metrics = {f"{name}_{way}": Metric(rate, "images/s") for way, rate in rates.items()}
    ratio = rates["extraction"] / rates["predict"]
    return metrics | {f"{name}_extraction_of_predict": Metric(ratio, goal=GOAL)}


def build_ways(name: str) -> dict[str, Way]:
    """Return the ways to compute a network."""
    import keras
    import keras_hub
    import numpy as np
    import tensorflow as tf

    from components.extract_features.engines import STREAMS, Engine, build_network
    from regraft_core.backbones.backbone_row import Backbone
    from regraft_core.backbones.cuts import freeze
    from regraft_core.backbones.hub_graphs import GRAPHS
    from regraft_core.images.prefetch import prefetch_map

    kind, arguments = NETWORKS[name]
    keras.utils.set_random_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not support masking.*")
        network = getattr(keras_hub.models, kind)(image_shape=(_PX, _PX, 3), **arguments)
    model = GRAPHS[kind](network, _PX).finish("backbone")
    freeze(model)
    pooled = keras.layers.GlobalAveragePooling2D()(model.output)
    extractor = keras.Model(model.input, {"gap": pooled})
    row = Backbone(kind, "unit", _PX, _PX, int(pooled.shape[-1]), "", "")
    compute = build_network(Engine(), model, extractor, row, BATCH)
    shape = (STREAMS * BATCH, _PX, _PX, 3)
    pixels = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    batches = [tf.constant(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
    scaled = pixels / 127.5 - 1.0
    given = dict.fromkeys(network.input, scaled) if isinstance(network.input, dict) else scaled
    return {
        "predict": Way(lambda: network.predict(given, batch_size=BATCH, verbose=0), STREAMS),
        "forward": Way(lambda: compute(batches[0])),
        "extraction": Way(lambda: list(prefetch_map(compute, batches, STREAMS)), STREAMS),
    }


def shortest_times(ways: Mapping[str, Way], seconds: float) -> dict[str, float]:
    """Return the shortest time per batch of each way, in seconds; they take turns."""
    for way in ways.values():
        way.call()  # builds the graph
    shortest = dict.fromkeys(ways, float("inf"))
    rounds, begin = 0, time.perf_counter()
    while rounds < LEAST_ROUNDS or time.perf_counter() - begin < seconds:
        for name, way in ways.items():
            start = time.perf_counter()
            way.call()
            shortest[name] = min(shortest[name], (time.perf_counter() - start) / way.batches)
        rounds += 1
    return shortest


def measure_within(
    names: Sequence[str], limit_s: float, measure_one: Callable[[str], Mapping[str, Metric]]
) -> tuple[dict[str, Metric], list[str]]:
    """Measure networks until the next one would probably end after the limit.

    Args:
        names: of the networks, of which the first is always measured.
        limit_s: seconds for all of them.
        measure_one: measures one.

    Returns:
        the metrics, and the networks that are left.
    """
    metrics: dict[str, Metric] = {}
    begin, longest = time.perf_counter(), 0.0
    for index, name in enumerate(names):
        start = time.perf_counter()
        if index and start - begin + longest > limit_s:
            return metrics, list(names[index:])
        metrics |= measure_one(name)
        gc.collect()  # the graphs of a network, before the next one's
        longest = max(longest, time.perf_counter() - start)
        print(f"backbones: {name} measured", file=sys.stderr, flush=True)
    return metrics, []


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))


def measure(options: argparse.Namespace) -> Measurement:
    """Measure the networks; those of an existing result that are not measured again stay."""
    load = os.getloadavg()[0]
    metrics, left = measure_within(
        options.networks, 60 * options.minutes, lambda name: measure_network(name, options.seconds)
    )
    note = f"; left after {options.minutes:g} minutes: {', '.join(left)}" if left else ""
    return Measurement(
        f"batches of {BATCH} images of {_PX} px, random weights, float32; load average {load:.1f} "
        f"at the start{note}",
        read_metrics(options.json) | metrics,
        [name for name in options.networks if name not in left],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("backbones", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()

"""Extraction with a network of each family of KerasHub, against Keras' `predict` of the same.

    regraft bench backbones --json benchmarks/results/backbones.json

The networks have the sizes of the smallest published ones and random weights, because the rates do
not depend on their values. `forward` is the graph that an extraction uses, with one batch at a
time; `extraction` computes two at a time. Both return the pooled features, `predict` all tokens.
Each computes `--rounds` rounds in turn; the shortest counts.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.result import Measurement, Metric, run_benchmark

BATCH = 8
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


def measure_network(name: str, rounds: int) -> dict[str, Metric]:
    """Measure one network."""
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
    shape = (BATCH, _PX, _PX, 3)
    batch = tf.constant(np.random.default_rng(0).uniform(0, 255, shape), tf.float32)
    scaled = batch / 127.5 - 1.0
    given = dict.fromkeys(network.input, scaled) if isinstance(network.input, dict) else scaled

    def extract() -> None:
        for _ in prefetch_map(compute, [batch] * STREAMS, STREAMS):
            pass

    ways: dict[str, tuple[int, Callable[[], Any]]] = {
        "predict": (1, lambda: network.predict(given, batch_size=BATCH, verbose=0)),
        "forward": (1, lambda: compute(batch)),
        "extraction": (STREAMS, extract),
    }
    seconds = dict.fromkeys(ways, float("inf"))
    for round_number in range(rounds + 1):
        for way, (batches, call) in ways.items():
            start = time.perf_counter()
            call()
            if round_number:  # the first call builds the graph
                seconds[way] = min(seconds[way], (time.perf_counter() - start) / batches)
    rates = {way: BATCH / value for way, value in seconds.items()}
    metrics = {f"{name}_{way}": Metric(rate, "images/s") for way, rate in rates.items()}
    ratio = rates["extraction"] / rates["predict"]
    return metrics | {f"{name}_extraction_of_predict": Metric(ratio, goal=GOAL)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))


def measure(options: argparse.Namespace) -> Measurement:
    """Measure the networks."""
    load = os.getloadavg()[0]
    metrics: dict[str, Metric] = {}
    for name in options.networks:
        metrics |= measure_network(name, options.rounds)
        gc.collect()  # the graphs of a network, before the next one's
    return Measurement(
        f"batches of {BATCH} images of {_PX} px, random weights, float32; load average {load:.1f} "
        "at the start",
        metrics,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the result."""
    run_benchmark("backbones", __doc__, add_options, measure, arguments)


if __name__ == "__main__":
    main()

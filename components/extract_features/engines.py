"""The engines that can compute a frozen backbone, and the network that each makes of it.

TensorFlow's is the reference. Decoding, resizing and augmentation are TensorFlow's with any engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from components.extract_features.openvino_network import build_openvino_network
from regraft_core.backbones.backbone_table import Backbone
from regraft_core.formats.engine_packages import check_engine_package, is_engine_installed
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.images.preprocess import scale
from regraft_core.runtime.machine import check_bfloat16, computes_bfloat16
from regraft_core.training.mixed_precision import (
    HalfPrecision,
    accelerate,
    choose_half_precision,
    half_precisions,
)
from regraft_core.training.winograd import winograd

Arrays = dict[str, NDArray[Any]]
Network = Callable[[tf.Tensor], Arrays]
"""From pixels, float32 [n, h, w, 3] in 0..255, to the arrays; two threads may call it at a time."""
# Batches computed at the same time.
STREAMS = 2
# Sizes of batches that use a large GPU better than smaller ones.
GPU_BATCHES = (256,)
# Weights up to this size become constants of the graph. VGG16 (59 MB) gains nothing from it, and
# its graph takes longer to build.
CONSTANT_BYTES = 1 << 25


@dataclass(frozen=True)
class Engine:
    """What computes a network, and how.

    Attributes:
        runtime: the library.
        half: half precision; "" is float32, which GPUs that can compute as TF32.
        xla: TensorFlow's graph is compiled by XLA.
        batch_size: images of a batch; 0 is the number that the options set.
    """

    runtime: Literal["tf", "openvino"] = "tf"
    half: HalfPrecision = ""
    xla: bool = False
    batch_size: int = 0

    @property
    def precision(self) -> str:
        """The name of the precision."""
        return self.half or "float32"

    def __str__(self) -> str:
        batch = f" in batches of {self.batch_size}" if self.batch_size else ""
        return f"{self.runtime} {self.precision}{' with XLA' * self.xla}{batch}"


def possible_engines(
    options: FeatureOptions, capabilities: Sequence[tuple[int, int]]
) -> list[Engine]:
    """Return the engines that the options allow on this machine, first the one for short work.

    Args:
        options: of the step.
        capabilities: the compute capability of each GPU.

    Raises:
        InputError: an engine is not installed, or the processor does not compute in bfloat16.
    """
    wanted, precision = options.feature_engine, options.precision
    check_engine_package(wanted)
    if capabilities and wanted != "openvino":
        return _gpu_engines(options, capabilities)
    if precision == "bfloat16":
        check_bfloat16("precision")
    halves: list[HalfPrecision] = ["bfloat16"]
    if precision in ("auto", "float32"):
        halves = ["", "bfloat16"] if precision == "auto" and computes_bfloat16() else [""]
    if wanted == "tf" or not is_engine_installed("openvino"):
        return [Engine("tf", half) for half in halves]
    others = [Engine("openvino", half) for half in halves]
    return others if wanted == "openvino" else [Engine("tf", half) for half in halves] + others


def _gpu_engines(options: FeatureOptions, capabilities: Sequence[tuple[int, int]]) -> list[Engine]:
    """Return TensorFlow's engines on GPUs: every precision, larger batches, and XLA, the last."""
    if options.precision == "auto":
        halves: list[HalfPrecision] = ["", *half_precisions(capabilities)]
    else:
        halves = [choose_half_precision(options.precision, capabilities)]
        if options.feature_engine == "tf":
            return [Engine("tf", halves[0])]
    batches = [0, *(size for size in GPU_BATCHES if size > options.batch_size)]
    return [
        Engine("tf", half, xla, batch)
        for xla in (False, True)
        for batch in batches
        for half in halves
    ]


def build_network(
    engine: Engine, model: keras.Model, extractor: keras.Model, backbone: Backbone, batch_size: int
) -> Network:
    """Return the network that an engine computes.

    Args:
        engine: the engine.
        model: the backbone, whose layers compute in half precision.
        extractor: the backbone with the outputs that are extracted.
        backbone: its row of the table.
        batch_size: the most images that it is called with.

    Raises:
        EngineError: the engine cannot compute this network.
    """
    if engine.runtime == "openvino":
        graph = constant_call(extractor, backbone).get_concrete_function()
        return build_openvino_network(graph, batch_size, engine.half, STREAMS)
    half = engine.half
    with accelerate(model.layers, half), winograd([] if half else model.layers):
        compute = constant_call(extractor, backbone, xla=engine.xla).get_concrete_function()

    def network(pixels: tf.Tensor) -> Arrays:
        return {name: array.numpy() for name, array in compute(pixels).items()}

    return _with_full_batches(network, batch_size) if engine.xla else network


def _with_full_batches(network: Network, batch_size: int) -> Network:
    """Return a network that fills up small batches: XLA compiles again for each other size."""

    def call(pixels: tf.Tensor) -> Arrays:
        count = len(pixels)
        filled = tf.pad(pixels, [[0, batch_size - count], [0, 0], [0, 0], [0, 0]])
        return {name: array[:count] for name, array in network(filled).items()}

    return call


def constant_call(extractor: keras.Model, backbone: Backbone, *, xla: bool = False) -> Any:
    """Return a graph from pixels, float32 `[n, h, w, 3]` in 0..255, to the arrays.

    Args:
        extractor: the backbone with the outputs that are extracted.
        backbone: its row of the table.
        xla: the graph is compiled by XLA.
    """
    call = _with_constants(extractor)
    return tf.function(
        lambda pixels: call(scale(pixels, backbone.scaling)),
        input_signature=[tf.TensorSpec([None, *extractor.input.shape[1:]], tf.float32)],
        autograph=False,
        jit_compile=xla or None,
    )


def _with_constants(extractor: keras.Model) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Return the call of a model, with its weights as constants if they are small enough.

    TensorFlow can then fold operations and convert filters to the layout of the processor once
    instead of for every batch.
    """
    if 4 * extractor.count_params() > CONSTANT_BYTES:
        return lambda inputs: extractor(inputs, training=False)
    trainable, other = (
        [variable.numpy() for variable in variables]
        for variables in (extractor.trainable_variables, extractor.non_trainable_variables)
    )
    return lambda inputs: extractor.stateless_call(trainable, other, inputs, training=False)[0]


def difference(arrays: Arrays, expected: Arrays) -> float:
    """Return the largest norm of an array's difference, relative to that of the expected array."""

    def relative(name: str) -> float:
        array, exact = (np.asarray(one[name], np.float32) for one in (arrays, expected))
        return float(np.linalg.norm(array - exact) / max(float(np.linalg.norm(exact)), 1e-30))

    return max(map(relative, expected), key=lambda error: (np.isnan(error), error))

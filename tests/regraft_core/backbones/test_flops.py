"""Counted operations, compared with those that the profiler of TensorFlow finds."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from regraft_core.backbones.backbone_table import BACKBONES
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.flops import model_flops


def profiled(model: keras.Model) -> int:
    """Return the operations in the model's graph for one image, as TensorFlow counts them."""
    image = tf.TensorSpec([1, *model.input_shape[1:]], tf.float32)
    graph = tf.function(lambda x: model(x, training=False)).get_concrete_function(image)
    profiler = tf.compat.v1.profiler
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    frozen = convert_variables_to_constants_v2(graph).graph
    found = profiler.profile(frozen, cmd="op", options=options.with_empty_output().build())
    return int(found.total_float_ops)


def check(name: str) -> None:
    model = build_backbone(name, 96, "random")
    # Element-wise operations differ a little: the graph decides how many a normalization has.
    assert model_flops(model) == pytest.approx(profiled(model), rel=0.03)


def test_operations_equal_those_of_the_graph() -> None:
    check("tiny")


@pytest.mark.long(seconds=4)
@pytest.mark.parametrize(
    "name",
    ["efficientnet_lite0", "vgg16", "resnet50", "mobilenetv2", "mobilenetv3small", "convnexttiny",
     "efficientnetv2b0", "xception", "nasnetmobile", "densenet121", "inceptionv3"],
)  # fmt: skip
def test_operations_of_other_families_equal_those_of_the_graph(name: str) -> None:
    assert name in BACKBONES
    check(name)
    keras.backend.clear_session()


def test_a_multiplication_with_its_addition_counts_as_two() -> None:
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Conv2D(5, 3, padding="same")(inputs)
    assert model_flops(keras.Model(inputs, outputs)) == 8 * 8 * 5 * (2 * 3 * 3 * 3 + 1)
    outputs = keras.layers.SeparableConv2D(5, 3, padding="same", use_bias=False)(inputs)
    by_channel, across = 2 * 8 * 8 * 3 * 9, 2 * 8 * 8 * 5 * 3
    assert model_flops(keras.Model(inputs, outputs)) == by_channel + across
    dense = keras.layers.Dense(7)(keras.layers.Flatten()(inputs))
    assert model_flops(keras.Model(inputs, dense)) == 7 * (2 * 192 + 1)

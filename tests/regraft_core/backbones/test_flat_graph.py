"""A network with everything that a flat graph has to sort out, as a backbone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from regraft_core.backbones.backbone_table import find_backbone
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.cuts import block_ends, cut_points, split
from regraft_core.backbones.flat_graph import flat_network, up_to_feature_map
from regraft_core.runtime.errors import InputError

PX = 12
IMAGES = np.random.default_rng(0).uniform(0, 255, (2, PX, PX, 3)).astype(np.float32)


def _block(x: Any, name: str) -> Any:
    """A nested model that contains a model, both with the same name as all others."""
    inner = keras.Sequential([keras.Input(x.shape[1:]), layers.Conv2D(3, 3, name="conv")], name="b")
    inputs = keras.Input(x.shape[1:])
    outputs = layers.ReLU(name="head_relu")(layers.Conv2D(3, 1, name="conv")(inner(inputs)))
    return keras.Model(inputs, {"maps": outputs}, name=name)(x)["maps"]


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """Of gray images, in half precision, with shared layers and a convolution as its head."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((PX, PX, 1), name="Bild ü")
    statistics = layers.Normalization()
    statistics.adapt(IMAGES[..., :1] / 255)
    x = layers.Rescaling(1 / 255)(layers.RandomTranslation(0.5, 0.5)(inputs))
    x = statistics(x)
    x = _block(_block(x, "b"), "c")
    relu, shared = (
        layers.ReLU(name="größe <b>" + "r" * 900),
        layers.Conv2D(3, 1, name="shared", dtype="bfloat16"),
    )
    x = relu(shared(relu(shared(x))))
    x = layers.Dropout(0.5, name="logits")(x, training=True)
    x = layers.Conv2D(4, 2, name="last")(x)
    x = layers.GlobalMaxPooling2D(keepdims=True)(x)
    x = layers.Flatten()(layers.Conv2D(2, 1, name="classifier")(x))
    return keras.Model({"Bild ü": inputs}, [layers.Softmax()(x)], name="b")


def test_a_network_of_shared_and_nested_layers(network: keras.Model, tmp_path: Path) -> None:
    network.save(tmp_path / "mine.keras")
    model = build_backbone(find_backbone(str(tmp_path / "mine.keras")))
    names = [layer.name for layer in model.layers]
    assert len(set(names)) == len(names) and max(map(len, names)) <= 100
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) for name in names)
    assert not any(name.startswith(("head_", "random")) or name == "logits" for name in names)

    # All but what augments, and in float32; graphs have scopes with the names of layers.
    gray = keras.ops.image.rgb_to_grayscale(IMAGES)
    expected = keras.Model(network.input, network.get_layer("last").output)
    without_dropout = network.get_layer("logits")
    without_dropout.rate = 0.0
    features = np.asarray(tf.function(model)(IMAGES, training=False))
    found = np.asarray(expected({"Bild ü": gray}, training=False))
    assert model.output.dtype == "float32"
    np.testing.assert_allclose(features, found, atol=0.02)

    # No weight is on both sides of a cut, and each name is that of one feature map.
    cuts = [point.name for point in cut_points(model)]
    assert "shared" not in cuts and len(set(cuts)) == len(cuts)
    for cut in cuts[1:-1]:
        bottom, top = split(model, cut)
        below = {id(weight) for weight in bottom.weights}
        assert not below & {id(weight) for weight in top.weights}
    for end in block_ends(model):
        assert model.get_layer(end.name).output is end.tensor


def test_the_output_of_a_layer_that_is_called_twice() -> None:
    inputs = keras.Input((PX, PX, 3))
    shared = layers.Conv2D(3, 1, name="shared")
    twice = keras.Model(inputs, shared(shared(inputs)))
    model = up_to_feature_map(flat_network(twice, PX))
    np.testing.assert_array_equal(np.asarray(model(IMAGES)), np.asarray(twice(IMAGES)))
    assert [point.name for point in cut_points(model)] == ["image", "feature_map"]


@pytest.mark.parametrize(
    "make",
    [lambda x: layers.Reshape((PX, PX, 3, 1))(x), lambda x: keras.ops.argmax(x, axis=-1)],
)
def test_outputs_that_are_not_features(make: Any) -> None:
    inputs = keras.Input((PX, PX, 3))
    with pytest.raises(InputError, match=r"expected an output \[n, h, w, c\], .* of floats, got"):
        up_to_feature_map(flat_network(keras.Model(inputs, make(inputs)), PX))


def test_a_size_that_a_network_cannot_compute(tmp_path: Path) -> None:
    inputs = keras.Input((None, None, 3))
    half = layers.UpSampling2D()(layers.MaxPooling2D()(inputs))
    keras.Model(inputs, layers.Concatenate()([inputs, half])).save(tmp_path / "any.keras")
    row = find_backbone(str(tmp_path / "any.keras"), "unit")
    assert build_backbone(row, 12).output_shape == (None, 12, 12, 6)
    with pytest.raises(InputError, match=r"any\.keras cannot compute images of 13 px; try another"):
        build_backbone(row, 13)

"""Heat maps of a model whose prediction depends on one location only."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from PIL import Image

from components.evaluate.report.error_gallery import select_errors
from components.evaluate.report.grad_cam import explained_layer, heat_maps
from components.evaluate.report.image_explanation import SIDE_PX, data_uri, overlay
from regraft_core.backbones.network_layers import PatchTokens


def bright_or_dark() -> keras.Model:
    """Return a model: bright pixels are evidence for class 1, dark ones for 0; 8 x 8 positions."""
    inputs = keras.Input((16, 16, 3))
    tensor = keras.layers.AveragePooling2D(2, name="map")(inputs)
    tensor = keras.layers.GlobalAveragePooling2D()(tensor)
    logits = keras.layers.Dense(2, use_bias=False)(tensor)
    model = keras.Model(inputs, logits)
    model.layers[-1].set_weights([np.array([[-1.0, 1.0]] * 3)])
    return model


def test_the_map_is_highest_where_the_evidence_is() -> None:
    pixels = np.zeros((2, 16, 16, 3), np.float32)
    pixels[0, 2:4, 12:14] = 1.0
    pixels[1, 10:12, 4:6] = 1.0
    maps = heat_maps(bright_or_dark(), pixels, [1, 1])
    assert maps is not None and maps.shape == (2, 8, 8)
    assert np.unravel_index(maps[0].argmax(), (8, 8)) == (1, 6)
    assert np.unravel_index(maps[1].argmax(), (8, 8)) == (5, 2)
    assert maps.max() == 1.0 and maps.min() == 0.0


def test_tokens_are_a_grid_after_those_before_the_patches() -> None:
    """As of a transformer that ends in its class token: here the sum of all tokens."""
    inputs = keras.Input((16, 16, 3))
    patches = keras.layers.AveragePooling2D(2)(inputs)
    tokens = PatchTokens(2, name="tokens")
    tensor = keras.layers.GlobalAveragePooling2D()(tokens(patches))
    model = keras.Model(inputs, keras.layers.Dense(2, use_bias=False)(tensor))
    tokens.set_weights([np.ones((2, 3)), np.zeros((64, 3))])
    model.layers[-1].set_weights([np.array([[-1.0, 1.0]] * 3)])
    pixels = np.zeros((1, 16, 16, 3), np.float32)
    pixels[0, 2:4, 12:14] = 1.0
    maps = heat_maps(model, pixels, [1])
    assert maps is not None and maps.shape == (1, 8, 8)
    assert np.unravel_index(maps[0].argmax(), (8, 8)) == (1, 6) and maps.sum() == 1.0


def test_a_class_with_only_negative_evidence_has_an_empty_map() -> None:
    maps = heat_maps(bright_or_dark(), np.ones((1, 16, 16, 3), np.float32), [0])
    assert maps is not None and not maps.any()


@pytest.mark.parametrize(("side", "name"), [(64, "last"), (24, "last"), (12, "first"), (3, "last")])
def test_the_last_map_with_enough_positions_is_explained(side, name) -> None:
    inputs = keras.Input((side, side, 3))
    tensor = keras.layers.Conv2D(4, 3, 2, padding="same", name="first")(inputs)
    tensor = keras.layers.Conv2D(4, 3, 2, padding="same", name="last")(tensor)
    logits = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(tensor))
    point = explained_layer(keras.Model(inputs, logits))
    assert point is not None and point.name == name


def test_a_model_without_maps_is_not_explained() -> None:
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    assert explained_layer(model) is None
    assert heat_maps(model, np.ones((1, 8), np.float32), [0]) is None


def test_the_most_confident_errors_are_selected() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [np.nan, 0.5]])
    assert select_errors(probabilities, np.array([0, 0, 0, 0])) == [2, 1]
    assert select_errors(probabilities, np.array([0, 1, 1, 0])) == [1, 2, 0]
    assert select_errors(np.full((3, 2), np.nan), np.zeros(3, int)) == []
    assert len(select_errors(np.full((30, 2), [0.3, 0.7]), np.zeros(30, int))) == 12


def test_an_overlay_colors_only_where_the_evidence_is() -> None:
    image = Image.new("RGB", (16, 16), (100, 100, 100))
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 1.0
    mixed = np.asarray(overlay(image, heat)).astype(int)
    assert mixed.shape == (SIDE_PX, SIDE_PX, 3)
    red, _, blue = mixed[4, 4]
    assert red - blue > 60
    np.testing.assert_array_equal(mixed[-1, -1], [100, 100, 100])


def test_an_image_becomes_a_small_data_uri() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    uri = data_uri(Image.fromarray(noise))
    assert uri.startswith("data:image/webp;base64,") and len(uri) < 60_000

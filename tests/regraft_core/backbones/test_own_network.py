"""A user's own network as a backbone: cut at its last feature map; what is not read, and why."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from regraft_core.backbones.backbone_table import (
    backbone_path,
    find_backbone,
    identified_backbone,
    is_location,
)
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.cuts import block_ends, cut_points, find_cut, split
from regraft_core.runtime.errors import InputError
from regraft_core.training.model_files import read_keras_file

PX = 24
IMAGES = np.random.default_rng(0).uniform(0, 255, (2, PX, PX, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """A classifier with a nested model, two layers of the same name, and a head."""
    keras.utils.set_random_seed(0)
    stem = keras.Sequential(
        [layers.Input((PX, PX, 3)), layers.Conv2D(8, 3, name="conv"), layers.MaxPool2D(name="max")],
        name="stem",
    )
    inputs = layers.Input((PX, PX, 3))
    x = shortcut = layers.Conv2D(12, 3, name="conv")(stem(layers.Rescaling(1 / 255)(inputs)))
    x = layers.Add(name="joined")([layers.Conv2D(12, 1, name="inner")(x), shortcut])
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(inputs, layers.Dense(5, activation="softmax")(x), name="mine")


def features(model: keras.Model, layer: str = "joined") -> Any:
    return np.asarray(keras.Model(model.input, model.get_layer(layer).output)(IMAGES))


@pytest.fixture(scope="module")
def folder(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in each format that is read."""
    folder = tmp_path_factory.mktemp("own")
    network.save(folder / "mine.keras")
    network.save(folder / "mine.h5")
    keras.Model(network.input, network.get_layer("joined").output).export(
        folder / "saved", verbose=False
    )
    return folder


@pytest.mark.parametrize("name", ["mine.keras", "mine.h5"])
def test_a_file_without_its_head(name: str, network: keras.Model, folder: Path) -> None:
    row = find_backbone(str(folder / name))
    assert (row.image_px, row.scaling, row.label) == (PX, "none", name)
    model = build_backbone(row)
    np.testing.assert_allclose(np.asarray(model(IMAGES)), features(network), atol=1e-6)
    assert [end.name for end in block_ends(model)] == ["max", "mine_conv", "joined"]
    bottom, top = split(model, "mine_conv")
    np.testing.assert_allclose(np.asarray(top(bottom(IMAGES))), features(network), atol=1e-6)
    other = build_backbone(row, weights="random", seed=1)
    assert not np.allclose(np.asarray(other(IMAGES)), features(network))
    with pytest.raises(InputError, match=f"image_px: {name} expects {PX}, got 32"):
        row.side_px(32)


def test_a_saved_model_is_one_frozen_layer(
    network: keras.Model, folder: Path, tmp_path: Path
) -> None:
    row = find_backbone(str(folder / "saved"), "fraction")
    with pytest.raises(InputError, match="saved accepts any size; name one with --image-px"):
        row.side_px(0)
    model = build_backbone(row, PX)
    np.testing.assert_allclose(np.asarray(model(IMAGES)), features(network), atol=1e-6)
    assert not model.trainable_weights
    with pytest.raises(InputError, match="only its head can be trained; use --strategies head"):
        find_cut(model, row.cut)
    with pytest.raises(InputError, match=r"one input \[n, 32, 32, 3\]"):
        build_backbone(row, 32)
    # The trained model needs the SavedModel no more.
    model.save(tmp_path / "model.keras")
    again = read_keras_file(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(again(IMAGES)), np.asarray(model(IMAGES)))


def _sequential(last: keras.layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(6, 3), last])


def test_any_size_is_asked_for(tmp_path: Path) -> None:
    _sequential(layers.GlobalMaxPooling2D()).save(tmp_path / "any.keras")
    row = find_backbone(str(tmp_path / "any.keras"), "unit")
    with pytest.raises(InputError, match=r"image_px: any.keras accepts any size"):
        row.side_px(0)
    assert build_backbone(row, 20).output_shape == (None, 18, 18, 6)
    with pytest.raises(InputError, match=r"scaling: any.keras does not say .* --scaling"):
        find_backbone(str(tmp_path / "any.keras"))
    with pytest.raises(InputError, match="scaling: unknown scaling 'units'; did you mean unit"):
        find_backbone(str(tmp_path / "any.keras"), "units")


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda x: layers.Dense(7)(layers.Flatten()(x)), (None, 1, 1, 7)),
        (lambda x: layers.Reshape((-1, 3))(x), (None, 1, PX * PX, 3)),
    ],
)
def test_vectors_and_tokens_become_maps(
    make: Callable[[Any], Any], shape: tuple[int | None, ...], tmp_path: Path
) -> None:
    """A vector is what a last dense layer reads; without cut points, only a head is trained."""
    inputs = keras.Input((PX, PX, 3))
    made = make(inputs)
    outputs = layers.Dense(2)(made) if len(made.shape) == 2 else made
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")
    assert build_backbone(find_backbone(str(tmp_path / "m.keras"), "unit")).output_shape == shape


class Custom(layers.Layer):
    """A layer whose code is not in Keras."""

    def call(self, inputs: Any) -> Any:
        return inputs


class Subclass(keras.Model):
    """A model without a graph."""

    def call(self, inputs: Any) -> Any:
        return inputs


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: layers.Lambda(lambda x: x), "contains a layer Lambda, which holds code"),
        (Custom, "contains Custom of .*, whose code is not run"),
        (Subclass, "contains Subclass of .*, whose code is not run"),
    ],
)
def test_code_in_a_file_is_not_run(
    layer: Callable[[], keras.layers.Layer], message: str, tmp_path: Path
) -> None:
    _sequential(layer()).save(tmp_path / "m.keras")
    with pytest.raises(InputError, match=message):
        find_backbone(str(tmp_path / "m.keras"), "unit")


def test_files_that_are_no_network(folder: Path, network: keras.Model, tmp_path: Path) -> None:
    (tmp_path / "text.keras").write_text("no zip")
    network.save_weights(tmp_path / "mine.weights.h5")
    keras.Sequential([keras.Input((8,)), layers.Dense(2)]).save(tmp_path / "rows.keras")
    for name, message in (
        ("text.keras", "cannot read the network in text.keras"),
        ("mine.weights.h5", "it has weights only; pass it with --weights"),
        ("rows.keras", r"expected an input \[n, px, px, 3\] in rows.keras, got \[None, 8\]"),
        ("none.keras", "expected a .keras or .h5 file or a SavedModel at"),
    ):
        with pytest.raises(InputError, match=message):
            find_backbone(str(tmp_path / name), "unit")
    with pytest.raises(InputError, match="download it first"):
        find_backbone("s3://bucket/mine.keras")
    # Weights of another shape than the configuration says.
    with zipfile.ZipFile(folder / "mine.keras") as archive:
        config = json.loads(archive.read("config.json"))
        config["config"]["layers"][-1]["config"]["units"] = 4
        with zipfile.ZipFile(tmp_path / "other.keras", "w") as other:
            other.writestr("config.json", json.dumps(config))
            other.writestr("metadata.json", archive.read("metadata.json"))
            other.writestr("model.weights.h5", archive.read("model.weights.h5"))
    with pytest.raises(InputError, match=r"cannot read the network in other.keras"):
        build_backbone(str(tmp_path / "other.keras"))


def test_a_name_identifies_the_content(folder: Path, tmp_path: Path) -> None:
    name = str(tmp_path / "mine.keras")
    (tmp_path / "mine.keras").write_bytes((folder / "mine.keras").read_bytes())
    identified = identified_backbone(name)
    assert identified == identified_backbone(identified) and is_location(identified)
    assert backbone_path(identified) == name and backbone_path("vgg16") == ""
    assert len(identified_backbone(str(folder / "saved")).partition("#sha256=")[2]) == 64
    with open(tmp_path / "mine.keras", "ab") as file:
        file.write(b" ")
    with pytest.raises(InputError, match=r"mine.keras: expected SHA-256"):
        build_backbone(identified)


class Files(tf.Module):
    """What a SavedModel could do if it were loaded unchecked."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = str(path)
        self.scale = tf.Variable(2.0)

    @tf.function(input_signature=[tf.TensorSpec([None, PX, PX, 3])])
    def write(self, images: tf.Tensor) -> tf.Tensor:
        tf.io.write_file(self._path, "written")
        return images * self.scale

    @tf.function(input_signature=[tf.TensorSpec([None, PX, PX, 3])])
    def python(self, images: tf.Tensor) -> tf.Tensor:
        return tf.numpy_function(lambda values: values, [images], tf.float32)


@pytest.mark.parametrize(("method", "operation"), [("write", "WriteFile"), ("python", "PyFunc")])
def test_a_graph_that_does_more_than_compute(method: str, operation: str, tmp_path: Path) -> None:
    module = Files(tmp_path / "trace")
    signature = {"serving_default": getattr(module, method)}
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=signature)
    with pytest.raises(InputError, match=f"do not only compute: .*{operation}"):
        build_backbone(find_backbone(str(tmp_path / "saved"), "unit"), PX)
    assert not (tmp_path / "trace").exists()


def test_a_saved_model_stays_in_its_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    for part in (folder / "saved").iterdir():
        (tmp_path / "saved" / part.name).symlink_to(part)
    with pytest.raises(InputError, match="link"):
        build_backbone(find_backbone(str(tmp_path / "saved"), "unit"), PX)


def test_every_cut_point_of_the_graph_is_found(folder: Path) -> None:
    model = build_backbone(str(folder / "mine.keras"))
    assert [point.name for point in cut_points(model)][-3:] == ["max", "mine_conv", "joined"]

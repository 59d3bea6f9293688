"""A user's own network as a backbone: cut at its last feature map; what is not read, and why."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.core.protobuf import saved_model_pb2

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
        ("rows.keras", r"expected an input .* in rows.keras, got \[None, 8\]"),
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


def changed(source: Path, out: Path, change: Callable[[Any], object]) -> str:
    """Write a copy of a `.keras` file whose configuration is changed in place."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(out, "w") as other:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            other.writestr(name, content)
    return str(out)


def _make_last(**values: Any) -> Callable[[Any], object]:
    return lambda config: config["config"]["layers"][-1].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # A name that the product registers does not excuse another class.
        (
            _make_last(class_name="run", module="subprocess", registered_name="regraft>run"),
            "contains run of subprocess, whose code is not run",
        ),
        (
            _make_last(class_name="layers.Lambda", module="keras", registered_name=None),
            "contains a layer Lambda, which holds code",
        ),
        (lambda config: config.update(config={}), "is not that of a network of Keras"),
        (lambda config: config["config"].update(layers=[1]), "is not that of a network of Keras"),
    ],
)
def test_configurations_that_are_refused(
    change: Callable[[Any], object], message: str, folder: Path, tmp_path: Path
) -> None:
    name = changed(folder / "mine.keras", tmp_path / "m.keras", change)
    with pytest.raises(InputError, match=message):
        find_backbone(name, "unit")


def test_a_network_larger_than_its_file_is_not_created(folder: Path, tmp_path: Path) -> None:
    def widen(config: Any) -> None:
        config["config"]["layers"][-1]["config"]["units"] = 10**13

    name = changed(folder / "mine.keras", tmp_path / "m.keras", widen)
    with pytest.raises(InputError, match=r"has 13\d+ parameters, more than its \d+ bytes"):
        build_backbone(name)
    build_backbone(str(folder / "mine.keras"))


def test_an_hdf5_file_that_is_also_an_archive(folder: Path, tmp_path: Path) -> None:
    """The values in another file are found although a valid archive follows them."""
    path = tmp_path / "mine.h5"
    path.write_bytes((folder / "mine.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        del file["model_weights"]["joined"]
        file["model_weights"]["joined"] = h5py.ExternalLink("other.h5", "/secret")
    with zipfile.ZipFile(path, "a") as both, zipfile.ZipFile(folder / "mine.keras") as archive:
        both.writestr("model.weights.h5", archive.read("model.weights.h5"))
    assert zipfile.is_zipfile(path)
    with pytest.raises(InputError, match="joined is in another file"):
        build_backbone(str(path))


@pytest.mark.parametrize("name", ["nan.keras", "nan.h5"])
def test_weights_that_are_not_finite(name: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((PX, PX, 3)), layers.Conv2D(2, 3)])
    model.layers[0].set_weights([np.full((3, 3, 3, 2), np.nan), np.zeros(2)])
    model.save(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}: expected finite weights, found NaN"):
        build_backbone(find_backbone(str(tmp_path / name), "unit"))


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


def edited(folder: Path, out: Path, edit: Callable[[Any], object]) -> str:
    """Write a copy of a SavedModel whose graph is changed in place."""
    shutil.copytree(folder, out)
    content = saved_model_pb2.SavedModel.FromString((out / "saved_model.pb").read_bytes())
    edit(content.meta_graphs[0])
    (out / "saved_model.pb").write_bytes(content.SerializeToString())
    return str(out)


def _run_saver_at_load(graph: Any) -> None:
    """Let an object of the SavedModel call the function that writes the variables."""
    root = graph.saver_def.save_tensor_name.partition(":")[0]
    (node,) = (node for node in graph.graph_def.node if node.name == root)
    graph.object_graph_def.concrete_functions[node.attr["f"].func.name].SetInParent()


def _add_constant(graph: Any) -> None:
    node = graph.graph_def.node.add(name="large", op="Const")
    node.attr["dtype"].type = tf.float32.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(0.0))
    node.attr["value"].tensor.tensor_shape.dim.add(size=10**12)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_run_saver_at_load, "uses the functions of its saver elsewhere"),
        (_add_constant, "has a constant of the shape .*, larger than the file"),
    ],
)
def test_graphs_that_are_refused(
    edit: Callable[[Any], object], message: str, folder: Path, tmp_path: Path
) -> None:
    name = edited(folder / "saved", tmp_path / "saved", edit)
    with pytest.raises(InputError, match=message):
        build_backbone(find_backbone(name, "unit"), PX)


def test_a_saved_model_stays_in_its_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    for part in (folder / "saved").iterdir():
        (tmp_path / "saved" / part.name).symlink_to(part)
    with pytest.raises(InputError, match="link"):
        build_backbone(find_backbone(str(tmp_path / "saved"), "unit"), PX)


def test_every_cut_point_of_the_graph_is_found(folder: Path) -> None:
    model = build_backbone(str(folder / "mine.keras"))
    assert [point.name for point in cut_points(model)][-3:] == ["max", "mine_conv", "joined"]

"""Layers, cut points with their costs, and weights of a model."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from regraft.explore.model_summary import (
    cut_rows,
    export_weights,
    feature_map,
    find_layer,
    layer_rows,
    weight_rows,
)
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.cuts import split
from regraft_core.backbones.flops import model_flops
from regraft_core.runtime.errors import InputError


@pytest.fixture
def tiny() -> keras.Model:
    return build_backbone("tiny")


def test_rows_are_in_the_order_of_the_graph_and_sum_to_the_model(tiny: keras.Model) -> None:
    rows = layer_rows(tiny)
    assert [row.name for row in rows][:3] == ["image", "stem_conv", "stem_bn"]
    assert {row.name for row in rows} == {layer.name for layer in tiny.layers}
    assert sum(row.parameters for row in rows) == tiny.count_params()
    assert sum(row.flops for row in rows) == model_flops(tiny)
    assert [row.name for row in rows if row.cut_point] == [row.name for row in cut_rows(tiny)]
    assert {row.name: row.state for row in rows}["stem_bn"] == "trainable"
    assert {row.name: row.state for row in rows}["stem_out"] == ""
    tiny.get_layer("stem_bn").trainable = False
    assert {row.name: row.state for row in layer_rows(tiny)}["stem_bn"] == "frozen"


def test_both_sides_of_every_cut_are_those_of_the_split_model(tiny: keras.Model) -> None:
    whole = model_flops(tiny)
    for row in cut_rows(tiny):
        bottom, top = split(tiny, row.name)
        assert (row.parameters_below, row.parameters_above) == (
            bottom.count_params(), top.count_params(),
        )  # fmt: skip
        assert (row.flops_below, row.flops_above) == (model_flops(bottom), model_flops(top))
        assert row.flops_below + row.flops_above == whole
        assert row.output == bottom.output_shape[1:]
        assert row.cache_bytes == 2 * np.prod(row.output)
        outputs = [np.prod(layer.output.shape[1:]) for layer in top.layers[1:]]
        assert row.kept_bytes == 4 * sum(outputs)


def test_weights_have_statistics(tiny: keras.Model) -> None:
    layer = find_layer(tiny, "block1_bn")
    values = np.linspace(-1, 2, 16, dtype=np.float32)
    layer.moving_mean.assign(values)
    rows = {row.name: row for row in weight_rows(layer)}
    assert [name for name, row in rows.items() if row.trainable] == ["gamma", "beta"]
    mean = rows["moving_mean"]
    assert mean.shape == (16,)
    assert (mean.mean, mean.min, mean.max) == pytest.approx((values.mean(), -1, 2))
    assert mean.std == pytest.approx(values.std())
    assert (rows["beta"].zero_fraction, rows["gamma"].zero_fraction) == (1.0, 0.0)
    with pytest.raises(InputError, match="did you mean block1_bn"):
        find_layer(tiny, "block1_nb")


def test_all_weights_are_exported_without_pickle(tiny: keras.Model, tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    assert export_weights(tiny.layers, path) == len(tiny.weights)
    with np.load(path, allow_pickle=False) as arrays:
        assert len(arrays.files) == len(tiny.weights)
        for layer in tiny.layers:
            for variable in layer.weights:
                stored = arrays[f"{layer.name}/{variable.name}"]
                np.testing.assert_array_equal(stored, variable.numpy())
    assert [file.name for file in tmp_path.iterdir()] == ["weights.npz"]
    with pytest.raises(InputError, match=r"expected an \.npz file"):
        export_weights(tiny.layers, tmp_path / "weights.pkl")
    with pytest.raises(InputError, match="cannot write"):
        export_weights(tiny.layers, tmp_path / "none" / "weights.npz")


def test_a_model_of_several_inputs_has_layers_but_no_cuts() -> None:
    left, right = keras.Input((4, 4, 3), name="left"), keras.Input((4, 4, 3), name="right")
    pooled = keras.layers.Flatten()(keras.layers.Add(name="both")([left, right]))
    model = keras.Model([left, right], pooled)
    assert cut_rows(model) == []
    assert {row.name for row in layer_rows(model)} >= {"left", "right", "both"}
    assert feature_map(model) == (4, 4, 3)
    assert feature_map(keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])) is None

"""Cuts: found from the graph, exact when joined again, with clear errors."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from regraft_core.backbones.backbone_table import BACKBONES
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.cuts import block_ends, cut_points, find_cut, join, split
from regraft_core.runtime.errors import InputError

SMALL_PX = 96


def build(name: str, image_px: int = SMALL_PX) -> keras.Model:
    backbone = BACKBONES[name]
    return build_backbone(backbone, max(image_px, backbone.min_px), "random")


@pytest.mark.parametrize(
    ("name", "count"),
    [("vgg16", 19), ("resnet50", 39), ("efficientnetv2b0", 64), ("inceptionv3", 29)],
)
def test_cut_points_are_counted_from_the_graph(name: str, count: int) -> None:
    assert len(cut_points(build(name))) == count


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("vgg16", 5, ["block1_pool", "block4_pool", "block5_pool"]),
        ("resnet50", 17, ["pool1_pool", "conv2_block1_out", "conv5_block3_out"]),
        ("tiny", 4, ["stem_out", "block2_add", "block3_out"]),
    ],
)
def test_blocks_end_where_paths_part_or_join_and_after_pooling(
    name: str, count: int, some: list[str]
) -> None:
    model = build(name)
    ends = [point.name for point in block_ends(model)]
    assert len(ends) == count
    assert [end for end in ends if end in some] == some
    assert ends[-1] == model.layers[-1].name
    thinned = [point.name for point in block_ends(model, limit=3)]
    assert (len(thinned), thinned[0], thinned[-1]) == (3, ends[0], ends[-1])


def test_every_layer_of_a_chain_is_a_cut_point() -> None:
    model = build("vgg16")
    assert [point.name for point in cut_points(model)] == [layer.name for layer in model.layers]


def assert_split_is_exact(name: str) -> None:
    model = build(name)
    rng = np.random.default_rng(0)
    pixels = rng.uniform(-1, 1, (2, *model.input.shape[1:])).astype(np.float32)
    expected = model(pixels, training=False).numpy()
    points = cut_points(model)[1:-1]
    for point in {points[0].name, points[len(points) // 2].name, BACKBONES[name].cut}:
        bottom, top = split(model, point)
        again = top(bottom(pixels, training=False), training=False).numpy()
        np.testing.assert_array_equal(again, expected)
        parts = {id(variable) for variable in [*bottom.variables, *top.variables]}
        assert parts == {id(variable) for variable in model.variables}


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "efficientnet_lite0", "tiny"])
def test_split_and_join_are_exact(name: str) -> None:
    assert_split_is_exact(name)


@pytest.mark.long(seconds=4)
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_split_and_join_are_exact_for_the_whole_table(name: str) -> None:
    assert_split_is_exact(name)
    keras.backend.clear_session()


def test_a_head_joins_flat() -> None:
    model = build("tiny", 32)
    layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    joined = join(model, layers)
    assert len(joined.layers) == len(model.layers) + 2
    pixels = np.ones((2, 32, 32, 3), np.float32)
    expected = layers[1](layers[0](model(pixels, training=False)))
    np.testing.assert_array_equal(joined(pixels, training=False), expected)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ("block4_pol", r"did you mean block4_pool"),
        ("block5_pool", r"is the first or last layer; choose one in between"),
        ("top:0", r"top:N with N from 1 to 17, got top:0"),
        ("top:x", r"got top:x"),
        ("top:²", r"got top:²"),
        ("fraction:1.5", r"S between 0 and 1, got fraction:1\.5"),
        ("fraction:nan", r"S between 0 and 1, got fraction:nan"),
    ],
)
def test_an_invalid_cut_is_explained(cut: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_cut(build("vgg16"), cut)


def test_a_layer_inside_a_branch_names_the_next_cut_point() -> None:
    with pytest.raises(InputError, match="the next one above it is 'conv5_block2_add'"):
        find_cut(build("resnet50"), "conv5_block2_1_conv")


def test_cut_by_number_and_by_fraction() -> None:
    model = build("vgg16")
    assert find_cut(model, "top:1").name == "block5_conv3"
    assert find_cut(model, "top:17").name == "block1_conv1"
    points = cut_points(model)
    for fraction in (0.9, 0.5, 0.1):
        point = find_cut(model, f"fraction:{fraction}")
        below = next(p for p in points if p.index == point.index - 1)
        above, more = (split(model, p.name)[1].count_params() for p in (point, below))
        assert above <= fraction * model.count_params() < more

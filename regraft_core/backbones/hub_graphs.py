"""The graphs of KerasHub's networks with a layer for each block, so that they can be cut there.

KerasHub puts all blocks of most networks into one layer. Each function here makes a functional
model of the same layers, with the same weights, from scaled images to the feature map whose mean is
what the family pools: the class token [1, 1, c], or the map of all patches.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from regraft_core.backbones.hub_families import block_name
from regraft_core.backbones.network_layers import HubPart, PatchTokens
from regraft_core.backbones.position_embeddings import resize_positions

Weights = Sequence[NDArray[np.float32]]


class Graph:
    """A functional model that grows layer by layer, and the weights that its layers will get."""

    def __init__(self, image_px: int) -> None:
        self.inputs = keras.Input((image_px, image_px, 3), name="image")
        self.output: Any = self.inputs
        self._weights: list[tuple[keras.layers.Layer, Weights]] = []

    def add(self, layer: keras.layers.Layer, weights: Weights = ()) -> None:
        """Add a layer of this module or of Keras."""
        self.output = layer(self.output)
        self._weights.append((layer, weights))

    def copy(self, layer: keras.layers.Layer, name: str) -> None:
        """Add a copy of a layer of Keras."""
        config = layer.get_config() | {"name": name, "dtype": "float32"}
        self.add(type(layer).from_config(config), layer.get_weights())

    def part(
        self, source: Any, name: str, map_shape: Sequence[int] | None = None, *,
        tokens: bool = True, given: Mapping[str, Any] | None = None, **others: Any,
    ) -> None:  # fmt: skip
        """Add a copy of a layer of KerasHub.

        Args:
            source: the layer.
            name: of the copy.
            map_shape: of the feature map that it returns; None for that of its input.
            tokens: whether its input are tokens.
            given: arguments of its constructor that are not among its attributes.
            others: further arguments of `HubPart`.
        """
        arguments = _arguments_of(source) | dict(given or {})
        shape = map_shape or self.output.shape[1:]
        layer = HubPart(type(source).__name__, arguments, shape, tokens, name=name, **others)
        self.add(layer, source.get_weights())

    def class_token(self) -> None:
        """Keep only the first token."""
        count = self.output.shape[2]
        self.add(keras.layers.Cropping2D(((0, 0), (0, count - 1)), name="class_token"))

    def patches(self, prefix: int, side: int) -> None:
        """Keep only the patches, as a map [side, side, c]."""
        if prefix:
            self.add(keras.layers.Cropping2D(((0, 0), (prefix, 0)), name="patches"))
        self.add(keras.layers.Reshape((side, side, self.output.shape[-1]), name="patch_map"))

    def finish(self, name: str) -> keras.Model:
        """Return the model with all weights set."""
        model = keras.Model(self.inputs, self.output, name=name)
        for layer, weights in self._weights:
            layer.set_weights(weights)
        return model


def _arguments_of(source: Any) -> dict[str, Any]:
    """Return the arguments of a layer's constructor that its attributes or configuration have."""
    names = set(inspect.signature(type(source).__init__).parameters)
    names -= {"self", "kwargs", "args", "name", "dtype"}
    config = source.get_config()
    found: dict[str, Any] = {}
    for name in names:
        for value in (getattr(source, name, None), config.get(name)):
            if _is_plain(value):
                found[name] = list(value) if isinstance(value, tuple) else value
                break
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(one, str | int | float) for one in value)
    return isinstance(value, str | int | float)


def _add_tokens(
    graph: Graph, projection: keras.layers.Layer, first: Sequence[NDArray[np.float32]],
    positions: NDArray[np.float32], *, antialias: bool = False,
) -> None:  # fmt: skip
    """Add the embedding of patches, the tokens before them, and their positions.

    Args:
        graph: to add to.
        projection: the convolution that embeds the patches.
        first: the tokens before the patches, each [c], with their own position embeddings.
        positions: of the patches of the preset's own image size, [n, c].
        antialias: as `resize_positions`.
    """
    graph.copy(projection, "patch_embedding")
    side = graph.output.shape[1]
    weights = [resize_positions(positions, side, antialias=antialias)]
    if first:
        weights.insert(0, np.stack(first))
    graph.add(PatchTokens(len(first), name="tokens"), weights)


def _vit(network: Any, image_px: int) -> Graph:
    graph = Graph(image_px)
    embedding, encoder = (network.get_layer(one) for one in
                          ("vit_patching_and_embedding", "vit_encoder"))  # fmt: skip
    positions = embedding.position_embedding.get_weights()[0]
    has_class = embedding.use_class_token
    first = [_token(embedding.class_token) + positions[0]] if has_class else []
    _add_tokens(graph, embedding.patch_embedding, first, positions[len(first) :])
    side = image_px // network.patch_size[0]
    _add_blocks(graph, encoder.encoder_layers)
    graph.copy(encoder.layer_norm, "norm")
    _pool(graph, side, has_class=has_class)
    return graph


def _deit(network: Any, image_px: int) -> Graph:
    graph = Graph(image_px)
    embedding, encoder = (network.get_layer(one) for one in
                          ("deit_patching_and_embedding", "deit_encoder"))  # fmt: skip
    positions = np.asarray(embedding.position_embedding)[0]
    tokens = (embedding.class_token, embedding.distillation_token)
    first = [_token(token) + positions[index] for index, token in enumerate(tokens)]
    _add_tokens(graph, embedding.patch_embedding, first, positions[len(first) :])
    _add_blocks(graph, encoder.encoder_layers)
    graph.copy(encoder.layer_norm, "norm")
    graph.class_token()
    return graph


def _dinov2(network: Any, image_px: int) -> Graph:
    graph = Graph(image_px)
    embedding = network.embeddings
    positions = np.asarray(embedding.position_embeddings)[0]
    first = [_token(embedding.cls_token) + positions[0], *_registers(embedding)]
    _add_tokens(
        graph, embedding.patch_embeddings.projection, first, positions[1:],
        antialias=embedding.antialias_in_interpolation,
    )  # fmt: skip
    _add_blocks(graph, network.encoder.layers)
    graph.copy(network.layernorm, "norm")
    graph.class_token()
    return graph


def _dinov3(network: Any, image_px: int) -> Graph:
    graph = Graph(image_px)
    embedding = network.embeddings
    first = [_token(embedding.cls_token), *_registers(embedding)]
    # Rotary embeddings in each block replace those of the tokens.
    side = image_px // network.patch_size
    none = np.zeros((side * side, network.hidden_dim), np.float32)
    _add_tokens(graph, embedding.patch_embeddings.projection, first, none)
    rotary = {name: getattr(network, name)
              for name in ("hidden_dim", "num_heads", "rope_theta", "patch_size")}  # fmt: skip
    others = {"call_arguments": {"num_prefix_tokens": len(first)}, "rotary": rotary}
    _add_blocks(graph, network.encoder.layers, image_px=image_px, **others)
    graph.copy(network.layernorm, "norm")
    graph.class_token()
    return graph


def _siglip(network: Any, image_px: int) -> Graph:
    graph = Graph(image_px)
    positions = network.embedding.position_embedding.get_weights()[0]
    _add_tokens(graph, network.embedding.patch_embedding, [], positions)
    _add_blocks(graph, network.encoder_layers)
    graph.copy(network.post_layer_norm, "norm")
    graph.part(network.head, "attention_pooling", (1, 1, network.hidden_dim))
    return graph


def _swin(network: Any, image_px: int) -> Graph:
    graph = Graph(image_px)
    graph.copy(network.patch_embedding.proj, "patch_embedding")
    if network.patch_embedding.norm:
        graph.copy(network.patch_embedding.norm, "patch_norm")
    rates = np.linspace(0.0, network.drop_path, sum(network.depths)).tolist()
    shared = {"qkv_bias": network.qkv_bias, "dropout_rate": network.dropout_rate,
              "attention_dropout": network.attention_dropout,
              "window_size": network.window_size}  # fmt: skip
    for number, stage in enumerate(network.stages, start=1):
        height, width = stage.input_resolution
        for index, block in enumerate(stage.blocks):
            shift = 0 if index % 2 == 0 else network.window_size // 2
            given = shared | {"shift_size": shift, "drop_path": rates.pop(0)}
            graph.part(block, block_name(index + 1, number), given=given)
        if stage.downsample is not None:
            graph.part(
                stage.downsample, f"stage{number}_merging",
                ((height + 1) // 2, (width + 1) // 2, 2 * stage.dim),
                call_arguments={"H": height, "W": width},
            )  # fmt: skip
    graph.copy(network.norm, "norm")
    return graph


def _mit(network: Any, image_px: int) -> Graph:
    graph = Graph(image_px)
    blocks = [layer for layer in network.layers if _is(layer, "HierarchicalTransformerEncoder")]
    norms = [layer for layer in network.layers if _is(layer, "LayerNormalization")]
    patching = [layer for layer in network.layers if _is(layer, "OverlappingPatchingAndEmbedding")]
    rates = np.linspace(0.0, network.max_drop_path_rate, len(blocks)).tolist()
    for index, (embed, norm) in enumerate(zip(patching, norms, strict=True)):
        side = int(graph.output.shape[1]) // network.layerwise_strides[index]
        width = network.hidden_dims[index]
        graph.part(embed, f"stage{index + 1}_patches", (side, side, width), tokens=False)
        for number in range(1, network.layerwise_depths[index] + 1):
            given = {"sr_ratio": network.layerwise_sr_ratios[index], "drop_prob": rates.pop(0)}
            graph.part(blocks.pop(0), block_name(number, index + 1), given=given)
        graph.copy(norm, f"stage{index + 1}_norm")
    return graph


def _hgnet(network: Any, image_px: int) -> Graph:
    graph = Graph(image_px)
    stem = network.embedder_layer
    graph.part(stem, "stem", (image_px // 4, image_px // 4, stem.stem_channels[-1]), tokens=False)
    for number, stage in enumerate(network.encoder_layer.stages_list, start=1):
        if _is(stage.downsample_layer, "HGNetV2ConvLayer"):
            side, width = int(graph.output.shape[1]), graph.output.shape[-1]
            given = {"in_channels": width, "out_channels": width, "kernel_size": 3, "stride": 2,
                     "groups": width, "activation": None}  # fmt: skip
            graph.part(
                stage.downsample_layer, f"stage{number}_downsample",
                (-(-side // 2), -(-side // 2), width), tokens=False, given=given,
            )  # fmt: skip
        for index, block in enumerate(stage.blocks_list):
            side = int(graph.output.shape[1])
            width = stage.current_stage_in_channels if index == 0 else block.out_channels
            given = {"in_channels": width, "drop_path": block.drop_path_rate}
            graph.part(
                block, block_name(index + 1, number), (side, side, block.out_channels),
                tokens=False, given=given,
            )  # fmt: skip
    return graph


def _add_blocks(graph: Graph, blocks: Sequence[Any], **others: Any) -> None:
    for number, block in enumerate(blocks, start=1):
        graph.part(block, block_name(number), **others)


def _pool(graph: Graph, side: int, *, has_class: bool) -> None:
    if has_class:
        graph.class_token()
    else:
        graph.patches(0, side)


def _token(variable: Any) -> NDArray[np.float32]:
    """Return a token of shape [1, 1, c] as [c]."""
    return np.asarray(variable).reshape(-1)


def _registers(embedding: Any) -> list[NDArray[np.float32]]:
    return list(np.asarray(embedding.register_tokens)[0]) if embedding.num_register_tokens else []


def _is(layer: Any, kind: str) -> bool:
    return type(layer).__name__ == kind


GRAPHS: dict[str, Callable[[Any, int], Graph]] = {
    "ViTBackbone": _vit,
    "DeiTBackbone": _deit,
    "DINOV2Backbone": _dinov2,
    "DINOV3Backbone": _dinov3,
    "SigLIPVisionEncoder": _siglip,
    "SwinTransformerBackbone": _swin,
    "MiTBackbone": _mit,
    "HGNetV2Backbone": _hgnet,
}

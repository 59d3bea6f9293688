"""Layers of backbones that Keras does not have: patches as tokens, and blocks of KerasHub.

Feature maps of transformers are `[n, 1, tokens, channels]` or, if each token is a patch,
`[n, rows, columns, channels]`, so that all that reads feature maps reads theirs. A saved model
contains these layers by name; from a file they build only the classes of `PARTS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from regraft_core.runtime.errors import InputError

PACKAGE = "regraft"
_MODELS = "keras_hub.src.models"
PARTS = {
    "ViTEncoderBlock": "vit.vit_layers",
    "DeiTEncoderBlock": "deit.deit_layers",
    "DINOV2Layer": "dinov2.dinov2_layers",
    "DINOV3Layer": "dinov3.dinov3_layers",
    "DINOV3RopePositionEmbedding": "dinov3.dinov3_layers",
    "SigLIPEncoderLayer": "siglip.siglip_layers",
    "SigLIPMultiHeadAttentionPooling": "siglip.siglip_layers",
    "SwinTransformerBlock": "swin_transformer.swin_transformer_layers",
    "PatchMerging": "swin_transformer.swin_transformer_layers",
    "OverlappingPatchingAndEmbedding": "mit.mit_layers",
    "HierarchicalTransformerEncoder": "mit.mit_layers",
    "HGNetV2Embeddings": "hgnetv2.hgnetv2_layers",
    "HGNetV2ConvLayer": "hgnetv2.hgnetv2_layers",
    "HGNetV2BasicLayer": "hgnetv2.hgnetv2_layers",
}


@keras.saving.register_keras_serializable(PACKAGE)
class PatchTokens(keras.layers.Layer):
    """From embedded patches [n, rows, columns, c] to tokens [n, 1, prefix + rows * columns, c].

    The weights are the tokens before the patches, such as the class token, with their position
    embeddings [prefix, c], and the position embeddings of the patches [rows * columns, c].
    """

    def __init__(self, prefix: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.prefix = prefix

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Create the weights."""
        _, rows, columns, width = input_shape
        if self.prefix:
            self.first = self.add_weight(shape=(self.prefix, width), name="first")
        self.positions = self.add_weight(
            shape=(int(rows or 0) * int(columns or 0), width), name="positions"
        )

    def call(self, patches: Any) -> Any:
        """Return the tokens with their positions."""
        count, width = keras.ops.shape(patches)[0], patches.shape[-1]
        tokens = keras.ops.reshape(patches, (-1, 1, patches.shape[1] * patches.shape[2], width))
        tokens = tokens + keras.ops.cast(self.positions, tokens.dtype)
        if not self.prefix:
            return tokens
        first = keras.ops.cast(self.first, tokens.dtype)
        first = keras.ops.broadcast_to(first, (count, 1, self.prefix, width))
        return keras.ops.concatenate([first, tokens], axis=2)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return the shape of the tokens."""
        count, rows, columns, width = input_shape
        return count, 1, self.prefix + int(rows or 0) * int(columns or 0), width

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return super().get_config() | {"prefix": self.prefix}


@keras.saving.register_keras_serializable(PACKAGE)
class HubPart(keras.layers.Layer):
    """A layer of KerasHub, such as a transformer's block, from a feature map to a feature map.

    Args:
        part: the class, one of `PARTS`.
        arguments: of its constructor.
        map_shape: shape [h, w, c] of the feature map that it returns.
        tokens: whether its input are tokens [n, h * w, c], not the map itself.
        call_arguments: further arguments of its call.
        rotary: arguments of DINOv3's rotary position embeddings, which are constants.
        image_px: size of the images, for these.
    """

    ends_block = True
    """Cut points and levels are at the ends of blocks."""

    def __init__(
        self,
        part: str,
        arguments: Mapping[str, Any],
        map_shape: Sequence[int],
        tokens: bool = True,
        call_arguments: Mapping[str, Any] | None = None,
        rotary: Mapping[str, Any] | None = None,
        image_px: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._arguments: dict[str, Any] = {
            "part": part, "arguments": dict(arguments), "map_shape": list(map_shape),
            "tokens": tokens, "call_arguments": dict(call_arguments or {}),
            "rotary": dict(rotary) if rotary else None, "image_px": image_px,
        }  # fmt: skip
        self.map_shape = tuple(map_shape)
        self.part = make_part(part, arguments)
        self._rotary: tuple[Any, ...] | None = None
        if rotary:
            rope = make_part("DINOV3RopePositionEmbedding", rotary)
            cos_sin = rope(np.zeros((1, image_px, image_px, 3), np.float32))
            self._rotary = tuple(np.asarray(one) for one in cos_sin)

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Create the weights of the part: it runs once, because some create them in a call."""
        self.call(np.zeros((1, *input_shape[1:]), np.float32))

    def call(self, inputs: Any) -> Any:
        """Return the feature map of the part."""
        tokens, given = self._arguments["tokens"], dict(self._arguments["call_arguments"])
        if tokens:
            _, height, width, channels = inputs.shape
            inputs = keras.ops.reshape(inputs, (-1, height * width, channels))
        if self._rotary is not None:
            given["position_embeddings"] = tuple(
                keras.ops.cast(one, inputs.dtype) for one in self._rotary
            )
        outputs = self.part(inputs, **given)
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        return keras.ops.reshape(outputs, (-1, *self.map_shape))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return the shape of the feature map."""
        return input_shape[0], *self.map_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return super().get_config() | self._arguments


def make_part(part: str, arguments: Mapping[str, Any]) -> Any:
    """Return a layer of KerasHub.

    Raises:
        InputError: the class is not one of `PARTS`, or KerasHub is not installed.
    """
    if part not in PARTS:
        raise InputError(f"expected a layer of KerasHub among {', '.join(PARTS)}, got {part}")
    try:
        module = importlib.import_module(f"{_MODELS}.{PARTS[part]}")
    except ImportError as error:
        raise InputError(
            f"the model contains {part} of keras-hub, not installed here; "
            "pip install 'regraft[hub]'"
        ) from error
    layer = getattr(module, part)(**arguments)
    if part == "SwinTransformerBlock":
        layer.attn.supports_masking = True  # it takes a mask, otherwise Keras warns at each call
    return layer

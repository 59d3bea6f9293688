"""Tiny networks of each family of KerasHub, with random weights, saved as presets."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

PX = 32
_SHAPE = (PX, PX, 3)
_BLOCKS = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "patch_size": 8}


def _vit(models: Any) -> Any:
    return models.ViTBackbone(image_shape=_SHAPE, mlp_dim=32, **_BLOCKS)


def _deit(models: Any) -> Any:
    return models.DeiTBackbone(image_shape=_SHAPE, intermediate_dim=32, **_BLOCKS)


def _dinov2(models: Any) -> Any:
    return models.DINOV2Backbone(
        image_shape=_SHAPE, position_embedding_shape=(48, 48, 3), intermediate_dim=32,
        num_register_tokens=2, **_BLOCKS,
    )  # fmt: skip


def _dinov3(models: Any) -> Any:
    return models.DINOV3Backbone(
        image_shape=_SHAPE, intermediate_dim=32, num_register_tokens=2, **_BLOCKS
    )


def _siglip(models: Any) -> Any:
    text = models.SigLIPTextEncoder(
        vocabulary_size=20, embedding_dim=16, hidden_dim=16, num_layers=1, num_heads=2,
        intermediate_dim=16, max_sequence_length=4,
    )  # fmt: skip
    vision = models.SigLIPVisionEncoder(image_shape=_SHAPE, intermediate_dim=32, **_BLOCKS)
    return models.SigLIPBackbone(vision_encoder=vision, text_encoder=text)


def _swin(models: Any) -> Any:
    return models.SwinTransformerBackbone(
        image_shape=_SHAPE, embed_dim=16, depths=(1, 2), num_heads=(2, 2), window_size=2
    )


def _mit(models: Any) -> Any:
    return models.MiTBackbone(
        image_shape=_SHAPE, num_layers=2, layerwise_depths=[1, 1], layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1], max_drop_path_rate=0.1, layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2], hidden_dims=[16, 32],
    )  # fmt: skip


def _hgnet(models: Any) -> Any:
    return models.HGNetV2Backbone(
        image_shape=_SHAPE, depths=[1, 1], embedding_size=16, hidden_sizes=[16, 32],
        stem_channels=[3, 8, 16], hidden_act="relu", use_learnable_affine_block=False,
        stackwise_stage_filters=[(16, 8, 16, 1, 1, 3), (16, 16, 32, 2, 1, 3)],
        apply_downsample=[False, True], use_lightweight_conv_block=[False, True],
    )  # fmt: skip


NETWORKS: dict[str, Callable[[Any], Any]] = {
    "ViT": _vit, "DeiT": _deit, "DINOv2": _dinov2, "DINOv3": _dinov3, "SigLIP": _siglip,
    "Swin": _swin, "MiT": _mit, "HGNetV2": _hgnet,
}  # fmt: skip


def save_preset(family: str, folder: Path) -> Any:
    """Save a preset with pixels scaled to -1..1; return the network."""
    import keras
    import keras_hub

    keras.utils.set_random_seed(0)
    with warnings.catch_warnings():
        # Of KerasHub's Swin, whose attention takes a mask without saying so.
        warnings.filterwarnings("ignore", message=".*does not support masking.*")
        network = NETWORKS[family](keras_hub.models)
    network.save_to_preset(str(folder))
    converter = keras_hub.layers.ImageConverter(image_size=(PX, PX), scale=1 / 127.5, offset=-1.0)
    converter.save_to_preset(str(folder))
    return network


PRESET_CONFIG = {
    "image_shape": [64, 64, 3], "patch_size": 16, "num_layers": 12, "num_heads": 2,
    "hidden_dim": 32, "mlp_dim": 64, "name": "vit", "dtype": {"class_name": "DTypePolicy"},
}  # fmt: skip
_CONVERTER = {"image_size": [64, 64], "scale": [0.1, 0.2, 0.3], "offset": [-1, -2, -3]}


def write_preset(folder: Path, config: Any = None, kind: str = "ViTBackbone", **files: Any) -> str:
    """Write a preset without weights; return its name as a backbone."""
    folder.mkdir(exist_ok=True)
    files = {"image_converter": {"config": _CONVERTER}, **files}
    files["config"] = {"class_name": kind, "config": PRESET_CONFIG if config is None else config}
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return f"hub:{folder}"

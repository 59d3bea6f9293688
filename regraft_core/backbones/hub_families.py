"""The families of KerasHub's image networks, and what their configuration says about them.

To add a family, add a row here and its graph in `hub_graphs.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

Config = Mapping[str, Any]
_APACHE = "Apache-2.0"
_MAX_BLOCKS = 64


@dataclass(frozen=True)
class Facts:
    """What a configuration says: as the fields of `Backbone` with the same names."""

    image_px: int
    step_px: int
    width: int
    cut: str
    positions_px: int = 0


@dataclass(frozen=True)
class Family:
    """A family: the folder of its code and presets, and how to read a configuration.

    `license` is that of the weights that its authors have published.
    """

    name: str
    folder: str
    license: str
    facts: Callable[[Config], Facts]


def block_name(number: int, stage: int | None = None) -> str:
    """Return the name of the layer of a block, counted from 1; `stage` as well, if there are."""
    return f"block{number}" if stage is None else f"stage{stage}_block{number}"


def _tokens(config: Config) -> Facts:
    """A transformer with equal blocks; the last quarter is above the cut."""
    blocks = int(config["num_layers"])
    patch = config["patch_size"]
    step = int(patch if isinstance(patch, int) else patch[0])
    cut = block_name(max(blocks - max(blocks // 4, 1), 1))
    return Facts(_side(config), step, int(config["hidden_dim"]), cut, _side(config))


def _dinov2(config: Config) -> Facts:
    """As `_tokens`; the position embeddings are stored for a size of their own."""
    positions = int((config.get("position_embedding_shape") or (518,))[0])
    return replace(_tokens(config), positions_px=positions)


def _dinov3(config: Config) -> Facts:
    """As `_tokens`; rotary position embeddings are computed for any size."""
    return replace(_tokens(config), positions_px=0)


def _swin(config: Config) -> Facts:
    depths = config["depths"]
    last = len(depths)
    width = int(config["embed_dim"]) * 2 ** (last - 1)
    # Each merging halves the sides.
    step = int(config.get("patch_size", 4)) * 2 ** (last - 1)
    cut = f"stage{last - 1}_merging" if last > 1 else block_name(max(depths[0] - 1, 1), 1)
    return Facts(_side(config), step, width, cut)


def _mit(config: Config) -> Facts:
    strides, widths = config["layerwise_strides"], config["hidden_dims"]
    cut = f"stage{len(widths) - 1}_norm" if len(widths) > 1 else block_name(1, 1)
    return Facts(_side(config), math.prod(strides), int(widths[-1]), cut)


def _hgnet(config: Config) -> Facts:
    stages = config["stackwise_stage_filters"]
    last = len(stages) - 1
    if max(max(stage[3:5]) for stage in stages) > _MAX_BLOCKS:
        raise ValueError(f"more than {_MAX_BLOCKS} blocks in a stage")
    cut = block_name(int(stages[last - 1][3]), last) if last else "stem"
    # The stem and each stage with a convolution of stride 2 halve the sides.
    step = 4 * 2 ** sum(map(bool, config["apply_downsample"]))
    return Facts(_side(config), step, int(stages[-1][2]), cut)


def _side(config: Config) -> int:
    """Return the side of the images, 0 if any is accepted."""
    height, width, channels = config.get("image_shape") or (0, 0, 3)
    if height != width or channels != 3:
        raise ValueError(f"expected images [px, px, 3], got {[height, width, channels]}")
    return int(height or 0)


# By the class of the preset's network.
FAMILIES = {
    "ViTBackbone": Family("ViT", "vit", _APACHE, _tokens),
    "DeiTBackbone": Family("DeiT", "deit", _APACHE, _tokens),
    "DINOV2Backbone": Family("DINOv2", "dinov2", _APACHE, _dinov2),
    "DINOV3Backbone": Family("DINOv3", "dinov3", "DINOv3 License (Meta)", _dinov3),
    "SigLIPVisionEncoder": Family("SigLIP", "siglip", _APACHE, _tokens),
    "SwinTransformerBackbone": Family("Swin", "swin_transformer", "MIT", _swin),
    "MiTBackbone": Family(
        "MiT", "mit", "NVIDIA Source Code License (SegFormer, non-commercial)", _mit
    ),
    "HGNetV2Backbone": Family("HGNetV2", "hgnetv2", _APACHE, _hgnet),
}
# Networks of images and text; the part for images is used.
TOWERS = {"SigLIPBackbone": ("vision_encoder", "SigLIPVisionEncoder")}

"""Builds the network of a KerasHub preset, as a functional model that can be cut."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regraft_core.backbones.backbone_row import Backbone
from regraft_core.backbones.hub_families import TOWERS
from regraft_core.backbones.hub_presets import (
    CONFIG,
    SHARDS,
    Preset,
    find_preset,
    has_weights,
    network_config,
    plain_values,
    preset_digest,
    weight_files,
)
from regraft_core.backbones.weight_limit import build_within
from regraft_core.backbones.weights_file import check_declared, check_finite, count_values
from regraft_core.formats.backbone_names import DIGEST_MARK, short_name
from regraft_core.runtime.errors import InputError

_UNKNOWN_BYTES = 1 << 27
"""Taken as the size of weights that are not here: two billion parameters, at most."""
_MOST_DECLARED = 1.01
"""Values in the weights by those of the network: a version of KerasHub may keep a few more."""


def build_preset(row: Backbone, image_px: int, *, load: bool) -> Any:
    """Return the network of a preset from scaled images to a feature map.

    Args:
        row: of the preset.
        image_px: side of the images.
        load: whether to load its weights; otherwise they are initial.

    Raises:
        InputError: the preset is unavailable or has changed, or its weights do not match.
    """
    from regraft_core.backbones.hub_graphs import GRAPHS

    preset = find_preset(row.location)
    expected = row.location.partition(DIGEST_MARK)[2]
    if expected and (found := preset_digest(row.location)) != expected:
        raise InputError(f"{row.label}: expected SHA-256 {expected} of the preset, got {found}")
    kind, config = network_config(preset)
    paths = _weight_paths(preset) if load or has_weights(row.location) else []
    file_bytes = sum(path.stat().st_size for path in paths) or _UNKNOWN_BYTES
    try:
        whole = build_within(
            lambda: _whole(preset, kind, config, image_px), file_bytes, f"the preset {row.label}"
        )
        network = getattr(whole, "vision_encoder", whole)
        if load:
            _load(preset, whole, paths)
        graph = GRAPHS[kind](network, image_px)
        return graph.finish("backbone")
    except InputError:
        raise
    except Exception as error:
        # KerasHub, h5py and Keras raise many kinds of errors for values that do not match.
        cause = " ".join(str(error).split())[:200]
        raise InputError(f"{row.label}: the preset's files do not match: {cause}") from error


def _whole(preset: Preset, kind: str, config: dict[str, Any], image_px: int) -> Any:
    """Return the network whose weights the preset has, which may have a part for texts."""
    import keras_hub

    models = keras_hub.models
    if kind in ("SwinTransformerBackbone", "MiTBackbone", "HGNetV2Backbone"):
        # No weight depends on the size of the images.
        config = config | {"image_shape": (image_px, image_px, 3)}
    with warnings.catch_warnings():
        # Swin's attention takes a mask without saying so to Keras, which warns.
        warnings.filterwarnings("ignore", message=".*does not support masking.*")
        network = getattr(models, kind)(**config)
    content = preset.json(CONFIG) or {}
    if content.get("class_name") not in TOWERS:
        return network
    texts = content["config"].get("text_encoder")
    found = texts.get("class_name") if isinstance(texts, dict) else texts
    if found != "SigLIPTextEncoder":
        raise InputError(
            f"{short_name(preset.name)}: expected a SigLIPTextEncoder in {CONFIG}, whose weights "
            f"are among those of the preset, got {found}"
        )
    tower = models.SigLIPTextEncoder(**plain_values(preset.name, texts["config"]))
    return models.SigLIPBackbone(vision_encoder=network, text_encoder=tower)


def _weight_paths(preset: Preset) -> list[Path]:
    """Return the files of a preset's weights, the first of which names the others."""
    return [path for name in weight_files(preset) if (path := preset.file(name)) is not None]


def _load(preset: Preset, network: Any, paths: Sequence[Path]) -> None:
    """Load the weights of a preset, of which only numbers are read."""
    shapes = [tuple(variable.shape) for variable in network.weights]
    for path in paths:
        if path.name != SHARDS:
            check_declared(path, shapes)
    declared = sum(count_values(path) for path in paths if path.name != SHARDS)
    expected = sum(map(math.prod, shapes))
    if declared > _MOST_DECLARED * expected:
        # Keras loads what the network has, and says nothing about a block that it lacks.
        raise InputError(
            f"{short_name(preset.name)}: the weights have {declared} values, the network in "
            f"{CONFIG} has {expected}"
        )
    if len({path.resolve().parent for path in paths}) > 1 and preset.folder is not None:
        raise InputError("expected all weights in the preset's folder")
    network.load_weights(paths[0])
    check_finite(network, short_name(preset.name))

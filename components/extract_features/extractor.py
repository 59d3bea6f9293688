"""The frozen backbone with the outputs that an extraction stores."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from regraft_core.backbones.backbone_table import Backbone
from regraft_core.backbones.cuts import find_cut, has_cut
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.features import Level
from regraft_core.formats.options.extract_features import FeatureOptions
from regraft_core.runtime.step_reports import log_progress
from regraft_core.training.feature_store import CUT, LEVELS
from regraft_core.training.heads import all_levels, pooled_levels, pooling_layer


def choose_cut(model: keras.Model, backbone: Backbone, options: FeatureOptions) -> str | None:
    """Return the layer at the cut, None without one."""
    if not options.keep_cut:
        return None
    if options.cut == "auto" and not has_cut(model):
        log_progress(
            f"extract_features: no layer of {backbone.label} has all paths through it, so there is "
            "no cut: top trains only the head"
        )
        return None
    return find_cut(model, backbone.cut if options.cut == "auto" else options.cut).name


def choose_levels(model: keras.Model, options: FeatureOptions) -> list[Level]:
    """Return the levels to extract, none for a head that reads only the last."""
    if options.levels == "last" or "gap" not in options.poolings:
        return []
    return all_levels(model)


def build_extractor(
    model: keras.Model, cut: str | None, levels: list[Level], options: FeatureOptions,
    data: DatasetManifest,
) -> keras.Model:  # fmt: skip
    """Return the model from the backbone's input to all cached arrays.

    They include the activations at the cut unless those of all workers exceed `cache_gb`.
    """
    outputs: dict[str, Any] = {kind: pooling_layer(kind)(model.output)
                               for kind in options.poolings}  # fmt: skip
    if levels:
        outputs[LEVELS] = pooled_levels(model, levels)
    if cut is not None:
        tensor = find_cut(model, cut).tensor
        rows = data.splits["train"].count * options.views + data.splits["validation"].count
        row_bytes = math.prod(tensor.shape[1:]) * np.dtype(options.feature_dtype).itemsize
        if rows * row_bytes <= options.cache_gb * 1e9:
            outputs[CUT] = tensor
        else:
            log_progress(
                f"extract_features: activations at {cut} would take {rows * row_bytes / 1e9:.3g} "
                f"GB, more than cache-gb {options.cache_gb:g}: top will train from images"
            )
    return keras.Model(model.input, outputs)

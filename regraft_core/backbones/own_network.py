"""Builds a user's own network as a backbone: a flat graph up to its last feature map."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

from regraft_core.backbones.backbone_row import Backbone
from regraft_core.backbones.own_config import KERAS_SUFFIX, checked_config
from regraft_core.backbones.own_files import find_own_file, own_digest
from regraft_core.backbones.weight_limit import build_within
from regraft_core.backbones.weights_file import check_declared, check_finite
from regraft_core.formats.backbone_names import DIGEST_MARK
from regraft_core.runtime.errors import InputError

_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_OUTER_ERROR = "Exception encountered: "
"""What Keras writes before the cause, after the configuration in which it is."""


def build_own(row: Backbone, image_px: int, *, load: bool) -> Any:
    """Return the network of a file from scaled images to its last feature map.

    Its classification head is removed. Nested models become part of the graph. A network that ends
    in a vector or in tokens returns them as a map [n, 1, 1, c] or [n, 1, tokens, c].

    Args:
        row: of the file.
        image_px: side of the images.
        load: whether to load its weights; otherwise they are initial.

    Raises:
        InputError: the file has changed, is damaged, or its network cannot be read.
    """
    path = find_own_file(row.location)
    expected = row.location.partition(DIGEST_MARK)[2]
    if expected and (found := own_digest(row.location)) != expected:
        raise InputError(f"{row.label}: expected SHA-256 {expected}, got {found}")
    if row.source == "saved_model":
        from regraft_core.backbones.frozen_graph import build_frozen

        if not load:
            raise InputError("weights: a SavedModel has its own weights only, got random")
        return build_frozen(path, image_px)
    import numpy as np

    from regraft_core.backbones.flat_graph import flat_network, up_to_feature_map

    problem = f"cannot read the network in {path.name}"
    try:
        model = _read(path, load=load)
        if not row.one_size:
            problem = f"{path.name} cannot compute images of {image_px} px; try another --image-px"
        network = up_to_feature_map(flat_network(model, image_px))
        if not row.one_size:
            # Some layers notice only in a computation that sizes do not match.
            network(np.zeros((1, image_px, image_px, 3), np.float32))
        return network
    except InputError:
        raise
    except Exception as error:
        # h5py, zipfile and Keras raise many kinds of errors for an invalid file.
        text = " ".join(_COLORS.sub("", str(error)).split())
        cause = text.rpartition(_OUTER_ERROR)[2][:200]
        raise InputError(f"backbone: {problem}: {cause}") from error


def _read(path: Path, *, load: bool) -> Any:
    config = copy.deepcopy(checked_config(path))
    model = build_within(lambda: _deserialized(path, config), path.stat().st_size, path.name)
    if load:
        check_declared(path, [tuple(variable.shape) for variable in model.weights])
        model.load_weights(path)
        check_finite(model, path.name)
    return model


def _deserialized(path: Path, config: dict[str, Any]) -> Any:
    """Return the model of a configuration, in safe mode."""
    import keras
    from keras.src.legacy.saving import json_utils
    from keras.src.legacy.saving.saving_options import keras_option_scope
    from keras.src.legacy.saving.saving_utils import model_from_config
    from keras.src.saving.serialization_lib import SafeModeScope

    if path.suffix == KERAS_SUFFIX:
        return keras.saving.deserialize_keras_object(config, safe_mode=True)
    with keras_option_scope(use_legacy_config=True), SafeModeScope(True):
        return model_from_config(json_utils.decode(json.dumps(config)))

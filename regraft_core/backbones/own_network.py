"""Builds a user's own network as a backbone: a flat graph up to its last feature map."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

from regraft_core.backbones.backbone_row import Backbone
from regraft_core.backbones.own_files import (
    KERAS_SUFFIX,
    checked_config,
    find_own_file,
    own_digest,
)
from regraft_core.backbones.weights_file import check_declared, check_finite
from regraft_core.formats.backbone_names import DIGEST_MARK
from regraft_core.runtime.errors import InputError

# Weights in a file may be compressed.
_MOST_PER_BYTE, _SMALL_NETWORK = 16, 1 << 24
_OUTPUT = "feature_map"


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
    try:
        return _up_to_feature_map(_flat(_read(path, load=load), image_px))
    except InputError:
        raise
    except Exception as error:
        # h5py, zipfile and Keras raise many kinds of errors for an invalid file.
        cause = " ".join(str(error).split())[:200]
        raise InputError(f"backbone: cannot read the network in {path.name}: {cause}") from error


def _read(path: Path, *, load: bool) -> Any:
    model = _within_file_size(path, copy.deepcopy(checked_config(path)))
    if load:
        check_declared(path, [tuple(variable.shape) for variable in model.weights])
        model.load_weights(path)
        check_finite(model, path.name)
    return model


def _within_file_size(path: Path, config: dict[str, Any]) -> Any:
    """Return the model of a configuration, unless its weights cannot come from the file.

    Some bytes can describe a layer of terabytes, so no weight is created before all are counted.

    Raises:
        InputError: the weights would be much larger than the file.
    """
    import keras
    from keras.src.backend.common import global_state
    from keras.src.legacy.saving import json_utils
    from keras.src.legacy.saving.saving_options import keras_option_scope
    from keras.src.legacy.saving.saving_utils import model_from_config
    from keras.src.saving.serialization_lib import SafeModeScope

    with keras.StatelessScope(initialize_variables=False):
        if path.suffix == KERAS_SUFFIX:
            config.pop("compile_config", None)
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
        else:
            with keras_option_scope(use_legacy_config=True), SafeModeScope(True):
                model = model_from_config(json_utils.decode(json.dumps(config)))
    count = sum(math.prod(variable.shape) for variable in model.weights)
    if count > _MOST_PER_BYTE * path.stat().st_size + _SMALL_NETWORK:
        global_state.set_global_attribute("uninitialized_variables", [])
        raise InputError(
            f"backbone: the network in {path.name} has {count} parameters, more than its "
            f"{path.stat().st_size} bytes can hold"
        )
    with keras.StatelessScope():
        pass  # at its end, Keras creates the weights
    return model


def _flat(model: Any, image_px: int) -> Any:
    """Return a copy of a model for an image size, in which nested models are part of the graph."""
    import keras

    inputs = keras.Input((image_px, image_px, 3), name="image")
    output = _call_flat(model, inputs, {inputs.name})
    if not hasattr(output, "shape"):
        raise InputError("backbone: expected a network with one output, got several")
    shared = keras.Model(inputs, output, name="backbone")
    # A copy, because each layer now has two inputs: its own and the new one.
    flat = keras.Model.from_config(shared.get_config())
    flat.set_weights(shared.get_weights())
    return flat


def _call_flat(model: Any, inputs: Any, names: set[str]) -> Any:
    """Apply the layers of a model, and those of nested ones, to a tensor."""
    import keras

    def layer_or_nested(operation: Any) -> Any:
        if isinstance(operation, keras.Model):
            return lambda tensor, **_: _call_flat(operation, tensor, names)
        if operation.name in names:
            operation.name = f"{model.name}_{operation.name}"
        names.add(operation.name)
        return operation

    graph = getattr(model, "_functional", model)
    if not hasattr(graph, "_run_through_graph"):
        raise InputError(
            f"backbone: the nested model {model.name} is a subclass of keras.Model, whose graph is "
            "not known; build it of layers, or export the network as a SavedModel"
        )
    if len(graph.inputs) != 1:
        raise InputError(f"backbone: {model.name} has {len(graph.inputs)} inputs, expected one")
    return graph._run_through_graph([inputs], operation_fn=layer_or_nested)


def _up_to_feature_map(model: Any) -> Any:
    """Return a model up to its last feature map, or to the vector or tokens before its head."""
    import keras

    from regraft_core.backbones.cuts import parents_of

    tensor = model.output
    if len(tensor.shape) == 2:
        tensor = vector = _before_classifier(tensor)
        while len(tensor.shape) < 4 and _is_plain(tensor):
            tensor = parents_of(tensor)[0]
        tensor = tensor if len(tensor.shape) == 4 else vector
    if len(tensor.shape) < 4:
        *tokens, width = tensor.shape[1:]
        shape = (1, tokens[0] if tokens else 1, width)
        tensor = keras.layers.Reshape(shape, name=_OUTPUT)(tensor)
    return keras.Model(model.input, tensor, name="backbone")


def _before_classifier(tensor: Any) -> Any:
    """Return the input of the last dense layer, if only activations follow it."""
    import keras

    from regraft_core.backbones.cuts import parents_of

    current = tensor
    while len(parents_of(current)) == 1:
        operation = current._keras_history.operation
        if isinstance(operation, keras.layers.Dense):
            return parents_of(current)[0]
        if operation.weights if hasattr(operation, "weights") else ():
            break
        current = parents_of(current)[0]
        if len(current.shape) != 2:
            break
    return tensor


def _is_plain(tensor: Any) -> bool:
    """Return whether a tensor is computed without weights from one other."""
    from regraft_core.backbones.cuts import parents_of

    operation = tensor._keras_history.operation
    return len(parents_of(tensor)) == 1 and not getattr(operation, "weights", ())

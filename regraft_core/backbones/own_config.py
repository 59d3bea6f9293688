"""The configuration of a network in a `.keras` or `.h5` file: read as JSON, and checked.

Importing this module does not import TensorFlow.
"""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from regraft_core.backbones.keras_2_config import MODELS, in_keras_3
from regraft_core.runtime.errors import InputError

KERAS_SUFFIX = ".keras"
_MAX_CONFIG_BYTES = 64 << 20
_LARGEST_FACTOR, _SMALLEST_MEAN = 1 / 16, 2.0
"""What tells a network that reads pixels in 0..255 from one whose pixels are scaled before."""
# Layers that contain code, or read files, when they are built.
_REFUSED = {
    "Lambda": "code", "__lambda__": "code", "TFOpLambda": "operations that Keras 3 cannot read",
    "SlicingOpLambda": "operations that Keras 3 cannot read",
    "TensorFlowOpLayer": "operations that Keras 3 cannot read",
    "TFSMLayer": "another file", "TorchModuleWrapper": "code", "FlaxLayer": "code",
    "JaxLayer": "code", "StringLookup": "a table", "IntegerLookup": "a table",
    "TextVectorization": "a table", "Hashing": "text", "HashedCrossing": "text",
}  # fmt: skip
# The only functions in a configuration. Another function is code, also one that Keras has.
_ACTIVATIONS = frozenset({
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu",
    "hard_swish", "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu",
    "relu6", "selu", "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign",
    "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus", "swish", "tanh", "tanh_shrink",
    "threshold",
})  # fmt: skip
# Layers of exported networks that are registered; they check what they are built of.
_OWN_LAYERS = {
    "regraft>FrozenGraph": "regraft_core.backbones.frozen_graph",
    "regraft>HubPart": "regraft_core.backbones.network_layers",
    "regraft>PatchTokens": "regraft_core.backbones.network_layers",
}
_FLOATS = ("float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16")
_POLICIES = ("DTypePolicy", "FloatDTypePolicy", "Policy")
# They keep the range of pixels.
_KEEP_RANGE = ("InputLayer", "Resizing", "CenterCrop", "Cropping2D", "Identity")


def checked_config(path: Path) -> dict[str, Any]:
    """Return the configuration of a `.keras` or `.h5` file, of Keras' own layers only.

    Raises:
        InputError: it is damaged, or contains a layer with code or of another package, or what no
            backbone can have: several inputs or outputs, channels first, quantized weights.
    """
    state = path.stat()
    return _checked_config(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=8)
def _checked_config(path: Path, _changed: int, _size: int) -> dict[str, Any]:
    try:
        text = _config_of_keras(path) if path.suffix == KERAS_SUFFIX else _config_of_h5(path)
        config = json.loads(text, object_hook=_without_training)
    except Exception as error:
        # zipfile, its compressions, h5py and json raise many kinds of errors for a damaged file.
        cause = " ".join(str(error).split())[:150]
        raise InputError(f"backbone: cannot read the network in {path.name}: {cause}") from error
    for one in _objects(config):
        _check_object(path, one)
    if not isinstance(config, dict) or config.get("class_name") not in MODELS:
        kind = config.get("class_name") if isinstance(config, dict) else None
        raise InputError(
            f"backbone: expected a functional or sequential model in {path.name}, got {kind}; a "
            "subclass of keras.Model has no graph that can be cut; export it as a SavedModel"
        )
    try:
        _check_ends(path, config)
        in_float32: dict[str, Any] = _in_float32(config)
        return in_float32 if path.suffix == KERAS_SUFFIX else in_keras_3(in_float32, _objects)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"backbone: the configuration in {path.name} is not that of a network of Keras"
        ) from error


def _without_training(values: dict[str, Any]) -> dict[str, Any]:
    """Return an object of a configuration without its loss and metrics, which may be code."""
    values.pop("compile_config", None)
    return values


def _config_of_keras(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("config.json")
        if entry.file_size > _MAX_CONFIG_BYTES:
            raise ValueError(f"its configuration has {entry.file_size} bytes")
        return archive.read(entry).decode()


def _config_of_h5(path: Path) -> str:
    import h5py

    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise ValueError("it has weights only; pass it with --weights and name the backbone")
        text = file.attrs["model_config"]
    return text.decode() if isinstance(text, bytes) else str(text)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects with a class in a configuration."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, dict):
            if "class_name" in one:
                yield one
            pending.extend(one.values())
        elif isinstance(one, list):
            pending.extend(one)


def _check_object(path: Path, one: dict[str, Any]) -> None:
    kind, module = str(one["class_name"]), one.get("module")
    registered, values = one.get("registered_name"), one.get("config")
    layer = kind.rpartition(".")[2]  # Keras also finds `layers.Lambda` of the module `keras`
    if layer in _REFUSED:
        raise InputError(
            f"backbone: {path.name} contains a layer {layer}, which holds {_REFUSED[layer]} and is "
            "not read; replace it by layers of Keras, or export the network as a SavedModel"
        )
    if layer.startswith("Quantized"):
        raise InputError(
            f"backbone: {path.name} has quantized weights; use the network before quantization"
        )
    if kind == "function" and str(values) not in _ACTIVATIONS:
        raise InputError(
            f"backbone: {path.name} contains the function {values}, whose code is not run; "
            "expected activations of Keras only"
        )
    values = values if isinstance(values, dict) else {}
    activation = values.get("activation")
    if isinstance(activation, dict) and "class_name" not in activation:  # that of a lambda
        raise InputError(
            f"backbone: the activation of {values.get('name')} in {path.name} is code, which is "
            "not run; expected activations of Keras only"
        )
    if values.get("data_format") == "channels_first":
        raise InputError(
            f"backbone: the layer {values.get('name')} of {path.name} has channels first; build "
            "the network with data_format channels_last"
        )
    if registered == f"regraft>{kind}" and _OWN_LAYERS.get(registered) == module:
        return
    # Keras 2 wrote no modules, only the names of its own classes.
    is_custom = isinstance(registered, str) and ">" in registered
    known = module is None or str(module).split(".")[0] in ("keras", "builtins")
    if is_custom or not known or (kind == "function" and module is None):
        raise InputError(
            f"backbone: {path.name} contains {kind} of {module or registered}, whose code is not "
            "run; expected layers of Keras only"
        )


def _check_ends(path: Path, config: dict[str, Any]) -> None:
    """Check that a model has one input and one output, if its configuration lists them."""
    values = config.get("config")
    if not isinstance(values, dict):
        return
    for end in ("input", "output"):
        count = _count_tensors(values.get(f"{end}_layers", ["", 0, 0]))
        if count != 1:
            raise InputError(
                f"backbone: {path.name} has {count} {end}s, expected one; save a keras.Model from "
                "the input of images to one of its outputs"
            )


def _count_tensors(value: Any) -> int:
    """Count the tensors in a list or dict of them, each `[layer, node, index]`."""
    if isinstance(value, dict):
        return sum(map(_count_tensors, value.values()))
    if not isinstance(value, list):
        return 0
    is_tensor = bool(value) and isinstance(value[0], str)
    return 1 if is_tensor else sum(map(_count_tensors, value))


def _in_float32(value: Any) -> Any:
    """Return a configuration that computes in float32, as all that reads features expects."""
    if isinstance(value, list):
        return [_in_float32(one) for one in value]
    if not isinstance(value, dict):
        return value
    changed = {key: _in_float32(one) for key, one in value.items()}
    if changed.get("dtype") in _FLOATS:
        changed["dtype"] = "float32"
    if changed.get("class_name") in _POLICIES:
        changed["config"] = {"name": "float32"}
    return changed


def input_shape(config: dict[str, Any]) -> list[Any] | None:
    """Return the shape of a network's input, None if it does not say."""
    layers = _layers(config)
    first = layers[0] if layers else {}
    values = first.get("config", {})
    shape = values.get("batch_shape") or values.get("batch_input_shape")
    shape = shape or (first.get("build_config") or {}).get("input_shape")
    if shape is None and "layers" in values:
        return input_shape(first)
    return list(shape) if isinstance(shape, list | tuple) else None


def own_scaling(config: dict[str, Any]) -> Literal["pixels", "statistics", ""]:
    """Return how a network scales its input itself.

    Returns:
        `pixels` if its first layer divides pixels in 0..255, `statistics` if it subtracts a mean
        that is among its weights, "" if the configuration does not show how.
    """
    for layer in _flat_layers(config):
        kind, values = str(layer.get("class_name")), layer.get("config", {})
        if kind in _KEEP_RANGE or is_augmentation(kind):
            continue
        if kind == "Rescaling":
            return "pixels" if 0 < _largest(values.get("scale")) <= _LARGEST_FACTOR else ""
        if kind == "TrueDivide":
            given = [one.get("args", [])[1:2] for one in layer.get("inbound_nodes", [])]
            return "pixels" if _largest(given) >= 1 / _LARGEST_FACTOR else ""
        if kind != "Normalization":
            return ""
        if values.get("mean") is None:
            return "statistics"
        return "pixels" if _largest(values["mean"]) >= _SMALLEST_MEAN else ""
    return ""


def is_augmentation(kind: str) -> bool:
    """Return whether a class of layers changes images only while a network is trained."""
    return (kind.startswith("Random") and kind != "RandomCrop") or kind in (
        "AugMix", "CutMix", "MixUp", "RandAugment",
    )  # fmt: skip


def _layers(config: dict[str, Any]) -> list[Any]:
    layers = config["config"]
    return list(layers["layers"] if isinstance(layers, dict) else layers)  # Keras 2: a list


def _flat_layers(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the layers of a model in order, and those of nested models in their place."""
    for layer in _layers(config):
        if layer.get("class_name") in MODELS:
            yield from _flat_layers(layer)
        else:
            yield layer


def _largest(value: Any) -> float:
    """Return the largest magnitude of the numbers in a value, 0 without any."""
    if isinstance(value, dict):
        return max(map(_largest, value.values()), default=0.0)
    if isinstance(value, list):
        return max(map(_largest, value), default=0.0)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return abs(float(value)) if is_number else 0.0

"""A user's own network as a backbone: a `.keras` or `.h5` file, or the folder of a SavedModel.

Only its configuration is read here, as JSON; importing this module does not import TensorFlow.
"""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regraft_core.backbones.backbone_row import Backbone
from regraft_core.formats.backbone_names import DIGEST_MARK
from regraft_core.formats.manifest_storage import digest_file, digest_of
from regraft_core.images.scalings import KINDS, check_scaling
from regraft_core.runtime.addresses import is_remote, local_path
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.safe_files import refuse_links

KERAS_SUFFIX, H5_SUFFIXES = ".keras", (".h5", ".hdf5")
GRAPH_FILE = "saved_model.pb"
CUT = "fraction:0.3"
"""The default cut of a network whose stages are unknown, by the parameters above it."""
_MAX_CONFIG_BYTES = 64 << 20
_SCALES_ITSELF = {"Rescaling", "Normalization"}
# Layers that contain code, or read files, when they are built.
_REFUSED = {
    "Lambda": "code", "__lambda__": "code", "TFOpLambda": "operations that Keras 3 cannot read",
    "SlicingOpLambda": "operations that Keras 3 cannot read",
    "TensorFlowOpLayer": "operations that Keras 3 cannot read",
    "TFSMLayer": "another file", "TorchModuleWrapper": "code", "FlaxLayer": "code",
    "JaxLayer": "code", "StringLookup": "a table", "IntegerLookup": "a table",
    "TextVectorization": "a table", "Hashing": "text", "HashedCrossing": "text",
}  # fmt: skip
# Layers of exported networks that are registered; they check what they are built of.
_OWN_LAYERS = {
    "regraft>FrozenGraph": "regraft_core.backbones.frozen_graph",
    "regraft>HubPart": "regraft_core.backbones.network_layers",
    "regraft>PatchTokens": "regraft_core.backbones.network_layers",
}


def is_own_file(name: str) -> bool:
    """Return whether a name is the path or the `file:` URI of a network."""
    path = name.partition(DIGEST_MARK)[0]
    is_file = path.endswith((KERAS_SUFFIX, *H5_SUFFIXES)) or "/" in path
    return is_file or (local_path(path) / GRAPH_FILE).is_file()


def find_own_file(name: str) -> Path:
    """Return the path of a network.

    Raises:
        InputError: there is none, or it is remote.
    """
    text = name.partition(DIGEST_MARK)[0]
    if is_remote(text):
        raise InputError("backbone: expected a path or a file: URI of a network; download it first")
    path = local_path(text).expanduser()
    is_known = path.name.endswith((KERAS_SUFFIX, *H5_SUFFIXES)) and path.is_file()
    if not is_known and not (path / GRAPH_FILE).is_file():
        raise InputError(
            f"backbone: expected a .keras or .h5 file or a SavedModel at {path}, found none"
        )
    return path


def own_digest(name: str) -> str:
    """Return the SHA-256 (hex) of a file, or of all files of a SavedModel.

    Raises:
        InputError: there is none, or a SavedModel contains links.
    """
    path = find_own_file(name)
    if path.is_file():
        return digest_file(path)
    refuse_links(path)
    files = sorted(one for one in path.rglob("*") if one.is_file())
    return digest_of({str(one.relative_to(path)): digest_file(one) for one in files})


def own_row(name: str, scaling: str = "auto") -> Backbone:
    """Return the description of a network in a file.

    Args:
        name: its path.
        scaling: of the pixels, `auto` if the network scales them itself.

    Raises:
        InputError: it is missing, contains code, or nothing says how pixels are scaled.
    """
    path = find_own_file(name)
    image_px, scales_itself = 0, False
    if path.is_file():
        config = checked_config(path)
        try:
            image_px, scales_itself = _input_px(path, config), _scales_itself(config)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"backbone: the configuration in {path.name} is not that of a network of Keras"
            ) from error
    if scaling == "auto" and not scales_itself:
        raise InputError(
            f"scaling: {path.name} does not say how its input is scaled; name it with --scaling, "
            f"one of {', '.join(KINDS)}"
        )
    return Backbone(
        constructor=path.name,
        scaling="none" if scaling == "auto" else check_scaling(scaling),
        image_px=image_px,
        min_px=1,
        width=0,
        cut=CUT,
        license="your own",
        weights_from="file",
        has_top=False,
        source="keras" if path.is_file() else "saved_model",
        location=name,
        one_size=image_px > 0,
    )


def checked_config(path: Path) -> dict[str, Any]:
    """Return the configuration of a `.keras` or `.h5` file, of Keras' own layers only.

    Raises:
        InputError: it is damaged, or contains a layer with code or of another package.
    """
    state = path.stat()
    return _checked_config(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=8)
def _checked_config(path: Path, _changed: int, _size: int) -> dict[str, Any]:
    try:
        text = _config_of_keras(path) if path.suffix == KERAS_SUFFIX else _config_of_h5(path)
        config = json.loads(text)
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        cause = " ".join(str(error).split())[:150]
        raise InputError(f"backbone: cannot read the network in {path.name}: {cause}") from error
    for one in _objects(config):
        _check_object(path, one)
    if not isinstance(config, dict) or config.get("class_name") not in ("Functional", "Sequential"):
        kind = config.get("class_name") if isinstance(config, dict) else None
        raise InputError(
            f"backbone: expected a functional or sequential model in {path.name}, got {kind}; a "
            "subclass of keras.Model has no graph that can be cut; export it as a SavedModel"
        )
    return config


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
    registered = one.get("registered_name")
    layer = kind.rpartition(".")[2]  # Keras also finds `layers.Lambda` of the module `keras`
    if layer in _REFUSED:
        raise InputError(
            f"backbone: {path.name} contains a layer {layer}, which holds {_REFUSED[layer]} and is "
            "not read; replace it by layers of Keras"
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


def _input_px(path: Path, config: dict[str, Any]) -> int:
    """Return the side of the images that a network expects, 0 if it accepts any.

    Raises:
        InputError: its input is not images, or they are not square or without three channels.
    """
    shape = _input_shape(config)
    if shape is None:
        return 0
    if len(shape) != 4 or shape[3] not in (3, None) or shape[1] != shape[2]:
        raise InputError(
            f"backbone: expected an input [n, px, px, 3] in {path.name}, got {list(shape)}"
        )
    return int(shape[1] or 0)


def _input_shape(config: dict[str, Any]) -> list[Any] | None:
    layers = config["config"]
    layers = layers["layers"] if isinstance(layers, dict) else layers  # Keras 2: a list
    first = layers[0] if layers else {}
    values = first.get("config", {})
    shape = values.get("batch_shape") or values.get("batch_input_shape")
    shape = shape or (first.get("build_config") or {}).get("input_shape")
    if shape is None and "layers" in values:
        return _input_shape(first)
    return list(shape) if isinstance(shape, list | tuple) else None


def _scales_itself(config: dict[str, Any]) -> bool:
    """Return whether one of the first layers scales the pixels."""
    layers = config["config"]
    layers = layers["layers"] if isinstance(layers, dict) else layers
    return any(layer.get("class_name") in _SCALES_ITSELF for layer in layers[:4])

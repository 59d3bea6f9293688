"""A user's own network as a backbone: a `.keras` or `.h5` file, or the folder of a SavedModel.

Only its configuration is read here, as JSON; importing this module does not import TensorFlow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regraft_core.backbones.backbone_row import Backbone
from regraft_core.backbones.own_config import (
    KERAS_SUFFIX,
    checked_config,
    input_shape,
    own_scaling,
)
from regraft_core.formats.backbone_names import DIGEST_MARK
from regraft_core.formats.manifest_storage import digest_file, digest_of
from regraft_core.images.scalings import KINDS, check_scaling
from regraft_core.runtime.addresses import is_remote, local_path
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.safe_files import refuse_links

H5_SUFFIXES = (".h5", ".hdf5")
GRAPH_FILE = "saved_model.pb"
CUT = "fraction:0.3"
"""The default cut of a network whose stages are unknown, by the parameters above it."""


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
    image_px, own = 0, ""
    if path.is_file():
        config = checked_config(path)
        try:
            image_px, own = _input_px(path, config), own_scaling(config)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"backbone: the configuration in {path.name} is not that of a network of Keras"
            ) from error
    if scaling == "auto" and not own:
        raise InputError(
            f"scaling: {path.name} does not say how its input is scaled; name it with --scaling, "
            f"one of {', '.join(KINDS)}"
        )
    if own == "pixels" and scaling not in ("auto", "none"):
        raise InputError(
            f"scaling: the first layer of {path.name} scales pixels itself, so {scaling} would "
            "scale them twice; leave --scaling out"
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


def _input_px(path: Path, config: dict[str, Any]) -> int:
    """Return the side of the images that a network expects, 0 if it accepts any.

    Raises:
        InputError: its input is not images, or they are not square or of other channels.
    """
    shape = input_shape(config)
    if shape is None:
        return 0
    if len(shape) != 4 or shape[3] not in (1, 3, None) or shape[1] != shape[2]:
        raise InputError(
            f"backbone: expected an input [n, px, px, 3] or [n, px, px, 1] in {path.name}, got "
            f"{shape}; save a model whose first layers make this of square images, such as "
            "keras.layers.Resizing or Permute"
        )
    return int(shape[1] or 0)

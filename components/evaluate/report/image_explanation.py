"""Test images with the evidence for a label in them, as small images in the page."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from components.evaluate.predict import printable_path
from components.evaluate.report.grad_cam import explained_layer, heat_maps
from regraft_core.formats.manifests.model import Preprocessing
from regraft_core.formats.records import read_split
from regraft_core.images.preprocess import scale

SIDE_PX = 192
QUALITY = 80
# From yellow over orange to red: (strength of the evidence, red, green, blue).
HEAT = np.array([[0.0, 255, 214, 102], [0.5, 247, 140, 40], [1.0, 196, 30, 30]])
MAX_OPACITY = 0.72


@dataclass(frozen=True)
class ExplainedImage:
    """An image and the evidence for a label in it as data URIs (empty: none), and its path."""

    path: str
    image: str
    overlay: str


@dataclass(frozen=True)
class ImageExplainer:
    """Shows what in the test images speaks for a label, to a model.

    Attributes:
        model: the chosen candidate.
        preprocessing: of the model.
        load: from encoded images, string [n], to pixels [n, px, px, 3] in 0..255.
        dataset: the dataset's folder.
    """

    model: keras.Model
    preprocessing: Preprocessing
    load: Callable[[tf.Tensor], tf.Tensor]
    dataset: str | os.PathLike[str]

    def explain(self, indices: Sequence[int], labels: Sequence[int]) -> list[ExplainedImage]:
        """Return test images with the evidence for a label in each.

        Args:
            indices: of the images in the test split; an image may occur more than once.
            labels: the class to explain in each.
        """
        if not indices:
            return []
        by_index = {k: r for k, r in enumerate(read_split(self.dataset, "test")) if k in indices}
        records = [by_index[index] for index in indices]
        pixels = self.load(tf.constant([record.encoded for record in records]))
        maps = heat_maps(self.model, scale(pixels, self.preprocessing.scaling), labels)
        explained = []
        for k, record in enumerate(records):
            image = Image.fromarray(np.clip(pixels[k].numpy().round(), 0, 255).astype(np.uint8))
            evidence = data_uri(overlay(image, maps[k])) if maps is not None else ""
            explained.append(ExplainedImage(printable_path(record.path), data_uri(image), evidence))
        return explained

    @property
    def note(self) -> str:
        """At which layer images are explained."""
        point = explained_layer(self.model)
        if point is None:
            return "This model has no feature map to explain."
        height, width = point.tensor.shape[1:3]
        return f"Explained at {point.name}, {height} x {width} positions."


def overlay(image: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Draw a heat map [h, w] in 0..1 over an image, which becomes gray to show the colors."""
    side = max(SIDE_PX, *image.size)
    gray = image.convert("L").convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    resized = Image.fromarray(heat.astype(np.float32)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    evidence = np.clip(np.asarray(resized), 0, 1)
    color = np.stack([np.interp(evidence, HEAT[:, 0], HEAT[:, k]) for k in (1, 2, 3)], axis=-1)
    opacity = MAX_OPACITY * evidence[..., None] ** 0.8
    mixed = np.asarray(gray) * (1 - opacity) + color * opacity
    return Image.fromarray(mixed.round().astype(np.uint8))


def data_uri(image: Image.Image) -> str:
    """Return an image as a WebP data URI, resized to a side of 192 pixels."""
    small = image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()

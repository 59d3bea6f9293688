"""The worst mistakes, as small images that fit into the page."""

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

from components.evaluate.assess import Assessment
from components.evaluate.predict import readable
from components.evaluate.report.grad_cam import explained_layer, heat_maps
from components.evaluate.report.report_data import GalleryItem
from regraft_core.formats.manifests import Preprocessing
from regraft_core.formats.records import read_split
from regraft_core.images.preprocess import scale

MOST = 12
SIDE_PX = 192
QUALITY = 80
# From nothing over amber to red: (share of evidence, red, green, blue).
HEAT = np.array([[0.0, 255, 214, 102], [0.5, 247, 140, 40], [1.0, 196, 30, 30]])
STRONGEST = 0.72


def worst(probabilities: NDArray[np.floating], true_labels: NDArray[np.integer]) -> list[int]:
    """Return the indices of the wrong answers that were given with most confidence, at most 12.

    Without any mistake, the right answers with least confidence. Images whose predictions are not
    numbers have no answer and are left out.
    """
    known = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    if not len(known):
        return []
    said, sure = probabilities[known].argmax(axis=1), probabilities[known].max(axis=1)
    wrong = said != true_labels[known]
    order = np.argsort(-sure[wrong], kind="stable") if wrong.any() else np.argsort(sure)
    chosen = known[wrong] if wrong.any() else known
    return [int(index) for index in chosen[order][:MOST]]


@dataclass(frozen=True)
class Gallery:
    """The images to show, and a remark on how they were explained."""

    items: list[GalleryItem]
    note: str = ""


def gallery(
    model: keras.Model,
    preprocessing: Preprocessing,
    load: Callable[[tf.Tensor], tf.Tensor],
    dataset: str | os.PathLike[str],
    assessment: Assessment,
    classes: Sequence[str],
) -> Gallery:
    """Return the worst mistakes of the test split with what the model looked at.

    Args:
        model: the chosen candidate.
        preprocessing: its own.
        load: from encoded images, string [n], to pixels [n, px, px, 3] in 0..255.
        dataset: holds the images.
        assessment: of this model on the test split of `dataset`.
        classes: names in the order of the columns.
    """
    probabilities, true_labels = assessment.probabilities, assessment.true_labels
    chosen = worst(probabilities, true_labels)
    if not chosen:
        return Gallery([])
    place = {index: k for k, index in enumerate(chosen)}
    found = {place[k]: r for k, r in enumerate(read_split(dataset, "test")) if k in place}
    records = [found[k] for k in range(len(chosen))]
    pixels = load(tf.constant([record.encoded for record in records]))
    labels = [int(probabilities[index].argmax()) for index in chosen]
    maps = heat_maps(model, scale(pixels, preprocessing.scaling), labels)
    items = []
    for k, (index, record) in enumerate(zip(chosen, records, strict=True)):
        image = Image.fromarray(np.clip(pixels[k].numpy().round(), 0, 255).astype(np.uint8))
        items.append(
            GalleryItem(
                path=readable(record.path),
                true_label=classes[true_labels[index]],
                label=classes[labels[k]],
                confidence=float(probabilities[index].max()),
                true_label_probability=float(probabilities[index][true_labels[index]]),
                image=data_uri(image),
                overlay=data_uri(overlay(image, maps[k])) if maps is not None else "",
            )
        )
    return Gallery(items, _remark(model))


def _remark(model: keras.Model) -> str:
    point = explained_layer(model)
    if point is None:
        return "This model has no feature map that could be explained."
    height, width = point.tensor.shape[1:3]
    return f"Explained at {point.name}, {height} x {width} positions."


def overlay(image: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Lay a heat map [h, w] in 0..1 over an image, in gray below it so that the colors tell."""
    side = max(SIDE_PX, *image.size)
    gray = image.convert("L").convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    spread = Image.fromarray(heat.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
    share = np.clip(np.asarray(spread), 0, 1)
    color = np.stack([np.interp(share, HEAT[:, 0], HEAT[:, k]) for k in (1, 2, 3)], axis=-1)
    strength = STRONGEST * share[..., None] ** 0.8
    mixed = np.asarray(gray) * (1 - strength) + color * strength
    return Image.fromarray(mixed.round().astype(np.uint8))


def data_uri(image: Image.Image) -> str:
    """Return an image as a WebP data URI, shrunk (or grown) to a side of 192 pixels."""
    small = image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()

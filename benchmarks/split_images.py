"""The images of a split in memory, as the models of other libraries and recipes read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.manifests.dataset import Split

# The backbone's input, float32 [n, px, px, 3], and labels, int32 [n].
Images = tuple[NDArray[np.float32], NDArray[np.int32]]


def read_split_images(dataset: Path, split: Split, backbone: str, image_px: int) -> Images:
    """Return the images of one split, decoded and scaled for the backbone."""
    import tensorflow as tf

    from regraft_core.backbones.backbone_table import find_backbone
    from regraft_core.formats.records import read_split
    from regraft_core.images.batch_decoding import make_decoder
    from regraft_core.images.preprocess import scale

    records = list(read_split(dataset, split))
    pixels = make_decoder(image_px)(tf.constant([record.encoded for record in records]))
    labels = np.array([record.label for record in records], np.int32)
    return scale(pixels, find_backbone(backbone).scaling).numpy(), labels

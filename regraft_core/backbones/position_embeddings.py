"""Position embeddings of a transformer for another number of patches."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


def resize_positions(
    positions: NDArray[np.float32], side: int, *, antialias: bool = False
) -> NDArray[np.float32]:
    """Return position embeddings for a grid of another size, by bicubic interpolation.

    So do the authors of ViT (Dosovitskiy et al. 2021, section 3.2) when they train at a higher
    resolution, and those of DINOv2.

    Args:
        positions: of the patches of a square grid, row by row, [n * n, c].
        side: patches per side of the new grid.
        antialias: whether a smaller grid is smoothed first.

    Returns:
        float32 [side * side, c].

    Raises:
        ValueError: the grid is not square.
    """
    before = math.isqrt(len(positions))
    if before**2 != len(positions):
        raise ValueError(f"expected a square grid of positions, got {len(positions)}")
    if before == side:
        return positions
    grid = positions.reshape(1, before, before, -1).astype(np.float32)
    resized = tf.image.resize(grid, (side, side), method="bicubic", antialias=antialias)
    return np.asarray(resized).reshape(side * side, -1)

"""Samples images of Fashion-MNIST, as a source with its own test split.

    python examples/fashion_subset.py IDX_FOLDER data/fashion

IDX_FOLDER has the four files of Fashion-MNIST as they are published (`train-images-idx3-ubyte.gz`
and so on). The same arguments always sample the same images.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import regraft

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat",
           "sandal", "shirt", "sneaker", "bag", "ankle-boot")  # fmt: skip
SIDE_PX = 28
# An idx file is a header, of 4 bytes and 4 for each dimension, and then the values.
IMAGE_HEADER, LABEL_HEADER = 16, 8


def read_values(file: Path, header: int) -> NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=header)


def sample(
    folder: Path, name: str, count: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images [count, 28, 28] and their labels [count]."""
    images = read_values(folder / f"{name}-images-idx3-ubyte.gz", IMAGE_HEADER)
    labels = read_values(folder / f"{name}-labels-idx1-ubyte.gz", LABEL_HEADER)
    chosen = np.random.default_rng(seed).choice(len(labels), count, replace=False)
    return images.reshape(-1, SIDE_PX, SIDE_PX)[chosen], labels[chosen]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Sample images of Fashion-MNIST.")
    parser.add_argument("idx_folder", type=Path, help="Folder with the four files.")
    parser.add_argument("folder", type=Path, help="Folder to make.")
    parser.add_argument("--train", type=int, default=2000, help="Number of training images.")
    parser.add_argument("--test", type=int, default=600, help="Number of test images.")
    options = parser.parse_args(arguments)
    train = sample(options.idx_folder, "train", options.train, seed=0)
    test = sample(options.idx_folder, "t10k", options.test, seed=0)
    table = regraft.from_arrays(
        np.concatenate([train[0], test[0]]),
        np.concatenate([train[1], test[1]]),
        folder=options.folder,
        classes=CLASSES,
        splits=["train"] * options.train + ["test"] * options.test,
    )
    print(f"{table}: {options.train} images for training, {options.test} for test")


if __name__ == "__main__":
    main()

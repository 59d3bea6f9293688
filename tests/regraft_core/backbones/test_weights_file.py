"""A weights file that declares more than the model has is refused before any value is read."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from regraft_core.backbones.backbone_table import find_backbone
from regraft_core.backbones.build import build_backbone
from regraft_core.backbones.weights import load_weights_file
from regraft_core.backbones.weights_file import check_declared
from regraft_core.runtime.errors import InputError

SHAPES = [(3, 3, 3, 8), (8,)]
HUGE = (1 << 15, 1 << 15)


def write(path: Path, shape: tuple[int, ...] = (8,)) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", shape, "f4", chunks=shape and (1,) * len(shape))
    return path


def big(path: Path) -> Path:
    """Write a file of a few kilobytes that declares 4 GB."""
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/dense/vars/0", HUGE, "f4", chunks=(1024, 1024), fillvalue=1.0)
    assert path.stat().st_size < 100_000
    return path


def external_link(path: Path) -> Path:
    other = write(path.with_name("other.h5"))
    with h5py.File(path, "w") as file:
        file["layers"] = h5py.ExternalLink(other.name, "/layers")
    return path


def external_storage(path: Path) -> Path:
    path.with_name("raw").write_bytes(bytes(32))
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (8,), "f4", external=[("raw", 0, 32)])
    return path


def virtual(path: Path) -> Path:
    layout = h5py.VirtualLayout((8,), "f4")
    layout[:] = h5py.VirtualSource(write(path.with_name("v.h5")), "layers/dense/vars/0", (8,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("a", layout)
    return path


def chunked(path: Path) -> Path:
    """Write 8 values in a chunk that takes 4 GB when it is read."""
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (8,), "f4", maxshape=(None,), chunks=(1 << 29,), compression=1)
    return path


def strings(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (8,), f"S{1 << 30}")
    return path


def records(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (8,), np.dtype([("a", "f4", (1 << 20,))]))
    return path


def without_values(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["a"] = h5py.Empty("f4")
    return path


def repeated(path: Path) -> Path:
    """Write a layer that names one tensor many times, as the legacy format allows."""
    with h5py.File(write(path), "a") as file:
        file["layers"].attrs["weight_names"] = np.array([b"dense/vars/0"] * 1000)
    return path


def zipped(path: Path) -> Path:
    path = path.with_suffix(".keras")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(big(path.with_name("w.h5")), "model.weights.h5")
    return path


def bomb(path: Path) -> Path:
    path = path.with_suffix(".keras")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(64 << 20))
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (big, "has the shape"),
        (zipped, "has the shape"),
        (bomb, "declares"),
        (external_link, "is in another file"),
        (external_storage, "in another file"),
        (virtual, "in another file"),
        (chunked, "has chunks of the shape"),
        (strings, "not numbers"),
        (records, "not numbers"),
        (without_values, "not numbers"),
        (repeated, "it declares 1000 tensors"),
    ],
)
def test_a_file_that_declares_more_than_the_model_is_refused(make, message, tmp_path) -> None:
    path = make(tmp_path / "a.weights.h5")
    with pytest.raises(ValueError, match=message):
        check_declared(path, SHAPES)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
def test_the_files_of_keras_are_accepted(suffix, tmp_path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.train_on_batch(np.zeros((2, 4)), np.zeros((2, 2)))
    path = tmp_path / f"a{suffix}"
    (model.save_weights if suffix == ".weights.h5" else model.save)(path)
    check_declared(path, [tuple(variable.shape) for variable in model.weights])


def test_the_step_names_the_file_in_one_line(tmp_path) -> None:
    row = find_backbone("tiny")
    model = build_backbone("tiny", 32, "random")
    path = big(tmp_path / "a.weights.h5")
    with pytest.raises(InputError, match=r"a\.weights\.h5: expected weights of tiny .*shape"):
        load_weights_file(row, model, str(path))


def test_refusing_takes_little_memory(tmp_path) -> None:
    path = big(tmp_path / "a.weights.h5")
    code = (
        "import sys, pathlib, resource\n"
        "from regraft_core.backbones.weights_file import check_declared\n"
        "import h5py\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    check_declared(pathlib.Path(sys.argv[1]), [(3, 3)])\n"
        "except ValueError:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) < 50_000  # kilobytes

"""The drift reference: what it keeps of features, and files that are not one."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from regraft_core.formats.drift_reference import (
    MAX_HALF,
    REFERENCE_FILE,
    DriftReference,
    make_reference,
)
from regraft_core.runtime.errors import InputError


def reference(count: int = 40) -> DriftReference:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(count, 6)) * [9, 4, 1, 1, 1, 0] + 3
    return make_reference(
        features, np.arange(count) % 2, np.full(count, np.nan), float("nan"), np.array([20, 20])
    )


def test_a_reference_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = reference()
    size = written.write(tmp_path)
    assert size == (tmp_path / REFERENCE_FILE).stat().st_size
    found = DriftReference.read(tmp_path)
    for name, values in vars(written).items():
        np.testing.assert_array_equal(getattr(found, name), values)
    assert found.features.dtype == np.float16


@pytest.mark.parametrize(("count", "axes"), [(60, 5), (5, 4)])
def test_the_axes_are_a_sketch_of_the_covariance(count: int, axes: int) -> None:
    found = reference(count)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(count, 6)) * [9, 4, 1, 1, 1, 0] + 3
    np.testing.assert_allclose(found.mean, features.mean(axis=0), rtol=1e-4)
    covariance = np.cov(features.T, bias=True)
    np.testing.assert_allclose(found.axes.T @ found.axes, covariance, atol=1e-3)
    assert len(found.axes) == axes  # one feature is constant, and the mean costs one image


def test_many_images_of_few_features_cost_little_memory() -> None:
    reference()  # imports
    tracemalloc.start()
    reference(3000)
    assert tracemalloc.get_traced_memory()[1] < 1e7  # the products of all images are 72 MB
    tracemalloc.stop()


def test_features_that_float16_cannot_hold_are_the_largest() -> None:
    values = np.array([[1e9, -1e9], [0.0, 1.0]])
    made = make_reference(values, np.zeros(2), np.zeros(2), 0.0, np.array([2]))
    assert made.features[0].tolist() == [MAX_HALF, -MAX_HALF]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predicted": np.zeros(3, np.int32)}, "predicted: expected shape [40], got [3]"),
        ({"predicted": np.full(40, 2, np.int32)}, "expected predictions of 2 classes"),
        ({"features": np.zeros(40)}, "expected shape [0]"),
        ({"mean": np.array([object()])}, "expected a drift reference"),
        ({"predicted": np.full(40, 0.5)}, "predicted: expected the kind 'i' of dtypes, got 'f'"),
        ({"features": np.full((40, 6), "x")}, "features: expected the kind 'f'"),
        ({"features": np.full((40, 6), np.inf)}, "features: expected finite numbers"),
        ({"axes": np.array(1.0)}, "axes: expected shape [6], got []"),
        ({"axes": np.full((2, 6), np.nan)}, "axes: expected finite numbers"),
        ({"class_counts": np.array(2)}, "class_counts: expected shape [1], got []"),
    ],
)
def test_files_of_other_arrays_are_refused(
    tmp_path: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    (tmp_path / REFERENCE_FILE).parent.mkdir()
    np.savez(tmp_path / REFERENCE_FILE, **(vars(reference()) | changes))
    with pytest.raises(InputError) as refused:
        DriftReference.read(tmp_path)
    assert message in str(refused.value)


def test_a_model_without_a_reference_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="found none: the model was exported by an earlier version"
    ):
        DriftReference.read(tmp_path)
    (tmp_path / REFERENCE_FILE).parent.mkdir()


@pytest.mark.parametrize("content", [b"", b"PK no archive", b"\x93NUMPY\x01"])
def test_files_that_are_no_archives_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / REFERENCE_FILE).parent.mkdir()
    (tmp_path / REFERENCE_FILE).write_bytes(content)
    with pytest.raises(InputError, match="expected a drift reference:"):
        DriftReference.read(tmp_path)


def test_damaged_and_huge_arrays_are_refused_before_they_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / REFERENCE_FILE
    path.parent.mkdir()
    np.savez_compressed(path, **vars(reference()))
    data = bytearray(path.read_bytes())
    data[60:90] = b"\xff" * 30
    path.write_bytes(data)
    with pytest.raises(InputError, match="expected a drift reference:"):
        DriftReference.read(tmp_path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f2", "fortran_order": False, "shape": (10**9, 10**6)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.npy", header.getvalue())
    with pytest.raises(InputError, match="expected a drift reference:"):
        DriftReference.read(tmp_path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", bytes((1 << 26) + 1))
    with pytest.raises(InputError, match="expected at most 67108864 bytes"):
        DriftReference.read(tmp_path)

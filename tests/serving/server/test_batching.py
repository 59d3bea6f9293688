"""Batched runs return what single runs do, and a damaged image fails its own request only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from serving.server.config import BatchingConfig
from serving.server.models.batching import batchable, find_cut
from serving.server.models.servable import Servable, load_servable
from serving.server.protocol.status import Code, ServingError

CONFIG = BatchingConfig(
    max_batch_size=8, batch_timeout_micros=50_000, max_enqueued_batches=100, num_batch_threads=1
)


@pytest.fixture(scope="module")
def batched(exports: dict[str, Path]) -> Servable:
    return load_servable(exports["odd"], CONFIG)


@pytest.fixture(scope="module")
def plain(exports: dict[str, Path]) -> Servable:
    return load_servable(exports["odd"])


def strings(values: list[bytes]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def run(servable: Servable, name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    signature = servable.signatures[name]
    (source,) = signature.inputs.values()
    outputs = [spec.tensor for spec in signature.outputs.values()]
    results = servable.run({source.tensor: values}, outputs)
    return dict(zip(signature.outputs, results, strict=True))


@pytest.mark.parametrize("name", ["serving_default", "features"])
def test_images_of_mixed_sizes_share_batches(
    batched: Servable, plain: Servable, images: list[bytes], name: str
) -> None:
    requests = [strings([images[n % 4]] * (1 + n % 3)) for n in range(24)]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda r: run(batched, name, r), requests))
    for request, batch in zip(requests, together, strict=True):
        alone = run(plain, name, request)
        for alias, value in alone.items():
            assert len(batch[alias]) == len(request)
            if value.dtype == object:
                assert batch[alias].tolist() == value.tolist()
            else:
                np.testing.assert_allclose(batch[alias], value, rtol=1e-5)


def test_a_damaged_image_fails_alone(batched: Servable, images: list[bytes]) -> None:
    def one(number: int) -> Code:
        data = b"damaged" if number % 5 == 2 else images[number % 4]
        try:
            run(batched, "serving_default", strings([data]))
        except ServingError as error:
            return error.code
        return Code.OK

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(one, range(20)))
    assert found == [Code.INVALID_ARGUMENT if n % 5 == 2 else Code.OK for n in range(20)]


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 30])
def test_any_number_of_rows(batched: Servable, rows: int) -> None:
    values = np.arange(rows, dtype=np.int64)
    assert run(batched, "large", values)["y"].tolist() == values.tolist()


def test_images_are_decoded_before_the_batch(plain: Servable) -> None:
    from serving.server.models.batching import _inlined, _part

    signature = plain.signatures["serving_default"]
    flat, results = _inlined(_part(plain._session.graph, signature)[0], signature)
    sources = [spec.tensor for spec in signature.inputs.values()]
    assert find_cut(flat, sources, results) is not None


def test_only_signatures_of_rows_to_rows_are_batched(plain: Servable) -> None:
    assert batchable(plain.signatures["images"])
    assert not batchable(plain.signatures["odd"])  # one of its outputs is a scalar


def test_a_full_queue_is_unavailable(exports: dict[str, Path], images: list[bytes]) -> None:
    config = BatchingConfig(2, 0, max_enqueued_batches=1, num_batch_threads=1)
    servable = load_servable(exports["odd"], config)

    def one(number: int) -> Code:
        try:
            run(servable, "serving_default", strings([images[number % 4]]))
        except ServingError as error:
            return error.code
        return Code.OK

    with ThreadPoolExecutor(32) as pool:
        found = set(pool.map(one, range(400)))
    servable.close()
    assert Code.OK in found
    assert found <= {Code.OK, Code.UNAVAILABLE}

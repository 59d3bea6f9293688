"""Batched runs return what single runs do, within the limits of TF Serving's parameters."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from regraft_core.runtime.errors import InputError
from serving.server.config import BatchingConfig, read_batching
from serving.server.models.batching import batchable
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


@pytest.mark.parametrize("rows", [0, 1, 7, 8])
def test_any_number_of_rows_up_to_the_largest_request(batched: Servable, rows: int) -> None:
    values = np.arange(rows, dtype=np.int64)
    assert run(batched, "large", values)["y"].tolist() == values.tolist()


def test_a_larger_request_is_refused_as_by_tf_serving(batched: Servable) -> None:
    with pytest.raises(ServingError) as raised:
        run(batched, "large", np.arange(9, dtype=np.int64))
    assert raised.value.code is Code.INVALID_ARGUMENT
    assert raised.value.message == "Task size 9 is larger than maximum input batch size 8"


def batch_sizes(servable: Servable, name: str) -> dict[str, object]:
    """Return the attributes of a signature's batch operation."""
    nodes = servable._session.graph.as_graph_def().node
    (node,) = [
        node
        for node in nodes
        if node.op == "BatchFunction" and node.name.startswith(f"batched/{name}/")
    ]
    sizes = list(node.attr["allowed_batch_sizes"].list.i)
    splits = node.attr["enable_large_batch_splitting"].b
    return {"max": node.attr["max_batch_size"].i, "sizes": sizes, "splits": splits}


def test_large_requests_are_split(exports: dict[str, Path], images: list[bytes]) -> None:
    config = BatchingConfig(
        max_batch_size=40, enable_large_batch_splitting=True, max_execution_batch_size=4
    )
    servable = load_servable(exports["odd"], config)
    assert batch_sizes(servable, "large") == {"max": 40, "sizes": [1, 2, 3, 4], "splits": True}
    for rows in (1, 4, 5, 17, 40):
        values = np.arange(rows, dtype=np.int64)
        assert run(servable, "large", values)["y"].tolist() == values.tolist()
    labels = run(servable, "serving_default", strings(images * 4))["label"].tolist()
    assert labels == labels[:4] * 4
    with pytest.raises(ServingError, match="Task size 41 is larger than maximum input batch"):
        run(servable, "large", np.arange(41, dtype=np.int64))
    servable.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_batch_size { value: 8 }", (8, 8)),
        ("", (1000, 1000)),
        ("max_batch_size { value: 9 } max_execution_batch_size { value: 4 }", (9, 9)),
        ("enable_large_batch_splitting { value: true }", (1000, 1000)),
        ("max_batch_size { value: 9 } enable_large_batch_splitting { value: true } "
         "max_execution_batch_size { value: 4 } allowed_batch_sizes: [2, 4]", (9, 4)),
    ],
)  # fmt: skip
def test_the_largest_request_and_batch_of_a_file(
    tmp_path: Path, text: str, expected: tuple[int, int]
) -> None:
    (tmp_path / "file").write_text(text)
    config = read_batching(str(tmp_path / "file"))
    assert (config.max_batch_size, config.largest_batch) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_execution_batch_size { value: 0 }", "a positive max_execution_batch_size, got 0"),
        ("max_batch_size { value: 4 } enable_large_batch_splitting { value: true } "
         "max_execution_batch_size { value: 5 }", "at most max_batch_size 4, got 5"),
        ("max_batch_size { value: 4 } enable_large_batch_splitting { value: true } "
         "max_execution_batch_size { value: 2 } allowed_batch_sizes: [1, 4]",
         "that end with max_execution_batch_size 2, got"),
        ("max_batch_size { value: 4 } allowed_batch_sizes: [1, 2]", "end with max_batch_size 4"),
    ],
)  # fmt: skip
def test_a_file_with_which_no_model_loads_is_bad_input(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(InputError, match=message):
        read_batching(str(tmp_path / "file"))


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

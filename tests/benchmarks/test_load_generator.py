"""The load generator of the serving benchmark, and the batching file that its tuning writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load_generator import Load, percentile, run_load
from regraft_client import grpc_wire, rest_wire
from serving.batching_file import BATCHING_FILE, batching_text
from serving.running.runner import Addresses
from serving.server.config import read_batching


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_all_requests_are_sent_and_counted(
    server: Addresses, images: list[bytes], tmp_path: Path, protocol: str
) -> None:
    file = tmp_path / "request"
    if protocol == "grpc":
        call = grpc_wire.predict_call(grpc_wire.Target("tiny"), images[:1])
        file.write_bytes(call.request.SerializeToString())
        load = Load(protocol, server.grpc, call.path, [str(file)], 3, requests=10)
    else:
        post = rest_wire.predict_call(rest_wire.model_path("tiny", None, None), images[:1])
        file.write_bytes(post.body)
        load = Load(protocol, server.rest, post.path, [str(file)], 3, requests=10)
    result = run_load(load)
    assert (len(result.spans), result.failed) == (10, 0)
    assert result.rate > 0
    assert min(result.times) > 0


def test_percentiles_of_few_values() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0


def test_the_tuned_file_loads_what_the_shipped_one_loads(tmp_path: Path) -> None:
    tuned, shipped = tmp_path / "batching.config", read_batching(str(BATCHING_FILE))
    tuned.write_text(batching_text(16, 2))
    assert read_batching(str(tuned)) == shipped
    tuned.write_text(batching_text(32, 4))
    batching = read_batching(str(tuned))
    assert (batching.max_batch_size, batching.largest_batch) == (shipped.max_batch_size, 32)
    assert batching.num_batch_threads == 4

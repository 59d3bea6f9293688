"""A server with few threads, as TF Serving has, gets as many requests as it accepts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from regraft_client import NO_RETRIES, BusyError, GrpcClient, OverloadedError, serving_pb2
from regraft_client.errors import status_error
from regraft_client.pace import FIRST, Pace
from regraft_client.predict_files import PredictOptions, predict_files
from regraft_client.retries import Retries

THREADS = 3
SOON = Retries(attempts=50, first_s=0, longest_s=0)


def busy() -> BusyError:
    error = status_error("RESOURCE_EXHAUSTED", "Server Threadpool Exhausted")
    assert isinstance(error, BusyError)
    return error


def test_other_exhausted_resources_are_not_retried() -> None:
    busy()
    assert isinstance(
        status_error("RESOURCE_EXHAUSTED", "Concurrent RPC limit exceeded!"), BusyError
    )
    too_large = status_error("RESOURCE_EXHAUSTED", "Received message larger than max (9 vs. 4)")
    assert type(too_large) is OverloadedError


class FewThreads:
    """Fails requests beyond `THREADS` at a time."""

    def __init__(self) -> None:
        self.now = self.most = self.refused = 0

    async def respond(self) -> str:
        if self.now >= THREADS:
            self.refused += 1
            raise busy()
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.now -= 1
        return "done"


def test_requests_in_flight_follow_what_the_server_accepts() -> None:
    server, pace = FewThreads(), Pace(16, SOON)
    assert pace.limit == FIRST

    async def run() -> list[str]:
        return await asyncio.gather(*(pace.send(server.respond) for _ in range(300)))

    assert asyncio.run(run()) == ["done"] * 300
    assert server.most == THREADS
    # Without the limit, 15 of 16 attempts find a busy server.
    assert 0 < server.refused < 100
    assert pace.limit <= THREADS + 1


def test_a_fast_server_gets_all_requests_at_once() -> None:
    pace = Pace(16, SOON)

    async def respond() -> None:
        await asyncio.sleep(0)

    async def run() -> None:
        await asyncio.gather(*(pace.send(respond) for _ in range(64)))

    asyncio.run(run())
    assert pace.limit == 16


def test_a_server_that_stays_busy_is_not_retried_for_ever() -> None:
    async def refuse() -> None:
        raise busy()

    with pytest.raises(BusyError):
        asyncio.run(Pace(4, SOON).send(refuse))


class PredictService(grpc.GenericRpcHandler):
    """Responds to every call of a method with one prediction, after some milliseconds."""

    def service(self, details: Any) -> Any:
        def predict(request: Any, context: Any) -> Any:
            time.sleep(0.005)
            response = serving_pb2.PredictResponse()
            response.outputs["label"].CopyFrom(
                serving_pb2.TensorProto(dtype=serving_pb2.DT_STRING, string_val=[b"cat"])
            )
            for name in ("confidence", "probabilities"):
                tensor = response.outputs[name]
                tensor.dtype = serving_pb2.DT_FLOAT
                tensor.float_val.append(0.5)
                tensor.tensor_shape.dim.add(size=1)
            return response

        return grpc.unary_unary_rpc_method_handler(
            predict,
            serving_pb2.PredictRequest.FromString,
            serving_pb2.PredictResponse.SerializeToString,
        )


@pytest.fixture
def small_server() -> Iterator[str]:
    """A server that responds to two requests at a time and refuses the others."""
    server = grpc.server(
        ThreadPoolExecutor(4), handlers=[PredictService()], maximum_concurrent_rpcs=2
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_a_folder_is_predicted_by_a_server_with_few_threads(
    small_server: str, tmp_path: Path
) -> None:
    for number in range(60):
        (tmp_path / f"{number}.png").write_bytes(b"image")
    options = PredictOptions(concurrency=16)
    found = predict_files([tmp_path], f"grpc://{small_server}", "m", options)
    assert [result.error for result in found] == [""] * 60
    assert {result.prediction.label for result in found if result.prediction} == {"cat"}


def test_a_client_retries_while_the_server_is_busy(small_server: str) -> None:
    refused = []

    def send(retries: Retries) -> None:
        with GrpcClient(small_server, "m", retries=retries) as client:
            try:
                client.predict([b"image"])
            except BusyError as error:
                refused.append(error)

    for retries, some in ((NO_RETRIES, True), (Retries(30, 0.01, 0.02), False)):
        refused.clear()
        threads = [threading.Thread(target=send, args=(retries,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bool(refused) == some

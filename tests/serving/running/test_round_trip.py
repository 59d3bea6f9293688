"""A real server returns the same results by both protocols and to all clients."""

from __future__ import annotations

import asyncio

import pytest

from regraft_client.grpc import AsyncGrpcClient, GrpcClient
from regraft_client.rest import AsyncRestClient, RestClient
from regraft_client.results import Prediction
from serving.running.runner import Addresses


def test_rest_equals_grpc(server: Addresses, images: list[bytes]) -> None:
    with RestClient(server.rest, "tiny") as rest, GrpcClient(server.grpc, "tiny") as grpc:
        by_rest, by_grpc = rest.predict(images), grpc.predict(images)
        assert [p.label for p in by_rest] == [p.label for p in by_grpc]
        for one, other in zip(by_rest, by_grpc, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities)
            assert one.label.startswith("even-")
        assert rest.status() == grpc.status()
        assert rest.metadata() == grpc.metadata()
        for one, other in zip(rest.features(images), grpc.features(images), strict=True):
            assert one == pytest.approx(other)
        for row, same in zip(rest.classify(images), grpc.classify(images), strict=True):
            assert [c.label for c in row] == [c.label for c in same]
            assert [c.score for c in row] == pytest.approx(
                [c.score for c in same], rel=1e-6, abs=1e-7
            )


def test_a_batch_is_predicted_like_its_images_alone(server: Addresses, images: list[bytes]) -> None:
    with GrpcClient(server.grpc, "tiny") as client:
        together = client.predict(images)
        for image, expected in zip(images, together, strict=True):
            (alone,) = client.predict([image])
            assert alone.label == expected.label
            assert alone.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


def test_asyncio_clients_return_the_same(server: Addresses, images: list[bytes]) -> None:
    async def run() -> list[list[Prediction]]:
        async with (
            AsyncRestClient(server.rest, "tiny") as rest,
            AsyncGrpcClient(server.grpc, "tiny") as grpc,
        ):
            await rest.wait_ready(10)
            await grpc.wait_ready(10)
            assert await rest.status() == await grpc.status()
            assert await rest.metadata() == await grpc.metadata()
            assert len(await rest.features(images)) == len(await grpc.features(images))
            assert len(await rest.classify(images)) == len(await grpc.classify(images))
            return await asyncio.gather(
                *(client.predict([image]) for image in images for client in (rest, grpc))
            )

    results = asyncio.run(run())
    for by_rest, by_grpc in zip(results[::2], results[1::2], strict=True):
        assert by_rest[0].probabilities == pytest.approx(
            by_grpc[0].probabilities, rel=1e-6, abs=1e-7
        )


def test_a_version_or_a_label_can_be_selected(server: Addresses, images: list[bytes]) -> None:
    for client in (RestClient, GrpcClient):
        address = server.rest if client is RestClient else server.grpc
        with (
            client(address, "tiny", version=1) as old,
            client(address, "tiny", label="stable") as s,
        ):
            assert old.predict(images)[0].label.startswith("odd-")
            assert s.predict(images)[0].label.startswith("odd-")
            assert old.metadata().version == s.metadata().version == 1

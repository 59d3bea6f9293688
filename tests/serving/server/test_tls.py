"""TLS and mutual TLS: by gRPC on the server itself, by REST on a proxy in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from regraft_client import (
    NO_RETRIES,
    AsyncGrpcClient,
    AsyncRestClient,
    GrpcClient,
    Prediction,
    RestClient,
    Tls,
    errors,
)
from regraft_client.predict_files import PredictOptions, predict_files
from serving.running.runner import Addresses, ServeOptions, running_server
from tests.serving.certificates import Authority, Pair

REFUSED = (errors.ConnectionFailedError, errors.UnavailableError)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("tests")


@pytest.fixture(scope="module")
def server_pair(authority: Authority) -> Pair:
    return authority.sign("server")


def ssl_config(pair: Pair, ca: bytes = b"", client_verify: bool = False) -> str:
    """Return TF Serving's SSL file."""
    fields = {"server_key": pair.key, "server_cert": pair.certificate, "custom_ca": ca}
    lines = [f"{name}: {json.dumps(value.decode())}" for name, value in fields.items() if value]
    return "\n".join([*lines, f"client_verify: {str(client_verify).lower()}"])


@contextlib.contextmanager
def secured(base: Path, folder: Path, text: str) -> Iterator[Addresses]:
    file = folder / "ssl.config"
    file.write_text(text)
    options = ServeOptions(flags=(f"--ssl_config_file={file}",))
    with running_server(base / "tiny", "tiny", "embedded", options) as at:
        yield at


def predict(address: str, tls: Tls | None, images: list[bytes]) -> list[Prediction]:
    with GrpcClient(address, "tiny", 20, tls=tls, retries=NO_RETRIES) as client:
        return client.predict(images)


def predict_async(address: str, tls: Tls | None, images: list[bytes]) -> list[Prediction]:
    async def run() -> list[Prediction]:
        async with AsyncGrpcClient(address, "tiny", 20, tls=tls, retries=NO_RETRIES) as client:
            return await client.predict(images)

    return asyncio.run(run())


def test_tls_and_mutual_tls_by_grpc(
    conformance_base: Path,
    tmp_path: Path,
    authority: Authority,
    server_pair: Pair,
    images: list[bytes],
) -> None:
    trusted = Tls(authority.certificate)
    with secured(conformance_base, tmp_path, ssl_config(server_pair)) as at:
        for call in (predict, predict_async):
            assert len(call(at.grpc, trusted, images)) == len(images)
            for tls in (None, Tls(Authority("another").certificate)):
                with pytest.raises(REFUSED):
                    call(at.grpc, tls, images)
    mutual = ssl_config(server_pair, authority.certificate, client_verify=True)
    with secured(conformance_base, tmp_path, mutual) as at:
        own, foreign = authority.sign("client"), Authority("another").sign("client")
        mutual_tls = Tls(authority.certificate, own.key, own.certificate)
        for call in (predict, predict_async):
            assert len(call(at.grpc, mutual_tls, images)) == len(images)
            for tls in (trusted, Tls(authority.certificate, foreign.key, foreign.certificate)):
                with pytest.raises(REFUSED):
                    call(at.grpc, tls, images)
        (tmp_path / "a.png").write_bytes(images[0])
        options = PredictOptions(tls=mutual_tls)
        (found,) = predict_files([tmp_path / "a.png"], f"grpc://{at.grpc}", "tiny", options)
        assert found.prediction is not None


@contextlib.contextmanager
def tls_proxy(target: str, context: ssl.SSLContext) -> Iterator[str]:
    """Accept TLS connections and forward their bytes; yield "host:port"."""
    loop = asyncio.new_event_loop()
    stop, ready = asyncio.Event(), threading.Event()
    address: list[str] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError, ssl.SSLError):
            writer.close()
            await writer.wait_closed()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await asyncio.open_connection(*target.split(":"))
        await asyncio.gather(copy(reader, upstream[1]), copy(upstream[0], writer))

    async def run() -> None:
        server = await asyncio.start_server(connect, "127.0.0.1", 0, ssl=context)
        address.append("127.0.0.1:{1}".format(*server.sockets[0].getsockname()))
        ready.set()
        await stop.wait()
        server.close()

    def work() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run())

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(30)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def test_tls_and_mutual_tls_by_rest(
    server: Addresses,
    tmp_path: Path,
    authority: Authority,
    server_pair: Pair,
    images: list[bytes],
) -> None:
    files = {}
    for name, pair in (("server", server_pair), ("client", authority.sign("client"))):
        files[name] = tmp_path / f"{name}.pem"
        files[name].write_bytes(pair.key + pair.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["server"])
    context.load_verify_locations(cadata=authority.certificate.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    anonymous = ssl.create_default_context(cadata=authority.certificate.decode())
    mutual = ssl.create_default_context(cadata=authority.certificate.decode())
    mutual.load_cert_chain(files["client"])

    async def predict_by_asyncio(address: str, tls: ssl.SSLContext | None) -> list[Prediction]:
        async with AsyncRestClient(address, "tiny", 20, tls=tls, retries=NO_RETRIES) as client:
            return await client.predict(images)

    with tls_proxy(server.rest, context) as proxy:
        with RestClient(f"https://{proxy}", "tiny", 20, tls=mutual) as client:
            assert len(client.predict(images)) == len(images)
        assert len(mutual.get_ca_certs()) == 1  # no authority is added to the given context
        assert len(asyncio.run(predict_by_asyncio(f"https://{proxy}", mutual))) == len(images)
        for tls in (None, anonymous):
            with (
                RestClient(f"https://{proxy}", "tiny", 20, tls=tls, retries=NO_RETRIES) as client,
                pytest.raises(errors.ConnectionFailedError),
            ):
                client.predict(images)
            with pytest.raises(errors.ConnectionFailedError):
                asyncio.run(predict_by_asyncio(f"https://{proxy}", tls))

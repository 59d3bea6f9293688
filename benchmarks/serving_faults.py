"""Good requests while others send malformed and hostile ones, and the model's folder is damaged.

No good request may fail, no malformed one may be a server error, and the memory must not grow.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import json
import shutil
import socket
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.load_generator import Load, run_load, started_load
from benchmarks.result import Metric
from benchmarks.serving_soak import resident_mb
from serving.running.runner import Addresses
from serving.running.serve import serving_folder

ROUNDS = 10  # the memory after the first is compared with that after each of the others
ROUND_SECONDS = 600.0  # at most; a round ends with its faults
REPEATS = 4  # of each small fault in a round
TIMEOUT_S = 120.0
_MB = 1 << 20
MakeLoad = Callable[[str, str], Load]


@dataclass(frozen=True)
class Fault:
    """A request that must not be a server error; `send` returns the status."""

    name: str
    send: Callable[[Addresses], str]


def mixed_load(
    base: Path, model: str, engine: str, make_load: MakeLoad, requests: int, rounds: int = ROUNDS
) -> dict[str, Metric]:
    """Send good requests in rounds, and each fault in every round meanwhile.

    Args:
        base: folder of the published model.
        model: its name.
        engine: as in `regraft serve`.
        make_load: returns the load of a protocol and an address.
        requests: good requests at least; a round sends more until all of its faults are sent.
        rounds: number of rounds.
    """
    small, large = small_faults(model), large_faults(model)
    good, failed, sent = 0, 0, 0
    errors, samples = list[str](), list[float]()
    with serving_folder(base, engine) as served:
        at = served.addresses
        for number in range(rounds):
            protocol = ("grpc", "rest")[number % 2]
            load = replace(make_load(protocol, getattr(at, protocol)), seconds=ROUND_SECONDS)
            with started_load(load) as running:
                for damage in folder_faults(base):
                    with damage():
                        sent += send_faults(small * REPEATS, at, errors)
                        served.poll()
                    served.poll()
                sent += send_faults(large, at, errors)
                results = [running.stop()]
            left = requests // rounds - len(results[0].spans)
            if left > 0:
                results.append(run_load(replace(load, requests=left)))
            good += sum(len(result.spans) for result in results)
            failed += sum(result.failed for result in results)
            samples.append(resident_mb(at.pid))
    for line in sorted(set(errors)):
        print(f"serving: {line}")
    return {
        "load_requests": Metric(good, "requests"),
        "load_faults": Metric(sent, "requests"),
        "load_failed_requests": Metric(failed, "requests", "<= 0"),
        "load_server_errors": Metric(len(errors), "responses", "<= 0"),
        "load_memory_after_first_round": Metric(samples[0], "MB"),
        "load_memory_largest_after": Metric(max(samples[1:]), "MB"),
        "load_memory_ratio": Metric(max(samples[1:]) / samples[0], goal="<= 1.1"),
    }


def send_faults(faults: Sequence[Fault], at: Addresses, errors: list[str]) -> int:
    """Send requests and add responses that report an error of the server to `errors`."""
    for fault in faults:
        status = fault.send(at)
        if status.startswith(("500", "INTERNAL", "UNKNOWN", "no response")):
            errors.append(f"{fault.name}: {status}")
    return len(faults)


def small_faults(model: str) -> list[Fault]:
    """Return malformed requests of little size."""
    path = f"/v1/models/{model}"
    predict = f"{path}:predict"
    return [
        _post(predict, b'{"inputs": "bare"}'),
        _post(predict, b'{"instances": [{"b64": "_-8"}], "\\ud800": 1}'),
        _post(predict, b'{"instances": ' + b"[" * 60_000),
        _post(predict, b'{"instances": [1e400]}'),
        _post(predict, b"\xff\xfe\x00"),
        _post(predict, gzip.compress(b"{}")[:-6], {"Content-Encoding": "gzip"}),
        _post(f"{path}/versions/{'9' * 5000}:predict", b"{}"),
        _post(f"{path}%00:predict", b"{}"),
        _raw(b"GET /v1/models/\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        _grpc(b"\xff\xff malformed", "malformed message"),
        _tensor(model, 7, [1 << 24]),  # 38 bytes that would be 16 million strings
        _tensor(model, 1, [0, 1 << 62]),
        _tensor(model, 1, [1] * 300),
        _tensor(model, 20, [1]),  # a resource
        _tensor(model, 21, [1]),  # a variant
        _tensor(model, 19, [1], half_val=[1 << 20]),
        _tensor(model, 7, [1], string_val=[b"no image"]),
    ]


def large_faults(model: str) -> list[Fault]:
    """Return requests that are made to fill the memory."""
    predict = f"/v1/models/{model}:predict"
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = compressor.compress(b'{"instances": [')
    bomb += b"".join(compressor.compress(b"{}," * (_MB // 3)) for _ in range(250))
    bomb += compressor.flush()
    refused = b'{"signature_name": "none", "instances": ["' + b"x" * (100 * _MB) + b'"]}'
    image = _large_png()
    return [
        _post(predict, bomb, {"Content-Encoding": "gzip"}),
        _post(predict, refused),
        _post(predict, b" " * (250 * _MB)),
        _tensor(model, 7, [1], string_val=[image]),
    ]


def folder_faults(
    base: Path,
) -> Iterator[Callable[[], contextlib.AbstractContextManager[None]]]:
    """Yield what damages the folder of a model for the length of a block."""
    labels = base / "labels.json"

    @contextlib.contextmanager
    def damaged_labels(content: bytes) -> Iterator[None]:
        before = labels.read_bytes() if labels.exists() else None
        labels.write_bytes(content)
        try:
            yield
        finally:
            labels.unlink() if before is None else labels.write_bytes(before)

    @contextlib.contextmanager
    def unusual_names() -> Iterator[None]:
        folders = [base / name for name in ("²", "9" * 200, "-1")]
        loop = base / "7"
        for folder in folders:
            folder.mkdir()
        loop.symlink_to(loop)
        try:
            yield
        finally:
            loop.unlink()
            for folder in folders:
                folder.rmdir()

    @contextlib.contextmanager
    def moved_version() -> Iterator[None]:
        backup = base / "backup"
        backup.mkdir()
        (base / "1").rename(backup / "1")
        try:
            yield
        finally:
            (backup / "1").rename(base / "1")
            backup.rmdir()

    @contextlib.contextmanager
    def cleaned_temporary_folder() -> Iterator[None]:
        for folder in Path(tempfile.gettempdir()).glob("regraft-serve-*"):
            if (folder / "versions" / base.name).is_dir():
                link = folder / "versions" / base.name / "1"
                if link.is_symlink() and link.readlink() == base / "1":
                    shutil.rmtree(folder)
        yield

    for content in (b"\xff\xfe\x00", b"[" * 100_000, b'{"stable": 1e400}'):
        yield lambda content=content: damaged_labels(content)  # type: ignore[misc]
    yield from (unusual_names, moved_version, cleaned_temporary_folder)


def _post(path: str, body: bytes, headers: dict[str, str] | None = None) -> Fault:
    def post(at: Addresses) -> str:
        connection = http.client.HTTPConnection(at.rest, timeout=TIMEOUT_S)
        try:
            connection.request("POST", path, body, headers or {})
            response = connection.getresponse()
            return f"{response.status} {response.read()[:200]!r}"
        except ConnectionError:
            return "closed before the body was sent"  # it is too large
        except (OSError, http.client.HTTPException) as error:
            return f"no response: {type(error).__name__}: {error}"
        finally:
            connection.close()

    return Fault(f"POST {path[:60]} {body[:40]!r}", post)


def _raw(text: bytes) -> Fault:
    def send_text(at: Addresses) -> str:
        host, port = at.rest.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
            connection.sendall(text)
            line = connection.recv(1000).partition(b"\r\n")[0]
        return line.partition(b" ")[2].decode("latin-1") or "closed"

    return Fault(f"raw {text[:40]!r}", send_text)


def _grpc(message: bytes, name: str) -> Fault:
    def call(at: Addresses) -> str:
        import grpc

        options = [("grpc.max_send_message_length", -1)]
        with grpc.insecure_channel(at.grpc, options) as channel:
            method = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
            try:
                method(message, timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"
        return "OK"

    return Fault(f"gRPC {name}", call)


def _tensor(model: str, dtype: int, shape: Sequence[int], **values: Any) -> Fault:
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    tensor = request.inputs["image_bytes"]
    tensor.dtype = dtype
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    for name, value in values.items():
        getattr(tensor, name).extend(value)
    name = f"tensor of type {dtype}, shape {list(shape)[:4]}"
    return _grpc(request.SerializeToString(), name)


def _large_png() -> bytes:
    """Return an image of 100 megapixels, which takes little space."""
    from PIL import Image

    data = io.BytesIO()
    Image.new("L", (10_000, 10_000)).save(data, "PNG", compress_level=1)
    return data.getvalue()


def write_labels(base: Path) -> None:
    """Label version 1 as `publish` does."""
    (base / "labels.json").write_text(json.dumps({"stable": 1}))

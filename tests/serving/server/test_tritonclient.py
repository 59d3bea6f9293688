"""Triton's own client talks to the embedded server by the Open Inference Protocol.

It runs in an environment and a process of its own: its versions do not fit Regraft's, and its
messages have the same names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from regraft_client.grpc import GrpcClient
from serving.running.runner import Addresses

pytestmark = pytest.mark.long

PROGRAM = """
import json, sys
from pathlib import Path

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

grpc, rest, *files = sys.argv[1:]
images = np.array([Path(file).read_bytes() for file in files], dtype=object)
found = {}


def infer(kind, client, values, datatype, signature="", outputs=(), **options):
    name = "x" if signature else "image_bytes"
    given = kind.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, **options)
    parameters = {"signature_name": signature} if signature else None
    wanted = [kind.InferRequestedOutput(output) for output in outputs] or None
    return client.infer("tiny", [given], outputs=wanted, request_id="7", parameters=parameters)


for name, kind, address in (("grpc", tritonclient.grpc, grpc), ("http", tritonclient.http, rest)):
    client = kind.InferenceServerClient(address)
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("tiny") and client.is_model_ready("tiny", "1")
    plain = {"as_json": True} if name == "grpc" else {}
    server = client.get_server_metadata(**plain)
    assert server["extensions"] == ["binary_tensor_data"], server
    model = client.get_model_metadata("tiny", "1", **plain)
    assert model["versions"] == ["1", "2"], model
    assert model["inputs"][0]["datatype"] == "BYTES", model

    result = infer(kind, client, images, "BYTES")
    response = result.get_response(**plain)
    assert (response["id"], response["model_version"]) == ("7", "2"), response
    found[name] = [value.decode() for value in result.as_numpy("label").tolist()]
    probabilities = result.as_numpy("probabilities")
    assert probabilities.shape == (len(files), 3) and probabilities.dtype == np.float32

    matrix = np.array([[1.5, 2], [3, 4]], dtype=np.float32)
    forms = [{}] if name == "grpc" else [{}, {"binary_data": False}]
    for options in forms:
        result = infer(kind, client, matrix, "FP32", "matrix", ["y"], **options)
        assert result.as_numpy("y").tolist() == [3.5, 7.0]
    texts = np.array([b"a", b"\\xc3\\xa4"], dtype=object)
    result = infer(kind, client, texts, "BYTES", "texts")
    assert result.as_numpy("text").tolist() == [b"<a>", b"<\\xc3\\xa4>"]
    half = np.array([1.5, -2], dtype=np.float16)
    result = infer(kind, client, half, "FP16", "half")
    assert result.as_numpy("y").tolist() == [3.0, -4.0]
    flags = np.array([True, False])
    assert infer(kind, client, flags, "BOOL", "flags").as_numpy("not").tolist() == [False, True]
    empty = np.array([], dtype=np.int64)
    assert infer(kind, client, empty, "INT64", "large").as_numpy("y").tolist() == []
    try:
        infer(kind, client, matrix, "FP32", "large")
        raise AssertionError("expected an error")
    except InferenceServerException as error:
        assert "to be int64 but float is provided" in error.message(), error
    client.close()

client = tritonclient.http.InferenceServerClient(rest)
given = tritonclient.http.InferInput("image_bytes", list(images.shape), "BYTES")
given.set_data_from_numpy(images)
result = client.infer("tiny", [given], request_compression_algorithm="gzip")
found["gzip"] = [value.decode() for value in result.as_numpy("label").tolist()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with `tritonclient`; later versions need another protobuf."""
    folder = tmp_path_factory.mktemp("triton") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "tritonclient[grpc,http]==2.41.*"], check=True)
    return folder / "bin" / "python"


def test_triton_client(
    python: Path, server: Addresses, images: list[bytes], tmp_path: Path
) -> None:
    files = []
    for number, image in enumerate(images):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(image)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-P", "-c", PROGRAM, server.grpc, server.rest, *files],
        env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    with GrpcClient(server.grpc, "tiny") as client:
        labels = [one.label for one in client.predict(images)]
    assert json.loads(done.stdout) == {"grpc": labels, "http": labels, "gzip": labels}

"""Whatever JSON a client sends, the REST port sends no 5xx but 501 and 503, and keeps running."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.running.runner import Addresses

NAMES = ["serving_default", "images", "classify", "regress", "features", "mix", "odd", "texts",
         "flags", "half", "small", "large", "pair", "scaled", "brain", "none"]  # fmt: skip
KEYS = ["instances", "inputs", "signature_name", "examples", "context", "b64", "x", "a", "b",
        "image_bytes", "image/encoded"]  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.characters(categories=["Cs"])  # halves of surrogate pairs
    | st.sampled_from(NAMES)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=3) | st.characters(categories=["Cs"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "signature_name": st.sampled_from(NAMES) | scalars,
        "instances": st.lists(values, max_size=4) | values,
        "inputs": values,
        "examples": st.lists(values, max_size=4) | values,
        "context": values,
    },
)
bodies = (
    requests.map(lambda value: json.dumps(value).encode())
    | requests.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
    | values.map(lambda value: json.dumps(value).encode())
    | st.text('{}[]:,"\\\\udIn.fe+-019 b64xinstacpu', max_size=60).map(str.encode)
    | st.binary(max_size=200)
)
methods = st.sampled_from(["predict", "classify", "regress"])


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def fuzz(server: Addresses, examples: int) -> None:
    host, port = server.rest.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=60)

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(body=bodies, method=methods)
    def send(body: bytes, method: str) -> None:
        connection.request("POST", f"/v1/models/tiny:{method}", body)
        response = connection.getresponse()
        text = response.read()
        assert response.status < 500 or response.status in (501, 503), text
        json.loads(text.decode("utf-8", "replace"))

    send()
    connection.close()


def test_some_bodies(server: Addresses) -> None:
    fuzz(server, 300)


@pytest.mark.long
def test_many_bodies_in_bounded_memory(server: Addresses) -> None:
    fuzz(server, 1000)
    before = resident_mb(server.pid)
    fuzz(server, 20_000)
    assert resident_mb(server.pid) - before < 100

"""What requests may hold: counted while they run, freed when they end, and never more than told."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import threading
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serving.server.deadline import deadline_at
from serving.server.memory import BodyMemory, HeldBody, WorkMemory
from serving.server.models.servable import BYTES_PER_PIXEL, load_servable
from serving.server.protocol.image_sizes import declared_size
from serving.server.protocol.json_values import parse_body, parsed_size
from serving.server.protocol.status import Code, ServingError, invalid
from serving.server.protocol.tensors import Typed
from serving.server.requests import inference
from serving.server.thread_pool import Workers

MB = 1 << 20


class Content:
    """Stands for what a request holds."""


@pytest.mark.parametrize("kind", [ServingError, ValueError])
def test_a_refused_request_is_freed_at_once(
    kind: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    kept: list[weakref.ref[Content]] = []
    released: list[int] = []
    codes: list[Code] = []

    def make(content: Content) -> None:
        try:
            raise KeyError("cause")
        except KeyError as cause:
            error = invalid("no") if kind is ServingError else kind(f"{content}")
            raise error from cause

    async def request(workers: Workers) -> None:
        content = Content()
        kept.append(weakref.ref(content))
        try:
            await workers.run(lambda: make(content), 60, lambda: released.append(1))
        except ServingError as error:  # pytest.raises would keep its frames
            codes.append(error.code)

    async def run() -> None:
        workers = Workers(threads=1)
        for _ in range(3):
            await request(workers)
        await workers.run(lambda: 0)  # the thread has left the work before
        workers.close()

    gc.disable()
    try:
        asyncio.run(run())
        assert [one() for one in kept] == [None] * 3
    finally:
        gc.enable()
    assert len(released) == 3
    assert codes == [Code.INVALID_ARGUMENT if kind is ServingError else Code.INTERNAL] * 3
    assert ("Traceback" in capsys.readouterr().err) == (kind is ValueError)


def test_dropped_work_releases_what_it_held() -> None:
    released: list[str] = []
    begun, end = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        assert end.wait(60)

    async def run() -> None:
        workers = Workers(threads=1, max_waiting=1)
        first = asyncio.ensure_future(workers.run(block, 60, lambda: released.append("ran")))
        await asyncio.to_thread(begun.wait)
        for name in ("late", "refused"):
            with pytest.raises(ServingError):
                await workers.run(lambda: None, 0.01, lambda name=name: released.append(name))
        assert released == ["refused"]
        end.set()
        await first
        await workers.run(lambda: None)
        workers.close()

    asyncio.run(run())
    assert released == ["refused", "ran", "late"]


def test_bodies_of_all_requests_are_limited() -> None:
    memory = BodyMemory(100 * MB)
    large, second, small = (HeldBody(memory) for _ in range(3))
    large.grow(150 * MB)  # alone, it may
    with pytest.raises(ServingError) as refused:
        second.grow(2 * MB)
    assert refused.value.code is Code.UNAVAILABLE
    large.release()
    large.release()
    large.grow(99 * MB)
    with pytest.raises(ServingError):
        second.grow(2 * MB)
    small.grow(MB)  # some memory is left to small ones
    second.release()
    large.release()
    second.grow(99 * MB)


def test_work_waits_in_order_until_its_memory_is_free() -> None:
    memory, order = WorkMemory(10), []
    threads: list[threading.Thread] = []

    def work(name: str, size: int) -> None:
        with memory.hold(size):
            order.append(name)

    with memory.hold(8):
        for name, size in (("all", 1000), ("small", 1)):
            threads.append(threading.Thread(target=work, args=(name, size)))
            threads[-1].start()
            while len(memory._waiting) < len(threads):
                pass
        with deadline_at(0.0), pytest.raises(ServingError) as late, memory.hold(5):
            pytest.fail("it must wait")
        assert late.value.code is Code.DEADLINE_EXCEEDED
        assert order == []
    for thread in threads:
        thread.join(60)
    assert order == ["all", "small"]
    with memory.hold(10):
        pass


DOCUMENTS = {
    "integers": "[" + "1234567," * 10_000 + "1]",
    "floats": "[" + "1.5," * 10_000 + "1]",
    "lists": "[" + "[]," * 10_000 + "1]",
    "objects": "[" + "{}," * 10_000 + "1]",
    "named": "[" + '{"a":1.5},' * 10_000 + "1]",
    "texts": "[" + '"ab",' * 10_000 + "1]",
    "one text": json.dumps("ab" * 100_000),
    "wide text": json.dumps("ab" * 100_000 + "\N{CAT FACE}", ensure_ascii=False),
    "escaped text": json.dumps("ab" * 100_000 + "\N{CAT FACE}"),
    "nested": "[" + "[[[1]]]," * 5_000 + "1]",
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_estimate_of_a_parsed_body_is_not_too_low(name: str) -> None:
    body = bytearray(f'{{"instances": {DOCUMENTS[name]}}}'.encode())
    tracemalloc.start()
    try:
        parse_body(body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    ratio = peak / parsed_size(body)
    assert 0.1 < ratio < 1


def encoded(kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGBA" if kind == "WEBP" else "RGB", (123, 45)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True, "exif": b"Exif\0\0" + b"\xff\xc0\0" * 9000}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"lossless": False}),
        ("WEBP", {"exif": b"Exif\0\0II*\0"}),
    ],
)
def test_the_size_of_an_image_is_read_from_its_header(
    kind: str, options: dict[str, object]
) -> None:
    data = encoded(kind, **options)
    assert declared_size(data) == (123, 45)
    for length in range(min(len(data), 60)):  # cut short, it is small
        width, height = declared_size(data[:length])
        assert width * height <= 123 * 45


def test_other_bytes_have_no_size_and_endless_headers_are_large() -> None:
    assert declared_size(b"") == declared_size(b"text" * 100) == (0, 0)
    width, height = declared_size(b"\xff\xd8" + b"\xff\x01" * 1_000_000)
    assert width * height > 1 << 31


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(
    exports: dict[str, Path], images: list[bytes]
) -> None:
    servable = load_servable(exports["odd"])
    servable.memory = WorkMemory(BYTES_PER_PIXEL * 10_000)
    signature = servable.signatures["serving_default"]
    large = io.BytesIO()
    Image.new("RGB", (101, 100)).save(large, "PNG")

    def predict(*batch: bytes) -> int:
        array = np.empty(len(batch), object)
        array[:] = batch
        spec = signature.inputs["image_bytes"]
        inputs = {"image_bytes": Typed(array, spec.dtype)}
        return len(inference.predict(servable, signature, inputs)["label"].array)

    assert predict(*images) == len(images)
    with pytest.raises(ServingError) as refused:
        predict(images[0], large.getvalue())
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert refused.value.message == "image 1: expected at most 10000 pixels, got 101 x 100"
    servable.close()


def test_a_run_stops_at_its_deadline(exports: dict[str, Path], images: list[bytes]) -> None:
    import time

    servable = load_servable(exports["odd"])
    signature = servable.signatures["serving_default"]
    array = np.empty(50_000, object)
    array[:] = images[:1] * len(array)
    feeds = {signature.inputs["image_bytes"].tensor: array}
    fetches = [signature.outputs["label"].tensor]
    with deadline_at(time.monotonic() + 0.05), pytest.raises(ServingError) as stopped:
        servable.run(feeds, fetches)
    assert stopped.value.code is Code.DEADLINE_EXCEEDED
    servable.close()

"""A lean load generator in a process of its own, so that it takes little from the server.

Requests are made and encoded once, beforehand, and answers are not parsed: what is measured is the
server, not a client. The process runs at low priority, as the server must not wait for it.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

NICENESS = 5
TIMEOUT_S = 300.0
MAX_FAILED = 100


@dataclass(frozen=True)
class Load:
    """What is sent: each of `files` holds one request's bytes; callers take them in turn.

    `path` is the gRPC method or the URL's path. It ends after `seconds`, or after `requests`
    where those are given; `warm_s` seconds before are not counted.
    """

    protocol: str
    address: str
    path: str
    files: Sequence[str]
    concurrency: int = 1
    seconds: float = 3.0
    warm_s: float = 1.0
    requests: int = 0


@dataclass(frozen=True)
class Answered:
    """When each request began and ended (`time.monotonic`), and the requests a second."""

    spans: tuple[tuple[float, float], ...]
    rate: float
    failed: int = 0

    @property
    def times(self) -> list[float]:
        """Return how long each request took, in seconds."""
        return [end - begin for begin, end in self.spans]

    @property
    def p50_ms(self) -> float:
        """Return the median latency."""
        return percentile(self.times, 50) * 1e3

    @property
    def p99_ms(self) -> float:
        """Return the 99th percentile of the latencies."""
        return percentile(self.times, 99) * 1e3


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile; of few values it is the largest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


class Sending:
    """A load that another process is sending."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path) -> None:
        self._process = process
        self._out = out

    def stop(self) -> Answered:
        """Let the requests under way be the last; return what came of all."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.wait()

    def wait(self) -> Answered:
        """Return what came of the load once all of it is sent."""
        if code := self._process.wait():
            raise RuntimeError(f"the load generator ended with exit code {code}")
        return Answered(**json.loads(self._out.read_text()))


@contextlib.contextmanager
def started_load(load: Load) -> Iterator[Sending]:
    """Send `load` from another process; the block begins with the first request."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "answered.json"
        command = [sys.executable, "-m", "benchmarks.load", json.dumps(asdict(load)), str(out)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield Sending(process, out)
            finally:
                process.kill()


def run_load(load: Load) -> Answered:
    """Send `load` from another process; return what came of it."""
    with started_load(load) as sending:
        return sending.wait()


@contextlib.contextmanager
def grpc_sender(address: str, path: str) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that sends one encoded message and takes any answer."""
    import grpc

    with grpc.insecure_channel(address) as channel:
        send = channel.unary_unary(path)
        yield lambda body: send(body, timeout=TIMEOUT_S)


@contextlib.contextmanager
def rest_sender(address: str, path: str) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that posts one body on a kept connection."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)

    def send(body: bytes) -> None:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"HTTP status {answer.status}: {content[:200]!r}")

    with contextlib.closing(connection):
        yield send


def send_load(load: Load, stop: threading.Event) -> Answered:
    """Send `load` from threads of this process, to its end or until `stop` is set."""
    bodies = [Path(file).read_bytes() for file in load.files]
    sender = {"grpc": grpc_sender, "rest": rest_sender}[load.protocol]
    spans: list[tuple[float, float]] = []
    failed = itertools.count()
    numbers = itertools.count()
    start = time.monotonic() + load.warm_s
    end = start + load.seconds

    def caller() -> None:
        with sender(load.address, load.path) as send:
            for number in numbers:  # shared: each caller takes the next request
                begin = time.monotonic()
                if stop.is_set() or (number >= load.requests if load.requests else begin >= end):
                    return
                try:
                    send(bodies[number % len(bodies)])
                except Exception as error:
                    if (count := next(failed)) == 0:
                        print(f"request failed: {error}", file=sys.stderr)
                    if count == MAX_FAILED:
                        stop.set()
                    continue
                spans.append((begin, time.monotonic()))

    threads = [threading.Thread(target=caller) for _ in range(load.concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not spans:
        raise RuntimeError("no request was answered")
    if load.requests or stop.is_set():
        start, end = min(begin for begin, _ in spans), max(end for _, end in spans)
    # What is under way at either end of the time counts where it ends, as it does in between.
    inside = sum(start <= ended <= end for _, ended in spans)
    counted = tuple(span for span in spans if span[0] >= start)
    return Answered(counted, inside / (end - start), next(failed))


def main(arguments: Sequence[str]) -> None:
    """Send the load that the first argument describes; write what came of it to the second."""
    os.nice(NICENESS)
    load, out = arguments
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    print("sending", flush=True)
    answered = send_load(Load(**json.loads(load)), stop)
    Path(out).write_text(json.dumps(asdict(answered)))


if __name__ == "__main__":
    main(sys.argv[1:])

"""A load generator that runs in its own process and costs the server little.

Requests are encoded once, beforehand, and responses are not parsed, so that the server is measured
and not a client. The process runs at low priority, because the server must not wait for it.
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
    """The requests to send: each file contains one encoded request; threads take them in turn.

    `path` is the gRPC method or the path of the URL. The load ends after `seconds`, or after
    `requests` if that is not 0. The `warm_s` seconds before are not counted.
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
class LoadResult:
    """Start and end of each request (`time.monotonic`), requests per second and failures.

    `total` and `cpu_s` also count the time that warms up: all responses, and the CPU time that the
    threads took to send the requests.
    """

    spans: tuple[tuple[float, float], ...]
    rate: float
    failed: int = 0
    total: int = 0
    cpu_s: float = 0.0

    @property
    def times(self) -> list[float]:
        """Return the latency of each request in seconds."""
        return [end - start for start, end in self.spans]

    @property
    def p50_ms(self) -> float:
        """Return the median latency."""
        return percentile(self.times, 50) * 1e3

    @property
    def p99_ms(self) -> float:
        """Return the 99th percentile of the latencies."""
        return percentile(self.times, 99) * 1e3


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile; with few values, high percentiles are the largest value."""
    ordered = sorted(values)
    return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]


class RunningLoad:
    """A load that another process is sending."""

    def __init__(self, process: subprocess.Popen[bytes], out: Path) -> None:
        self._process = process
        self._out = out

    def stop(self) -> LoadResult:
        """Send no new requests; return the result once the pending ones are done."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.wait()

    def wait(self) -> LoadResult:
        """Return the result once the load is complete."""
        if code := self._process.wait():
            raise RuntimeError(f"load generator: expected exit code 0, got {code}")
        return LoadResult(**json.loads(self._out.read_text()))


@contextlib.contextmanager
def started_load(load: Load) -> Iterator[RunningLoad]:
    """Send `load` from another process; the block starts with the first request."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        command = [sys.executable, "-P", __file__, json.dumps(asdict(load)), str(out)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                yield RunningLoad(process, out)
            finally:
                process.kill()


def run_load(load: Load) -> LoadResult:
    """Send `load` from another process; return its result."""
    with started_load(load) as running:
        return running.wait()


@contextlib.contextmanager
def grpc_sender(address: str, path: str) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that sends one encoded message and ignores the response."""
    import grpc

    with grpc.insecure_channel(address) as channel:
        send = channel.unary_unary(path)
        yield lambda body: send(body, timeout=TIMEOUT_S)


@contextlib.contextmanager
def rest_sender(address: str, path: str) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that posts one body on a persistent connection."""
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)

    def send(body: bytes) -> None:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            raise RuntimeError(
                f"expected HTTP status 200, got {response.status}: {content[:200]!r}"
            )

    with contextlib.closing(connection):
        yield send


def send_load(load: Load, stop: threading.Event) -> LoadResult:
    """Send `load` from threads of this process, to the end or until `stop` is set."""
    bodies = [Path(file).read_bytes() for file in load.files]
    sender = {"grpc": grpc_sender, "rest": rest_sender}[load.protocol]
    spans: list[tuple[float, float]] = []
    failed = itertools.count()
    numbers = itertools.count()
    cpu_before = time.process_time()
    start = time.monotonic() + load.warm_s
    end = start + load.seconds

    def send_requests() -> None:
        with sender(load.address, load.path) as send:
            for number in numbers:  # shared: each thread takes the next request
                sent = time.monotonic()
                if stop.is_set() or (number >= load.requests if load.requests else sent >= end):
                    return
                try:
                    send(bodies[number % len(bodies)])
                except Exception as error:
                    if (count := next(failed)) == 0:
                        print(f"request failed: {error}", file=sys.stderr)
                    if count == MAX_FAILED:
                        stop.set()
                    continue
                spans.append((sent, time.monotonic()))

    threads = [threading.Thread(target=send_requests) for _ in range(load.concurrency)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not spans:
        raise RuntimeError("expected responses, got none: all requests failed")
    if load.requests or stop.is_set():
        start, end = min(sent for sent, _ in spans), max(done for _, done in spans)
    # A request counts in the interval in which it ends, also at the limits of the interval.
    completed = sum(start <= done <= end for _, done in spans)
    counted = tuple(span for span in spans if span[0] >= start)
    rate, cpu_s = completed / (end - start), time.process_time() - cpu_before
    return LoadResult(counted, rate, next(failed), len(spans), cpu_s)


def main(arguments: Sequence[str]) -> None:
    """Send the load that the first argument describes; write its result to the second."""
    os.nice(NICENESS)
    load, out = arguments
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    print("sending", flush=True)
    result = send_load(Load(**json.loads(load)), stop)
    Path(out).write_text(json.dumps(asdict(result)))


if __name__ == "__main__":
    main(sys.argv[1:])

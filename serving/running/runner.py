"""Starts and stops a server: embedded, `tensorflow_model_server`, or its container."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

from regraft_client.errors import RegraftClientError
from regraft_client.rest import RestClient
from regraft_core.formats.version_names import version_names
from regraft_core.runtime.errors import InputError, RegraftError, unknown_name
from regraft_core.runtime.gpu_setup import check_limit, server_variables
from regraft_core.runtime.nvidia_smi import read_driver
from serving.batching_file import BATCHING_FILE
from serving.module_process import module_command, module_environment

Engine = Literal["auto", "embedded", "tensorflow_model_server", "docker"]
ENGINES = ("auto", "embedded", "tensorflow_model_server", "docker")
BINARY = "tensorflow_model_server"
LOOPBACK, ALL_INTERFACES = "127.0.0.1", "0.0.0.0"  # noqa: S104 (compared with, not a default)
_READY = re.compile(r"^\[serving\] ready(?: grpc=(?P<grpc>\S+))?(?: rest=(?P<rest>\S+))?")
_LOG_LINES = 200
_FAILED_STOP_S = 10.0
_LAUNCHER = Path(__file__).with_name("exec_with_parent.py")
_ADVICE = "Run 'docker"  # the beginning of the line that Docker writes after an error


@dataclass(frozen=True)
class Addresses:
    """The addresses of a running server ("host:port"), its engine and its process."""

    grpc: str
    rest: str
    engine: str
    pid: int


@dataclass(frozen=True)
class ServeOptions:
    """How to start and stop a server.

    A port of 0 chooses a free one; `flags` are added to the server's command line; `stop_s` limits
    the seconds that running requests may take after a stop; `gpu_memory_mb` limits the memory on
    each GPU unless it is 0.
    """

    host: str = LOOPBACK
    port: int = 0
    rest_api_port: int = 0
    flags: Sequence[str] = ()
    deadline_s: float = 120.0
    stop_s: float = 40.0
    environment: Mapping[str, str] = field(default_factory=dict)
    gpu_memory_mb: int = 0


def choose_engine(engine: str, host: str = LOOPBACK) -> str:
    """Return the engine to use.

    `auto` is the real server if it is installed and `host` is all interfaces, because it cannot
    listen on fewer.

    Raises:
        InputError: the name is unknown, or the program that it needs is not installed.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if engine == "auto":
        return BINARY if host == ALL_INTERFACES and shutil.which(BINARY) else "embedded"
    program = {BINARY: BINARY, "docker": "docker"}.get(engine)
    if program and not shutil.which(program):
        raise InputError(f"engine {engine} needs the program {program}, which is not installed")
    return engine


def check_interfaces(engine: str, host: str) -> None:
    """Check that an engine can listen on only the interfaces of `host`.

    Raises:
        InputError: the engine listens on all interfaces, and `host` is not that.
    """
    # main.cc and server.cc of TF Serving 2.20 have no flag for the address of REST.
    if engine == BINARY and host != ALL_INTERFACES:
        raise InputError(
            f"--bind: expected {ALL_INTERFACES}, because {BINARY} listens on all network "
            f"interfaces, got {host}; add --bind {ALL_INTERFACES}, or use --engine embedded"
        )


def find_base_path(base_dir: str | os.PathLike[str], model_name: str) -> Path:
    """Return the folder of a model's versions: `base_dir` itself or `<base_dir>/<model_name>`.

    Raises:
        InputError: neither contains a version folder.
    """
    base = Path(base_dir).resolve()
    for path in (base / model_name, base):
        if path.is_dir() and version_names(child.name for child in path.iterdir()):
            return path
    raise InputError(
        f"expected version folders (1, 2, ...) in {base} or {base / model_name}, found none"
    )


@contextlib.contextmanager
def running_server(
    base_dir: str | os.PathLike[str],
    model_name: str,
    engine: str = "auto",
    options: ServeOptions | None = None,
) -> Iterator[Addresses]:
    """Serve one model during the block; stop the process after it.

    It is a server of a step or a benchmark: `auto` uses the real one if it is installed, although
    that may listen on more interfaces than the host of `options`.

    Raises:
        InputError: no such engine or no version to serve.
        RegraftError: the server did not start; its log is printed.
    """
    path = find_base_path(base_dir, model_name)
    flags = [f"--model_name={model_name}", f"--model_base_path={path}"]
    mounts = [path, BATCHING_FILE.parent]
    chosen = choose_engine(engine, ALL_INTERFACES)
    with started_server(flags, chosen, options, mounts) as addresses:
        yield addresses


@contextlib.contextmanager
def started_server(
    flags: Sequence[str],
    engine: str = "embedded",
    options: ServeOptions | None = None,
    mounts: Sequence[Path] = (),
) -> Iterator[Addresses]:
    """Start a server with TF Serving's `flags`, yield its addresses when it is ready, stop it.

    Args:
        flags: flags that select the models.
        engine: embedded, tensorflow_model_server or docker.
        options: ports, host and further flags.
        mounts: folders that a container needs.

    Raises:
        InputError: a port is in use, or the host is not an address of this machine.
        RegraftError: the server did not start; its log is printed.
    """
    options = options or ServeOptions()
    check_ports(options)
    grpc_port = options.port if engine == "embedded" else options.port or free_port()
    rest_port = options.rest_api_port
    if engine != "embedded":
        rest_port = rest_port or free_port()
    command = [
        *server_command(engine, options, grpc_port, rest_port, mounts),
        *memory_flags(engine, options.gpu_memory_mb),
        *flags,
        *options.flags,
    ]
    process = _Process(command, options.environment)
    try:
        if engine == "embedded":
            grpc, rest = process.wait_ready(options.deadline_s)
        else:
            # The address of all interfaces is not one to send requests to.
            host = LOOPBACK if options.host == ALL_INTERFACES else options.host
            grpc, rest = f"{host}:{grpc_port}", f"{host}:{rest_port}"
            process.wait_available(rest, _model_name(flags), options.deadline_s)
        yield Addresses(grpc, rest, engine, process.pid)
    except BaseException:
        process.stop(options.stop_s)
        raise
    process.stop(options.stop_s)


def server_command(
    engine: str, options: ServeOptions, grpc_port: int, rest_port: int, mounts: Sequence[Path]
) -> list[str]:
    """Return the command line of an engine, up to the flags that select the models."""
    ports = [f"--port={grpc_port}", f"--rest_api_port={rest_port}"]
    if engine == "embedded":
        return module_command("serving.server", f"--host={options.host}", *ports)
    if engine == BINARY:
        return [BINARY, *ports]
    volumes = [f"--volume={path}:{path}:ro" for path in mounts]
    publish = [
        f"--publish={options.host}:{grpc_port}:{grpc_port}",
        f"--publish={options.host}:{rest_port}:{rest_port}",
    ]
    variables = [f"--env={name}={value}" for name, value in server_variables().items()]
    run = [
        "docker",
        "run",
        "--rm",
        "--init",
        *volumes,
        *publish,
        *variables,
        "--entrypoint",
        BINARY,
    ]
    return [*run, serving_image(), *ports]


def memory_flags(engine: str, gpu_memory_mb: int) -> list[str]:
    """Return the flags of an engine that limit its memory on each GPU; none for 0.

    TF Serving has no limit in MB, only a fraction of the card.

    Raises:
        InputError: the limit is larger than the card, or the card's memory is not known.
    """
    if not gpu_memory_mb:
        return []
    if engine == "embedded":
        return [f"--gpu_memory_mb={gpu_memory_mb}"]
    driver = read_driver()
    cards = driver.visible_cards() if driver else ()
    total_mb = min((card.total_mb for card in cards), default=0)
    if not total_mb:
        raise InputError(
            f"gpu-memory-mb: expected a GPU for engine {engine}, nvidia-smi reports none; 0 sets "
            "no limit"
        )
    check_limit(gpu_memory_mb, cards)
    return [f"--per_process_gpu_memory_fraction={gpu_memory_mb / total_mb:.4f}"]


def serving_image() -> str:
    """Return the container image of TF Serving that matches the installed TensorFlow."""
    version = metadata.version("tensorflow")
    major, minor = version.split(".")[:2]
    return f"tensorflow/serving:{major}.{minor}.0"


def check_ports(options: ServeOptions) -> None:
    """Check that a server can listen, before it spends time on loading models.

    Raises:
        InputError: a port is in use, or the host is not an address of this machine.
    """
    for port, option in ((options.port, "--port"), (options.rest_api_port, "--rest-api-port")):
        if port:
            _check_free(options.host, port, option)


def _check_free(host: str, port: int, option: str) -> None:
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"{option}: {host}:{port} is in use; choose another port, or 0 for a free one"
            ) from error
        raise InputError(f"{option}: cannot listen on {host}:{port}: {error.strerror}") from error


def free_port() -> int:
    """Return a loopback port that is currently free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _model_name(flags: Sequence[str]) -> str:
    for flag in flags:
        if flag.startswith("--model_name="):
            return flag.partition("=")[2]
    return "default"


class _Process:
    """A server's process and the end of its log."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._addresses: tuple[str, str] | None = None
        self._ready = threading.Event()  # also set when the process ends
        self._ended = threading.Event()
        started: Future[subprocess.Popen[str]] = Future()
        self._reader = threading.Thread(
            target=self._start_and_read, args=(started, list(command), environment), daemon=True
        )
        self._reader.start()
        self._process = started.result()
        self.pid = self._process.pid

    def wait_ready(self, seconds: float) -> tuple[str, str]:
        """Return the addresses that the embedded server prints."""
        self._ready.wait(seconds)
        if self._addresses is None:
            raise self._failure(f"the server was not ready within {seconds:g} s")
        return self._addresses

    def wait_available(self, rest: str, model: str, seconds: float) -> None:
        """Wait until REST reports a version of a model as available."""
        end = time.monotonic() + seconds
        with RestClient(rest, model, timeout_s=5) as client:
            while time.monotonic() < end:
                with contextlib.suppress(RegraftClientError):
                    if any(status.state == "AVAILABLE" for status in client.status()):
                        return
                if self._ended.wait(0.2):
                    break
        raise self._failure(f"the server was not ready within {seconds:g} s")

    def stop(self, seconds: float) -> int:
        """End the process, first by SIGTERM; return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return self._process.returncode

    def _start_and_read(
        self,
        started: Future[subprocess.Popen[str]],
        command: list[str],
        environment: Mapping[str, str],
    ) -> None:
        """Start the command and read its output.

        Linux stops it when the thread that started it ends, so this is the thread that reads until
        the command has ended.
        """
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid())]
        try:
            process = subprocess.Popen(
                [*launcher, *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={
                    **module_environment(),
                    "TF_CPP_MIN_LOG_LEVEL": "2",
                    **server_variables(),
                    **environment,
                },
                text=True,
                errors="replace",
            )
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(process)
        assert process.stdout is not None
        for line in process.stdout:
            self._log.append(line.rstrip())
            match = _READY.match(line)
            if match is not None and self._addresses is None:
                self._addresses = (match["grpc"] or "", match["rest"] or "")
                self._ready.set()
        self._ended.set()
        self._ready.set()

    def _failure(self, reason: str) -> RegraftError:
        code = self._process.poll()
        self.stop(_FAILED_STOP_S)
        print("\n".join(self._log), file=sys.stderr, flush=True)
        stopped = (0, -signal.SIGTERM, -signal.SIGKILL)
        if code is not None or self._process.returncode not in stopped:
            lines = (line for line in reversed(self._log) if line and not line.startswith(_ADVICE))
            last = next(lines, "no output")
            reason = f"the server ended with exit code {self._process.returncode}: {last}"
        return RegraftError(reason)

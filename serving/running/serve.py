"""Serves every model below a folder, with any engine, and new versions as they are published."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from regraft_core.runtime.errors import InputError
from regraft_core.runtime.printable import printable
from serving.running.model_discovery import ConfigUpdater, find_models
from serving.running.runner import (
    Addresses,
    ServeOptions,
    check_ports,
    choose_engine,
    started_server,
)

BATCHING_FILE = Path(str(resources.files("serving").joinpath("config", "batching.config")))


def batching_flags(file: Path = BATCHING_FILE) -> tuple[str, ...]:
    """Return the flags that enable batching with the parameters of a file."""
    return ("--enable_batching=true", f"--batching_parameters_file={file}")


@dataclass(frozen=True)
class Served:
    """A running server of a folder's models."""

    addresses: Addresses
    _updater: ConfigUpdater

    def poll(self) -> None:
        """Check for new versions and labels once; they are in effect a few polls later."""
        self._updater.step(self.addresses.rest)


@contextlib.contextmanager
def serving_folder(
    base_dir: str | os.PathLike[str],
    engine: str = "auto",
    options: ServeOptions | None = None,
    *,
    batching: bool = True,
    page: bool = False,
) -> Iterator[Served]:
    """Serve all models below `base_dir` during the block.

    Args:
        base_dir: folder of published models, or of one model's versions.
        engine: auto, embedded, tensorflow_model_server or docker.
        options: ports, host and further flags of TF Serving.
        batching: batch concurrent requests.
        page: serve a web page to try the models (embedded engine only).

    Raises:
        InputError: no model, no such engine, or a page without the embedded engine.
        RegraftError: the server did not start.
    """
    chosen = choose_engine(engine)
    if page and chosen != "embedded":
        raise InputError(f"--page needs the embedded engine, got {chosen}")
    models = find_models(base_dir)
    with tempfile.TemporaryDirectory(prefix="regraft-serve-") as folder:
        config = Path(folder) / "models.config"
        updater = ConfigUpdater(models, config)
        Path(folder).chmod(0o755)
        flags = [
            f"--model_name={models[0].name}",
            f"--model_config_file={config}",
            "--model_config_file_poll_wait_seconds=1",
        ]
        if any(model.labels for model in models):
            flags.append("--allow_version_labels_for_unavailable_models=true")
        if batching:
            flags += batching_flags()
        if page:
            flags.append("--page")
        mounts = [*(model.path for model in models), Path(folder), BATCHING_FILE.parent]
        with started_server(flags, chosen, options, mounts) as addresses:
            yield Served(addresses, updater)


def serve(
    base_dir: str | os.PathLike[str],
    engine: str = "auto",
    options: ServeOptions | None = None,
    *,
    batching: bool = True,
    page: bool = False,
) -> int:
    """Serve until SIGTERM, SIGINT or the end of the server; return the exit code.

    The addresses are printed. Versions and labels that are published meanwhile are served, too.
    The arguments and errors are those of `serving_folder`.
    """
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        chosen, models = choose_engine(engine), find_models(base_dir)
        check_ports(options or ServeOptions())
        print(f"engine   {chosen}")
        print(f"models   {printable(', '.join(model.name for model in models))}", flush=True)
        print("loading takes some seconds per model; the addresses follow", file=sys.stderr)
        with serving_folder(base_dir, engine, options, batching=batching, page=page) as served:
            addresses = served.addresses
            print(f"gRPC     grpc://{addresses.grpc}")
            print(f"REST     http://{addresses.rest}/v1/models/", flush=True)
            if page:
                print(f"page     http://{addresses.rest}/", flush=True)
            while not stop.wait(1.0):
                if not _alive(addresses.pid):
                    return 1
                served.poll()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _alive(pid: int) -> bool:
    """Return whether a child process is running (an ended one is a zombie until waited for)."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False

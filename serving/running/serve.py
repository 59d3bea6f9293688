"""`regraft serve`: every model below a folder, by any engine, until it is told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from regraft_core.runtime.errors import InputError
from serving.running.model_discovery import ConfigUpdater, find_models
from serving.running.runner import (
    Addresses,
    ServeOptions,
    check_ports,
    choose_engine,
    started_server,
)

BATCHING_FILE = Path(__file__).resolve().parents[1] / "config" / "batching.config"


def batching_flags(file: Path = BATCHING_FILE) -> tuple[str, ...]:
    """Return the flags that switch batching by a file on."""
    return ("--enable_batching=true", f"--batching_parameters_file={file}")


@dataclass(frozen=True)
class Served:
    """A running server, and what keeps it in step with its folder."""

    addresses: Addresses
    _following: ConfigUpdater

    def follow(self) -> None:
        """Look once for new versions and labels; what is found is in effect some steps later."""
        self._following.step(self.addresses.rest)


@contextlib.contextmanager
def serving_folder(
    base_dir: str | os.PathLike[str],
    engine: str = "auto",
    options: ServeOptions | None = None,
    *,
    batching: bool = True,
    page: bool = False,
) -> Iterator[Served]:
    """Serve all models below `base_dir` for the block.

    Args:
        base_dir: what `publish` wrote to, or the folder of one model's versions.
        engine: auto, embedded, tensorflow_model_server or docker.
        options: ports, host and further flags of TF Serving.
        batching: join requests that come at the same time.
        page: offer the page to try the models (embedded engine only).

    Raises:
        InputError: no model, no such engine, or a page without the embedded engine.
        RegraftError: the server did not come up.
    """
    chosen = choose_engine(engine)
    if page and chosen != "embedded":
        raise InputError(f"--page needs the embedded engine, got {chosen}")
    models = find_models(base_dir)
    with tempfile.TemporaryDirectory(prefix="regraft-serve-") as folder:
        config = Path(folder) / "models.config"
        following = ConfigUpdater(models, config)
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
            yield Served(addresses, following)


def serve(
    base_dir: str | os.PathLike[str],
    engine: str = "auto",
    options: ServeOptions | None = None,
    *,
    batching: bool = True,
    page: bool = False,
) -> int:
    """Serve until SIGTERM, SIGINT or the end of the server; print where. Return the exit code.

    Versions and labels that are published meanwhile are followed.

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
        print(f"models   {', '.join(model.name for model in models)}", flush=True)
        print("loading takes some seconds a model; the addresses follow", file=sys.stderr)
        with serving_folder(base_dir, engine, options, batching=batching, page=page) as served:
            addresses = served.addresses
            print(f"gRPC     grpc://{addresses.grpc}")
            print(f"REST     http://{addresses.rest}/v1/models/", flush=True)
            if page:
                print(f"page     http://{addresses.rest}/", flush=True)
            while not stop.wait(1.0):
                if not _alive(addresses.pid):
                    return 1
                served.follow()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _alive(pid: int) -> bool:
    """Tell whether a child still runs (a child that ended is a zombie until it is waited for)."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False

"""Serves every model below a folder, with any engine, and new versions as they are published."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from regraft_core.formats.serving_engines import check_serving_engine, may_use_openvino
from regraft_core.formats.serving_precision import check_version
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.gpu_setup import tf32_is_on
from regraft_core.runtime.machine import check_bfloat16
from regraft_core.runtime.printable import printable
from serving.batching_file import BATCHING_FILE, batching_flags
from serving.request_log_options import FOLDER_OPTION, RequestLogOptions
from serving.running.model_discovery import ConfigUpdater, FoundModel, find_models
from serving.running.runner import (
    ALL_INTERFACES,
    BINARY,
    Addresses,
    ServeOptions,
    check_interfaces,
    check_ports,
    choose_engine,
    started_server,
)

# TF Serving runs each gRPC request in a thread, and by default refuses more than 4 per core.
GRPC_MAX_THREADS = 128


@dataclass(frozen=True)
class Served:
    """A running server of a folder's models."""

    addresses: Addresses
    _updater: ConfigUpdater
    _logged: set[str] = field(default_factory=set)

    def poll(self) -> None:
        """Check for new versions and labels once; they are in effect a few polls later.

        Whatever is wrong in the folders is logged once, and the server continues as it is.
        """
        try:
            self._updater.step(self.addresses.rest)
            problems = {f"{name}: {text}" for name, text in self._updater.problems.items()}
        except Exception as error:  # the loaded versions are served whatever happens here
            problems = {f"{type(error).__name__}: {error}"}
        for problem in sorted(problems - self._logged):
            _log(f"skipped {' '.join(problem.split())}")
        self._logged.clear()
        self._logged.update(problems)


@contextlib.contextmanager
def serving_folder(
    base_dir: str | os.PathLike[str],
    engine: str = "auto",
    options: ServeOptions | None = None,
    *,
    batching: bool = True,
    page: bool = False,
    request_log: RequestLogOptions | None = None,
    mixed_precision: str = "",
    serving_engine: str = "auto",
) -> Iterator[Served]:
    """Serve all models below `base_dir` during the block.

    Args:
        base_dir: folder of published models, or of one model's versions.
        engine: auto, embedded, tensorflow_model_server or docker.
        options: ports, host and further flags of TF Serving.
        batching: batch concurrent requests.
        page: serve a web page to try the models (embedded engine only).
        request_log: log a sample of the requests (embedded engine only).
        mixed_precision: `bfloat16`, in which all versions must have been verified, or "".
        serving_engine: `openvino`, with which all versions must have been verified (embedded engine
            only); `tf`; or `auto`, the faster of those that a version was verified with.

    Raises:
        InputError: no model, no such engine, an engine that listens on more interfaces than the
            host, a page or a request log without the embedded engine, a folder of the log that
            cannot be used, or a version that may not be served in this precision or with this
            engine.
        RegraftError: the server did not start.
    """
    chosen = _choose(engine, options)
    if page and chosen != "embedded":
        raise InputError(f"--page needs the embedded engine, got {chosen}")
    recording = request_log or RequestLogOptions()
    _check_request_log(recording, chosen)
    models = find_models(base_dir)
    _check_precision(mixed_precision, models)
    _check_serving_engine(serving_engine, chosen, mixed_precision, models)
    with tempfile.TemporaryDirectory(prefix="regraft-serve-") as folder:
        config = Path(folder) / "models.config"
        updater = ConfigUpdater(models, config)
        Path(folder).chmod(0o755)
        flags = [
            f"--model_name={models[0].name}",
            f"--model_config_file={config}",
            "--model_config_file_poll_wait_seconds=1",
            f"--grpc_max_threads={GRPC_MAX_THREADS}",
        ]
        if any(model.labels for model in models):
            flags.append("--allow_version_labels_for_unavailable_models=true")
        if batching:
            flags += batching_flags()
        if page:
            flags.append("--page")
        if mixed_precision:
            flags.append(f"--mixed_precision={mixed_precision}")
        if chosen == "embedded":
            flags.append(f"--serving_engine={serving_engine}")
        flags += recording.flags()
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
    request_log: RequestLogOptions | None = None,
    mixed_precision: str = "",
    serving_engine: str = "auto",
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
        chosen, models = _choose(engine, options), find_models(base_dir, _log)
        check_ports(options or ServeOptions())
        _check_request_log(request_log or RequestLogOptions(), chosen)
        _check_precision(mixed_precision, models)
        _check_serving_engine(serving_engine, chosen, mixed_precision, models)
        if reason := explain_auto(engine, chosen):
            print(reason, file=sys.stderr)
        print(f"engine   {chosen}")
        print(f"models   {printable(', '.join(model.name for model in models))}", flush=True)
        if tf32_is_on():
            print("TF32     on by NVIDIA_TF32_OVERRIDE: predictions depend on the batch size and "
                  "are not verified", flush=True)  # fmt: skip
        print("loading takes some seconds per model; the addresses follow", file=sys.stderr)
        with serving_folder(
            base_dir,
            engine,
            options,
            batching=batching,
            page=page,
            request_log=request_log,
            mixed_precision=mixed_precision,
            serving_engine=serving_engine,
        ) as served:
            addresses = served.addresses
            if options is not None and options.host == ALL_INTERFACES:
                print("listening on all network interfaces", file=sys.stderr)
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


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def explain_auto(engine: str, chosen: str) -> str:
    """Return why `auto` does not use an engine that is installed; "" if it does."""
    if engine != "auto" or chosen == choose_engine(engine, ALL_INTERFACES):
        return ""
    return (
        f"using the embedded engine, because {BINARY} listens on all network interfaces; "
        f"--bind {ALL_INTERFACES} allows it"
    )


def _choose(engine: str, options: ServeOptions | None) -> str:
    host = (options or ServeOptions()).host
    chosen = choose_engine(engine, host)
    check_interfaces(chosen, host)
    return chosen


def _check_request_log(options: RequestLogOptions, engine: str) -> None:
    options.check()
    if options.request_log and engine != "embedded":
        # No LogCollector is registered in TF Serving 2.20, and ServerCore::Create in
        # model_servers/server_core.cc makes a logger that refuses every LoggingConfig.
        raise InputError(
            f"{FOLDER_OPTION}: expected the embedded engine, because TF Serving is built without a "
            f"request log, got {engine}; add --engine embedded"
        )
    options.check_folder()


def _check_precision(precision: str, models: Sequence[FoundModel]) -> None:
    if precision not in ("", "bfloat16"):
        raise InputError(f"--mixed-precision: expected bfloat16, got {printable(precision)}")
    if precision:
        check_bfloat16("--mixed-precision")
        for model in models:
            for number in model.versions:
                check_version(model.path / str(number))


def _check_serving_engine(
    name: str, server: str, precision: str, models: Sequence[FoundModel]
) -> None:
    check_serving_engine(name, "--serving-engine")
    if name != "openvino":
        return
    if server != "embedded":
        raise InputError(
            f"--serving-engine: openvino is computed by the embedded server, got {server}; add "
            "--engine embedded"
        )
    for model in models:
        for number in model.versions:
            if not may_use_openvino(model.path / str(number), precision):
                raise InputError(
                    f"--serving-engine: expected versions that were verified with openvino, got "
                    f"{model.name} version {number}; run it with --serving-engine openvino, or use "
                    "--serving-engine auto"
                )


def _alive(pid: int) -> bool:
    """Return whether a child process is running (an ended one is a zombie until waited for)."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False

"""The whole server: load the models, open the ports, stop gracefully on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
from regraft_core.runtime.machine import available_cores, check_bfloat16
from regraft_core.runtime.step_reports import Clock
from serving.server.compute_threads import intra_op_threads
from serving.server.config import (
    ModelConfig,
    TlsConfig,
    read_batching,
    read_metrics_path,
    read_model_configs,
)
from serving.server.flags import ServerOptions
from serving.server.memory import BodyMemory, WorkMemory
from serving.server.models.engine_choice import EngineLoader
from serving.server.models.lifecycle import Lifecycle
from serving.server.models.servable import Servable
from serving.server.ports import grpc_port, rest_port
from serving.server.ports.allowed_hosts import AllowedHosts
from serving.server.ports.page import read_page
from serving.server.ports.reception import Reception
from serving.server.ports.request_body import RestLimits
from serving.server.protocol.status import ServingError
from serving.server.recording.recorders import Recorders
from serving.server.requests.reload import reload_config
from serving.server.requests.warmup import warm_up
from serving.server.server_state import ServerState


def log(text: str) -> None:
    """Print one line of the server's log."""
    print(f"[serving] {text}", flush=True)


async def serve(
    options: ServerOptions, configs: Sequence[ModelConfig], tls: TlsConfig | None
) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        InputError: a GPU does not respond, or has less memory than the limit; the processor does
            not compute in bfloat16; the folder of the request log cannot be used.
        RegraftError: the first load fails, or a port cannot be bound.
    """
    # Predictions were verified without TF32.
    set_up_gpus(GpuSetup(memory_mb=options.gpu_memory_mb, tf32=False))
    if options.mixed_precision:
        check_bfloat16("--mixed_precision")
    batching = read_batching(options.batching_parameters_file) if options.enable_batching else None
    threads = options.tensorflow_intra_op_parallelism or intra_op_threads(batching)
    metrics_path = read_metrics_path(options.monitoring_config_file)
    limit = options.max_memory_bytes
    state = ServerState(BodyMemory(limit), WorkMemory(limit))
    recorders = Recorders(options.recording, state.catalog, state.metrics, log)

    def load(name: str, number: int, path: Path) -> Servable:
        clock = Clock()
        servable = EngineLoader(
            options.serving_engine,
            options.mixed_precision,
            batching,
            threads,
            lambda line: log(f"{name} version {number}: {line}"),
        ).load(path)
        servable.memory = state.memory
        servable.observe = functools.partial(state.metrics.runtime_latency, name, "Predict")
        if options.enable_model_warmup:
            # A version that takes over leaves the other cores to the requests of the old one.
            at_once = 1 if state.catalog.serves_any() else available_cores()
            warm_up(servable, name, number, path, at_once)
        servable.recorder = recorders.make(name, number)
        log(f"{name} version {number} loaded in {clock.seconds:.1f} s")
        return servable

    lifecycle = Lifecycle(
        state.catalog, load, log, options.allow_version_labels_for_unavailable_models
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        if not await _first_load(lifecycle, configs, options, stop):
            return
        polling = asyncio.ensure_future(_poll_config_file(lifecycle, configs, options))
        try:
            await _listen(state, lifecycle, options, tls, metrics_path, stop)
        finally:
            polling.cancel()
    finally:
        await asyncio.to_thread(lifecycle.stop)
        state.workers.close()
        await asyncio.to_thread(recorders.close)


async def _first_load(
    lifecycle: Lifecycle,
    configs: Sequence[ModelConfig],
    options: ServerOptions,
    stop: asyncio.Event,
) -> bool:
    """Load the configured models; wait for those without a version. False if stopped meanwhile."""
    try:
        await asyncio.to_thread(lifecycle.configure, configs)
    except ServingError as error:
        raise RegraftError(str(error)) from error
    while waiting := lifecycle.waiting():
        log(f"no versions found yet of: {', '.join(waiting)}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(options.file_system_poll_wait_seconds, 0.1)):
                await stop.wait()
        if stop.is_set():
            return False
        await asyncio.to_thread(lifecycle.poll)
    lifecycle.watch(options.file_system_poll_wait_seconds)
    return True


async def _poll_config_file(
    lifecycle: Lifecycle, configs: Sequence[ModelConfig], options: ServerOptions
) -> None:
    """Read the models.config file again at intervals, and apply its changes."""
    seconds = options.model_config_file_poll_wait_seconds
    logged = ""
    while options.model_config_file and seconds > 0:
        await asyncio.sleep(seconds)
        try:
            found = read_model_configs(options)
            if found != configs:
                await asyncio.to_thread(lifecycle.configure, found)
                configs, logged = found, ""
                log(f"{options.model_config_file} has changed and is in effect")
        except Exception as error:  # the loaded versions are served whatever happens here
            if str(error) != logged:  # each attempt is a new one, but the log has it once
                logged = str(error)
                log(f"{options.model_config_file} is not in effect: {logged}")


async def _listen(
    state: ServerState,
    lifecycle: Lifecycle,
    options: ServerOptions,
    tls: TlsConfig | None,
    metrics_path: str,
    stop: asyncio.Event,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        addresses = {}
        if options.port is not None:
            reload = functools.partial(reload_config, lifecycle, options.allow_reload_under)
            reception = Reception(
                options.max_memory_bytes,
                options.max_request_bytes,
                options.rest_api_timeout_in_ms / 1000,
            )
            server, health = grpc_port.make_server(
                state, reload, reception, options.grpc_max_threads
            )
            port = _bind_grpc(server, options, tls)
            await server.start()
            stack.push_async_callback(server.stop, options.drain_seconds)
            await grpc_port.set_health(health, serving=True)
            stack.push_async_callback(grpc_port.set_health, health, serving=False)
            addresses["grpc"] = f"{options.host}:{port}"
        if options.rest_api_port is not None:
            port = await _start_rest(state, options, metrics_path, stack)
            addresses["rest"] = f"{options.host}:{port}"
        models = ",".join(
            f"{name}:{version}" for name in state.catalog.names()
            for version in state.catalog.available(name)
        )  # fmt: skip
        log(" ".join(["ready", *(f"{k}={v}" for k, v in addresses.items()), f"models={models}"]))
        await stop.wait()
        log("stopping: new requests are refused, those in progress are completed")
    log("stopped")


def _bind_grpc(server: Any, options: ServerOptions, tls: TlsConfig | None) -> int:
    assert options.port is not None
    try:
        return grpc_port.bind(server, options.host, options.port, tls)
    except ServingError as error:
        raise RegraftError(error.message) from error


async def _start_rest(
    state: ServerState, options: ServerOptions, metrics_path: str, stack: contextlib.AsyncExitStack
) -> int:
    limits = RestLimits(options.max_request_bytes, options.rest_api_timeout_in_ms / 1000)
    offered = rest_port.RestOptions(
        limits,
        AllowedHosts(options.host, options.allowed_host.split(",")),
        metrics_path,
        read_page(next(iter(state.catalog.names()), "")) if options.page else "",
        options.rest_api_enable_cors_support,
    )
    reaper = rest_port.ConnectionReaper()
    app = rest_port.make_app(state, offered, reaper)
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        handler_cancellation=True,
        shutdown_timeout=options.drain_seconds,
        keepalive_timeout=75,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        listening = socket.create_server(
            (options.host, options.rest_api_port or 0),
            family=socket.AF_INET6 if ":" in options.host else socket.AF_INET,
            backlog=1024,
        )
    except OSError as error:
        raise RegraftError(
            f"cannot listen on {options.host}:{options.rest_api_port}: {error.strerror}"
        ) from error
    await web.SockSite(runner, listening).start()
    assert runner.server is not None
    sweep = asyncio.ensure_future(reaper.close_silent(runner.server, limits.timeout_s))
    stack.callback(sweep.cancel)
    return int(listening.getsockname()[1])

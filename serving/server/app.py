"""The server as a whole: load, listen, say so, and end well on SIGTERM."""

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

from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.step import Clock
from serving.server.config import (
    ModelConfig,
    TlsConfig,
    model_configs,
    read_batching,
    read_metrics_path,
    read_model_configs,
)
from serving.server.core import Core
from serving.server.flags import ServerOptions
from serving.server.models.lifecycle import Lifecycle
from serving.server.models.servable import Servable, load_servable
from serving.server.ports import grpc_port, rest_port
from serving.server.ports.page import read_page
from serving.server.protocol.status import Code, ServingError, invalid
from serving.server.requests.warmup import warm_up


def tell(text: str) -> None:
    """Print one line of the server's log."""
    print(f"[serving] {text}", flush=True)


async def serve(
    options: ServerOptions, configs: Sequence[ModelConfig], tls: TlsConfig | None
) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        RegraftError: the first load fails, or a port cannot be bound.
    """
    batching = read_batching(options.batching_parameters_file) if options.enable_batching else None
    metrics_path = read_metrics_path(options.monitoring_config_file)
    core = Core()

    def load(name: str, number: int, path: Path) -> Servable:
        clock = Clock()
        servable = load_servable(path, batching)
        servable.observe = functools.partial(core.metrics.runtime_latency, name, "Predict")
        if options.enable_model_warmup:
            warm_up(servable, name, number, path)
        tell(f"{name} version {number} loaded in {clock.seconds:.1f} s")
        return servable

    lifecycle = Lifecycle(
        core.catalog, load, tell, options.allow_version_labels_for_unavailable_models
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        if not await _first_load(lifecycle, configs, options, stop):
            return
        following = asyncio.ensure_future(_follow_file(lifecycle, configs, options))
        try:
            await _listen(core, lifecycle, options, tls, metrics_path, stop)
        finally:
            following.cancel()
    finally:
        await asyncio.to_thread(lifecycle.stop)
        core.workers.close()


async def _first_load(
    lifecycle: Lifecycle,
    configs: Sequence[ModelConfig],
    options: ServerOptions,
    stop: asyncio.Event,
) -> bool:
    """Load what is configured; wait for models without a version. False if told to stop."""
    try:
        await asyncio.to_thread(lifecycle.configure, configs)
    except ServingError as error:
        raise RegraftError(str(error)) from error
    while waiting := lifecycle.waiting():
        tell(f"no versions found yet of: {', '.join(waiting)}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(options.file_system_poll_wait_seconds, 0.1)):
                await stop.wait()
        if stop.is_set():
            return False
        await asyncio.to_thread(lifecycle.poll)
    lifecycle.watch(options.file_system_poll_wait_seconds)
    return True


async def _follow_file(
    lifecycle: Lifecycle, configs: Sequence[ModelConfig], options: ServerOptions
) -> None:
    """Read the models.config file again every so many seconds, and do what has changed in it."""
    seconds = options.model_config_file_poll_wait_seconds
    told = ""
    while options.model_config_file and seconds > 0:
        await asyncio.sleep(seconds)
        try:
            found = read_model_configs(options)
            if found != configs:
                await asyncio.to_thread(lifecycle.configure, found)
                configs, told = found, ""
                tell(f"{options.model_config_file} has changed and is in effect")
        except (InputError, ServingError) as error:
            if str(error) != told:  # it is tried again, but told once
                told = str(error)
                tell(f"{options.model_config_file} is not in effect: {told}")


async def _listen(
    core: Core,
    lifecycle: Lifecycle,
    options: ServerOptions,
    tls: TlsConfig | None,
    metrics_path: str,
    stop: asyncio.Event,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        addresses = {}
        if options.port is not None:
            reload = functools.partial(_reload, lifecycle, options)
            server, checks = grpc_port.make_server(core, reload, options.max_request_bytes)
            port = _bind_grpc(server, options, tls)
            await server.start()
            stack.push_async_callback(server.stop, options.drain_seconds)
            await grpc_port.set_health(checks, serving=True)
            stack.push_async_callback(grpc_port.set_health, checks, serving=False)
            addresses["grpc"] = f"{options.host}:{port}"
        if options.rest_api_port is not None:
            port = await _start_rest(core, options, metrics_path, stack)
            addresses["rest"] = f"{options.host}:{port}"
        models = ",".join(
            f"{name}:{version}" for name in core.catalog.names()
            for version in core.catalog.available(name)
        )  # fmt: skip
        tell(" ".join(["ready", *(f"{k}={v}" for k, v in addresses.items()), f"models={models}"]))
        await stop.wait()
        tell("stopping: no new requests, those under way are finished")
    tell("stopped")


def _bind_grpc(server: Any, options: ServerOptions, tls: TlsConfig | None) -> int:
    assert options.port is not None
    try:
        return grpc_port.bind(server, options.host, options.port, tls)
    except ServingError as error:
        raise RegraftError(error.message) from error


async def _start_rest(
    core: Core, options: ServerOptions, metrics_path: str, stack: contextlib.AsyncExitStack
) -> int:
    limits = rest_port.RestLimits(options.max_request_bytes, options.rest_api_timeout_in_ms / 1000)
    page = read_page(next(iter(core.catalog.names()), "")) if options.page else ""
    greeted = rest_port.ConnectionReaper()
    app = rest_port.make_app(core, limits, metrics_path, page, greeted)
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
    sweeper = asyncio.ensure_future(greeted.close_others(runner.server, limits.timeout_s))
    stack.callback(sweeper.cancel)
    return int(listening.getsockname()[1])


def _reload(lifecycle: Lifecycle, options: ServerOptions, request: Any) -> Any:
    """Answer a `ReloadConfigRequest`, if reloading is allowed, and only below the allowed root."""
    from tensorflow_serving.apis import model_management_pb2

    if not options.allow_reload_under:
        raise ServingError(
            Code.PERMISSION_DENIED,
            "reload over gRPC is off; start the server with --allow_reload_under=<folder>",
        )
    if request.config.WhichOneof("config") != "model_config_list":
        raise invalid(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
            "ModelConfigList is currently supported"
        )
    try:
        configs = model_configs(request.config)
    except InputError as error:
        raise invalid(str(error)) from error
    root = Path(options.allow_reload_under).resolve()
    for config in configs:
        if not config.base_path.resolve().is_relative_to(root):
            raise ServingError(
                Code.PERMISSION_DENIED, f"base_path {config.base_path} is not below {root}"
            )
    lifecycle.configure(configs)
    return model_management_pb2.ReloadConfigResponse()

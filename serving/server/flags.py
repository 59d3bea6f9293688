"""TF Serving's command-line flags, parsed into one frozen value, and a few flags of our own."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from regraft_core.runtime.errors import InputError

_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True)
class ServerOptions:
    """Addresses, models, and limits of the server.

    A port of None is closed; 0 chooses a free one (TF Serving closes a port that is set to 0).
    `grpc_max_threads` is the largest number of concurrent gRPC requests; 0 does not limit it (in TF
    Serving the default is 4 per core). The default of `gpu_memory_mb` sets no limit.
    """

    host: str = "127.0.0.1"
    port: int | None = 8500
    rest_api_port: int | None = None
    grpc_max_threads: int = 0
    rest_api_timeout_in_ms: int = 30_000
    rest_api_enable_cors_support: bool = False
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: str = ""
    model_config_file_poll_wait_seconds: float = 0.0
    file_system_poll_wait_seconds: float = 1.0
    enable_batching: bool = False
    batching_parameters_file: str = ""
    monitoring_config_file: str = ""
    ssl_config_file: str = ""
    enable_model_warmup: bool = True
    allow_version_labels_for_unavailable_models: bool = False
    model_config_list_root_dir: str = ""
    allow_reload_under: str = ""
    page: bool = False
    allowed_host: str = ""
    max_request_bytes: int = 256 << 20
    max_memory_bytes: int = 1 << 30
    gpu_memory_mb: int = 0
    drain_seconds: float = 30.0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")


def _positive(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")


def parse_flags(arguments: Sequence[str]) -> ServerOptions:
    """Parse flags in TF Serving's form (`--name=value`, booleans with or without a value).

    Raises:
        InputError: an unknown flag, an invalid value, or no model to serve.
    """
    parser = _Parser(prog="serving.server", allow_abbrev=False)
    kinds: dict[str, Callable[[str], object]] = {
        "int": _positive,
        "int | None": _port,
        "str": str,
        "float": float,
    }
    for name, field in ServerOptions.__dataclass_fields__.items():
        flag = f"--{name}"
        if field.type == "bool":
            parser.add_argument(flag, nargs="?", const=True, default=field.default, type=_boolean)
        else:
            parser.add_argument(flag, default=field.default, type=kinds[str(field.type)])
    options = ServerOptions(**vars(parser.parse_args(list(arguments))))
    if not options.model_base_path and not options.model_config_file:
        raise InputError("expected --model_base_path or --model_config_file, got neither")
    if options.port is None and options.rest_api_port is None:
        raise InputError("expected --port or --rest_api_port, got neither")
    if options.batching_parameters_file and not options.enable_batching:
        raise InputError("--batching_parameters_file needs --enable_batching")
    return options

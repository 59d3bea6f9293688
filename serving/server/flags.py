"""TF Serving's command-line flags, parsed into one frozen value, and a few flags of our own."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NoReturn

from regraft_core.formats.serving_engines import check_serving_engine
from regraft_core.runtime.errors import InputError
from serving.request_log_options import RequestLogOptions

# Flags that `regraft serve` has too; they are also accepted as it spells them.
_OWN = tuple(field.name for field in fields(RequestLogOptions))
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


@dataclass(frozen=True)
class ServerOptions:
    """Addresses, models, and limits of the server.

    A port of None is closed; 0 chooses a free one (TF Serving closes a port that is set to 0).
    `tensorflow_intra_op_parallelism` is the number of threads that compute an operation; for 0, the
    server chooses it. `mixed_precision` is empty or `bfloat16`; `serving_engine` is as for
    `EngineLoader`. `grpc_max_threads` is the largest number of concurrent gRPC requests; 0 does not
    limit it (in TF Serving the default is 4 per core). The default of `gpu_memory_mb` sets no
    limit. `request_log` is the folder in which a fraction (`sample`) of the requests is logged.
    """

    host: str = "127.0.0.1"
    port: int | None = 8500
    rest_api_port: int | None = None
    tensorflow_intra_op_parallelism: int = 0
    mixed_precision: str = ""
    serving_engine: str = "tf"
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
    request_log: str = ""
    sample: float = 0.01
    log_images: bool = False
    log_max_mb: int = 1024
    shadow_label: str = ""
    drain_seconds: float = 30.0

    @property
    def recording(self) -> RequestLogOptions:
        """The options of the request log and the shadow."""
        return RequestLogOptions(**{name: getattr(self, name) for name in _OWN})


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
        spellings = [flag, f"--{name.replace('_', '-')}"] if name in _OWN else [flag]
        if field.type == "bool":
            parser.add_argument(
                *spellings, nargs="?", const=True, default=field.default, type=_boolean
            )
        else:
            parser.add_argument(*spellings, default=field.default, type=kinds[str(field.type)])
    options = ServerOptions(**vars(parser.parse_args(list(arguments))))
    if not options.model_base_path and not options.model_config_file:
        raise InputError("expected --model_base_path or --model_config_file, got neither")
    if options.port is None and options.rest_api_port is None:
        raise InputError("expected --port or --rest_api_port, got neither")
    if options.batching_parameters_file and not options.enable_batching:
        raise InputError("--batching_parameters_file needs --enable_batching")
    if options.mixed_precision not in ("", "bfloat16"):
        raise InputError(f"--mixed_precision: expected bfloat16, got {options.mixed_precision}")
    check_serving_engine(options.serving_engine, "--serving_engine")
    options.recording.check()
    return options

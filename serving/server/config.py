"""TF Serving's configuration files (text protos), parsed into frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from regraft_core.runtime.errors import InputError
from serving.server.flags import ServerOptions
from serving.server.protocol import config_files_pb2

METRICS_PATH = "/monitoring/prometheus/metrics"


@dataclass(frozen=True)
class VersionPolicy:
    """The versions to serve: the `latest` n, all, or the `specific` ones."""

    latest: int = 1
    all: bool = False
    specific: tuple[int, ...] = ()

    def choose(self, found: list[int]) -> list[int]:
        """Return the numbers among `found` to serve, ascending."""
        if self.all:
            return sorted(found)
        if self.specific:
            return sorted(set(self.specific) & set(found))
        return sorted(found)[-self.latest :]


@dataclass(frozen=True)
class ModelConfig:
    """One model to serve: the folder of its versions, those to serve, and their labels."""

    name: str
    base_path: Path
    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchingConfig:
    """TF Serving's batching parameters, with its defaults.

    `max_batch_size` is the largest request. It is also the largest batch that is run, unless
    `enable_large_batch_splitting` splits requests into batches of `max_execution_batch_size` (None
    is `max_batch_size`).
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 2
    allowed_batch_sizes: tuple[int, ...] = ()
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int | None = None

    @property
    def largest_batch(self) -> int:
        """The size of the largest batch that is run."""
        # GetQueueOptions in servables/tensorflow/bundle_factory_util.h of TF Serving 2.20.
        if self.enable_large_batch_splitting and self.max_execution_batch_size is not None:
            return self.max_execution_batch_size
        return self.max_batch_size


@dataclass(frozen=True)
class TlsConfig:
    """PEM texts of the gRPC port; `client_verify` requires a certificate of the client."""

    server_key: bytes
    server_cert: bytes
    custom_ca: bytes
    client_verify: bool


def read_model_configs(options: ServerOptions) -> list[ModelConfig]:
    """Return the models that the flags or the models.config file configure.

    Raises:
        InputError: a file is missing or not such a text proto, or a model's entry is invalid.
    """
    if not options.model_config_file:
        path = Path(options.model_base_path)
        if not path.is_dir():
            raise InputError(f"expected a folder of versions at --model_base_path, got {path}")
        return [ModelConfig(options.model_name, path)]
    from tensorflow_serving.config import model_server_config_pb2

    message = model_server_config_pb2.ModelServerConfig()
    parse_text(Path(options.model_config_file), message)
    root = options.model_config_list_root_dir
    return model_configs(message, Path(root) if root else None)


def model_configs(message: Any, root: Path | None = None) -> list[ModelConfig]:
    """Return the model configurations of a `ModelServerConfig`.

    Raises:
        InputError: no model_config_list, a name listed twice, a path that is not absolute, a
            platform other than tensorflow.
    """
    if message.WhichOneof("config") not in ("model_config_list", None):
        raise InputError("expected a model_config_list, got another kind of ModelServerConfig")
    configs: list[ModelConfig] = []
    for entry in message.model_config_list.config:
        if entry.name in {config.name for config in configs}:
            raise InputError(f"Illegal to list model {entry.name} multiple times in config list")
        path = Path(entry.base_path)
        if root is not None:
            path = root / path
        if not path.is_absolute():
            raise InputError(
                f"Expected model {entry.name} to have an absolute path or URI; "
                f"got base_path()={entry.base_path}"
            )
        if (entry.model_platform or "tensorflow") != "tensorflow":
            raise InputError(
                f"Model {entry.name} requests unsupported platform {entry.model_platform}"
            )
        labels = dict(entry.version_labels)
        configs.append(ModelConfig(entry.name, path, _policy(entry), labels))
    return configs


def _policy(entry: Any) -> VersionPolicy:
    policy = entry.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return VersionPolicy(all=True)
        case "specific":
            if not policy.specific.versions:
                raise InputError(f"model {entry.name}: specific lists no versions")
            return VersionPolicy(specific=tuple(policy.specific.versions))
        case "latest":
            return VersionPolicy(latest=policy.latest.num_versions or 1)
        case _:
            return VersionPolicy()


def read_batching(path: str) -> BatchingConfig:
    """Read a batching parameters file; an empty path returns TF Serving's defaults."""
    if not path:
        return BatchingConfig()
    message = config_files_pb2.BatchingParameters()
    parse_text(Path(path), message)
    values = {
        name: getattr(message, name).value
        for name in ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches",
                     "num_batch_threads", "enable_large_batch_splitting",
                     "max_execution_batch_size")
        if message.HasField(name)
    }  # fmt: skip
    for name, value in values.items():
        if name != "enable_large_batch_splitting" and value < (name != "batch_timeout_micros"):
            raise InputError(f"{path}: expected a positive {name}, got {value}")
    config = BatchingConfig(**values, allowed_batch_sizes=tuple(message.allowed_batch_sizes))
    # SharedBatchScheduler in tensorflow/core/kernels/batching_util/shared_batch_scheduler.h of
    # TensorFlow 2.21 refuses such a queue, so that no model loads.
    if config.largest_batch > config.max_batch_size:
        raise InputError(
            f"{path}: expected a max_execution_batch_size of at most max_batch_size "
            f"{config.max_batch_size}, got {config.largest_batch}"
        )
    sizes = config.allowed_batch_sizes
    if sizes and (list(sizes) != sorted(set(sizes)) or sizes[-1] != config.largest_batch):
        name = (
            "max_execution_batch_size" if config.enable_large_batch_splitting else "max_batch_size"
        )
        raise InputError(
            f"{path}: expected ascending allowed_batch_sizes that end with {name} "
            f"{config.largest_batch}, got {list(sizes)}"
        )
    return config


def read_metrics_path(path: str) -> str:
    """Return the path of the metrics, "" if the monitoring file does not enable them."""
    if not path:
        return ""
    message = config_files_pb2.MonitoringConfig()
    parse_text(Path(path), message)
    if not message.prometheus_config.enable:
        return ""
    return message.prometheus_config.path or METRICS_PATH


def read_tls(path: str) -> TlsConfig | None:
    """Read an SSL configuration file; an empty path returns None."""
    if not path:
        return None
    message = config_files_pb2.SSLConfig()
    parse_text(Path(path), message)
    key, cert, ca = (
        text.encode() for text in (message.server_key, message.server_cert, message.custom_ca)
    )
    for name, pem in (("server_key", key), ("server_cert", cert)):
        if b"-----BEGIN " not in pem:
            raise InputError(f"{path}: expected {name} as PEM text")
    if message.client_verify and b"-----BEGIN " not in ca:
        raise InputError(f"{path}: client_verify needs custom_ca as PEM text")
    return TlsConfig(key, cert, ca, message.client_verify)


def parse_text(path: Path, message: Any) -> None:
    """Parse a text proto file into `message`.

    Raises:
        InputError: it cannot be read, or is not such a message; the text has the line.
    """
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), message)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        kind = message.DESCRIPTOR.name
        raise InputError(f"{path} is not a text proto of {kind}: {error}") from error

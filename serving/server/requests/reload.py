"""HandleReloadConfigRequest: the served models are replaced by those of the request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from regraft_core.runtime.errors import InputError
from serving.server.config import model_configs
from serving.server.models.lifecycle import Lifecycle
from serving.server.protocol.status import Code, ServingError, invalid


def reload_config(lifecycle: Lifecycle, allowed_root: str, request: Any) -> Any:
    """Return the response to a `ReloadConfigRequest`.

    Unlike TF Serving, reloading is off by default and limited to models below `allowed_root`.

    Raises:
        ServingError: PERMISSION_DENIED if reloading is off or a path is not below the root,
            INVALID_ARGUMENT for a malformed configuration.
    """
    from tensorflow_serving.apis import model_management_pb2

    if not allowed_root:
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
    root = Path(allowed_root).resolve()
    resolved = []
    for config in configs:
        # What was checked is served: a link that changes afterwards has no effect.
        path = _resolved(config.base_path)
        if not path.is_relative_to(root):
            raise ServingError(
                Code.PERMISSION_DENIED, f"base_path {config.base_path} is not below {root}"
            )
        resolved.append(replace(config, base_path=path))
    lifecycle.configure(resolved)
    return model_management_pb2.ReloadConfigResponse()


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL
        raise invalid(f"base_path {str(path)!a} cannot be used: {error}") from error

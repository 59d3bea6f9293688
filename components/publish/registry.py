"""Registers published versions in a Kubeflow Model Registry, with the registry's own client."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.runtime.addresses import is_url
from regraft_core.runtime.errors import InputError, RegraftError

TIMEOUT_S = 30.0
AUTHOR = "regraft"
MAX_TEXT = 1000
T = TypeVar("T")


class RegistryError(RegraftError):
    """The registry failed or does not respond."""


class Registry:
    """A connected registry; the client finds the token of the service account automatically."""

    def __init__(self, url: str) -> None:
        """Connect.

        Args:
            url: http(s)://host[:port].

        Raises:
            InputError: the URL is invalid, or the extra `registry` is not installed.
            RegistryError: the registry does not respond.
        """
        self.url = url
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise InputError("model_registry: expected http(s)://host:port without user and "
                             f"password, got {url.rsplit('@', 1)[-1]!r}")  # fmt: skip
        try:
            from model_registry import ModelRegistry
        except ImportError as error:
            raise InputError(
                "model_registry: expected the extra 'registry': pip install model-registry"
            ) from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a missing token, which http may not need
            self._client = self._send(
                lambda: ModelRegistry(
                    f"{parts.scheme}://{parts.hostname}",
                    parts.port or (443 if parts.scheme == "https" else 8080),
                    author=AUTHOR,
                    async_runner=_bounded,
                )
            )

    def register(self, name: str, version: int, path: str, model: SavedModelManifest) -> None:
        """Register a published version with its URI, provenance and metrics.

        Raises:
            RegistryError: the registry failed, or already contains this version.
        """
        uri = path if is_url(path) else Path(path).absolute().as_uri()
        self._send(
            lambda: self._client.register_model(
                name,
                uri,
                model_format_name="tensorflow",
                model_format_version="2",
                version=str(version),
                version_description=f"{model.strategy} on {model.backbone}",
                metadata=_properties(model),
            )
        )

    def contains(self, name: str, version: int) -> bool:
        """Return whether the version is already registered, such as by a repeated run.

        Raises:
            RegistryError: the registry failed.
        """
        return bool(
            self._send(
                lambda: (
                    self._client.get_registered_model(name)
                    and self._client.get_model_version(name, str(version))
                )
            )
        )

    def _send(self, action: Any) -> Any:
        """Run a request of the client, and shorten its errors, which quote whole responses."""
        from mr_openapi.exceptions import ApiException

        try:
            return action()
        except ApiException as error:
            raise RegistryError(f"{self.url}: the registry responded {error.status}: "
                                f"{_message(error.body)}") from None  # fmt: skip
        except TimeoutError:
            raise RegistryError(f"{self.url}: no response within {TIMEOUT_S:g} s") from None
        except Exception as error:  # the errors of aiohttp and of the client have no common base
            text = " ".join(str(error).split())[:200]
            raise RegistryError(f"{self.url}: {text or type(error).__name__}") from None


def _bounded(request: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(request, TIMEOUT_S))


def _properties(model: SavedModelManifest) -> dict[str, str | float]:
    """Return the properties of a version in the registry."""
    texts = {
        "digest": model.digest,
        "dataset_digest": model.dataset_digest,
        "evaluation_digest": model.evaluation_digest,
        "backbone": model.backbone,
        "strategy": model.strategy,
        "classes": json.dumps(model.classes, ensure_ascii=False)[:MAX_TEXT],
    }
    return {**texts, **{f"metric_{name}": float(value) for name, value in model.metrics.items()}}


def _message(body: Any) -> str:
    try:
        return str(json.loads(body)["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return "no message"

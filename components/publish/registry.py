"""A published version's entry in a Kubeflow Model Registry, made by the registry's own client."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from regraft_core.formats.manifests import SavedModelManifest
from regraft_core.runtime.errors import InputError, RegraftError

TIMEOUT_S = 30.0
AUTHOR = "regraft"
MAX_TEXT = 1000
T = TypeVar("T")


class RegistryError(RegraftError):
    """The registry failed, or cannot be reached."""


class Registry:
    """A registry that answered once; the client finds the service account's token by itself."""

    def __init__(self, address: str) -> None:
        """Connect.

        Args:
            address: http(s)://host[:port].

        Raises:
            InputError: the address is unusable, or the extra `registry` is not installed.
            RegistryError: no registry answers there.
        """
        self.address = address
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise InputError("model_registry: expected http(s)://host:port without user and "
                             f"password, got {address.rsplit('@', 1)[-1]!r}")  # fmt: skip
        try:
            from model_registry import ModelRegistry
        except ImportError as error:
            raise InputError(
                "model_registry: expected the extra 'registry': pip install model-registry"
            ) from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of a missing token, which http may not need
            self._client = self._asked(
                lambda: ModelRegistry(
                    f"{parts.scheme}://{parts.hostname}",
                    parts.port or (443 if parts.scheme == "https" else 8080),
                    author=AUTHOR,
                    async_runner=_bounded,
                )
            )

    def record(self, name: str, version: int, path: str, model: SavedModelManifest) -> None:
        """Enter a published version: where it is, what it came from, its figures.

        Raises:
            RegistryError: the registry failed, or has this version already.
        """
        uri = path if "://" in path else Path(path).absolute().as_uri()
        self._asked(
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

    def knows(self, name: str, version: int) -> bool:
        """Tell whether the version was entered before, as a run that is repeated finds it.

        Raises:
            RegistryError: the registry failed.
        """
        return bool(
            self._asked(
                lambda: (
                    self._client.get_registered_model(name)
                    and self._client.get_model_version(name, str(version))
                )
            )
        )

    def _asked(self, action: Any) -> Any:
        """Run a request of the client, whose errors quote headers and whole answers."""
        from mr_openapi.exceptions import ApiException

        try:
            return action()
        except ApiException as error:
            raise RegistryError(f"{self.address}: the registry answered {error.status}: "
                                f"{_said(error.body)}") from None  # fmt: skip
        except TimeoutError:
            raise RegistryError(f"{self.address}: no answer within {TIMEOUT_S:g} s") from None
        except Exception as error:  # aiohttp's and the client's own have no common base
            text = " ".join(str(error).split())[:200]
            raise RegistryError(f"{self.address}: {text or type(error).__name__}") from None


def _bounded(request: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(request, TIMEOUT_S))


def _properties(model: SavedModelManifest) -> dict[str, str | float]:
    """Return what the registry shows beside a version."""
    texts = {
        "digest": model.digest,
        "dataset_digest": model.dataset_digest,
        "evaluation_digest": model.evaluation_digest,
        "backbone": model.backbone,
        "strategy": model.strategy,
        "classes": json.dumps(model.classes, ensure_ascii=False)[:MAX_TEXT],
    }
    return {**texts, **{f"metric_{name}": float(value) for name, value in model.metrics.items()}}


def _said(body: Any) -> str:
    try:
        return str(json.loads(body)["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return "no reason given"

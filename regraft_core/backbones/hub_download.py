"""Downloads single files of presets from Kaggle and Hugging Face, once."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path

from regraft_core.runtime.errors import UnavailableError

CONNECT_TIMEOUT_S = 10.0
_KAGGLE, _HUGGING_FACE = "kaggle://", "hf://"
# What the clients raise if a file does not exist there.
_MISSING = ("EntryNotFoundError", "RemoteEntryNotFoundError")


def download_file(preset: str, address: str, name: str, *, required: bool = True) -> Path | None:
    """Return the path of a file of a preset in the cache of Kaggle's or Hugging Face's client.

    Args:
        preset: the name that the user wrote.
        address: `kaggle://OWNER/MODEL/keras/VARIANT/VERSION` or `hf://OWNER/MODEL`.
        name: of the file.
        required: whether a file that does not exist is an error.

    Raises:
        UnavailableError: it cannot be downloaded; the message says what to do offline.
    """
    if found := cached_file(address, name):
        return found
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return Path(_download(address, name))
    except Exception as error:
        # The clients raise errors of several libraries.
        text = " ".join(str(error).split())
        if not required and (type(error).__name__ in _MISSING or "404" in text
                             or "not present in the model files" in text):  # fmt: skip
            return None
        raise UnavailableError(
            f"backbone: could not download {name} of {preset} ({type(error).__name__}: "
            f"{text[:150]}); on a machine with internet access save the preset by "
            "keras_hub.models.Backbone.from_preset(NAME).save_to_preset(FOLDER), copy the folder, "
            "and use --backbone hub:FOLDER"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def cached_file(address: str, name: str) -> Path | None:
    """Return the path of a file that was downloaded before, None if it was not."""
    if address.startswith(_KAGGLE):
        cache = os.environ.get("KAGGLEHUB_CACHE", "~/.cache/kagglehub")
        path = Path(cache).expanduser() / "models" / address.removeprefix(_KAGGLE) / name
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(address.removeprefix(_HUGGING_FACE), name)
    return Path(found) if isinstance(found, str) else None


def _download(address: str, name: str) -> str:
    if address.startswith(_KAGGLE):
        import kagglehub

        return str(kagglehub.model_download(address.removeprefix(_KAGGLE), name))
    from huggingface_hub import hf_hub_download

    return str(hf_hub_download(address.removeprefix(_HUGGING_FACE), name, etag_timeout=10))

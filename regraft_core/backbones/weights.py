"""Where the weights of a backbone come from: its pretrained ones, or a file of the user's."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import urllib.parse
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regraft_core.backbones.table import Backbone
from regraft_core.formats.manifest_storage import digest_file
from regraft_core.runtime.errors import InputError

CONNECT_TIMEOUT_S = 10.0
SUFFIXES = (".keras", ".h5", ".hdf5")
INSTALLED = "efficientnet_lite0"


@contextlib.contextmanager
def pretrained(row: Backbone, *, top: bool = False) -> Iterator[None]:
    """Guard the building of `row` with its pretrained weights, with or without its classifier.

    Keras downloads without a timeout, raises bare exceptions and tells of its progress on standard
    output; inside this block a silent network ends after `CONNECT_TIMEOUT_S`, and the progress goes
    to standard error.

    Raises:
        InputError: the weights cannot be had; the text says what to do about it.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_TIMEOUT_S)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            # MobileNet warns that its weights were trained at another size, as all were.
            warnings.filterwarnings("ignore", message=".*input_shape.*", category=UserWarning)
            yield
    except InputError:
        raise
    except Exception as error:
        # Keras raises a bare Exception where the download fails, OSError or ValueError elsewhere.
        raise InputError(_remedy(row, error, top=top)) from error
    finally:
        socket.setdefaulttimeout(before)


def _remedy(row: Backbone, error: Exception, *, top: bool) -> str:
    """Say what failed and the three ways out; Keras names the address in its message."""
    text = " ".join(str(error).split())
    failed = re.match(r"URL fetch failure on (?P<url>\S+?): (?P<cause>.*)", text)
    cause = failed["cause"] if failed else f"{type(error).__name__}: {text[:200]}"
    kind = _kind(top)
    file = f"download {failed['url']}" if failed else f"download its weights {kind} from Keras"
    return (
        f"expected the ImageNet weights of {row.name}, could not get them ({cause}); {file} on a "
        f"machine with network and give the file with --weights PATH, or choose "
        f"--backbone {INSTALLED}, whose weights are installed"
    )


def _kind(top: bool) -> str:
    return "with top" if top else "without top"


def load_weights_file(row: Backbone, model: Any, weights: str, *, top: bool = False) -> None:
    """Load `weights` into `model`; only numbers are read, whatever else the file holds.

    Args:
        row: the backbone, for messages.
        model: built by `build_backbone` or, with `top`, by `build_classifier`.
        weights: a path or file URI of a `.weights.h5`, a `.keras` or a legacy `.h5` file (as Keras
            publishes them); `#sha256=<hex>` may follow, and must then hold.

    Raises:
        InputError: it is missing, of another kind or digest, or does not fit the backbone.
    """
    path, sha256 = _parse(weights)
    if not path.is_file():
        raise InputError(f"weights: expected imagenet, random or a file, found no file at {path}")
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"weights: expected a file .weights.h5, .keras or .h5, got {path.name}")
    if sha256 and (found := digest_file(path)) != sha256:
        raise InputError(f"{path}: expected SHA-256 {sha256}, found {found}")
    try:
        model.load_weights(path)
    except Exception as error:
        # h5py, zipfile and Keras raise what they like for a file that does not fit.
        cause = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: expected weights of {row.name} {_kind(top)}: {cause}") from error
    _check_finite(path, model)


def _parse(weights: str) -> tuple[Path, str]:
    """Split a path or file URI from the digest that may follow it."""
    place, _, fragment = weights.partition("#sha256=")
    parts = urllib.parse.urlsplit(place)
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path)), fragment.lower()
    if "://" in place:
        raise InputError(
            f"weights: expected a path or a file: URI, got {weights}; download it first"
        )
    return Path(place).expanduser(), fragment.lower()


def _check_finite(path: Path, model: Any) -> None:
    import numpy as np

    for variable in model.weights:
        if not np.isfinite(variable.numpy()).all():
            raise InputError(
                f"{path}: expected finite weights, found NaN or Inf in {variable.path}"
            )

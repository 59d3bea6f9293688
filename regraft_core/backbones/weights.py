"""Loads the weights of a backbone: its pretrained weights, or those of a file."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regraft_core.backbones.backbone_row import Backbone
from regraft_core.backbones.weights_file import check_declared, check_finite
from regraft_core.formats.manifest_storage import digest_file
from regraft_core.runtime.addresses import is_remote, local_path, redact
from regraft_core.runtime.errors import InputError, UnavailableError

CONNECT_TIMEOUT_S = 10.0
SUFFIXES = (".keras", ".h5", ".hdf5")
INSTALLED = "efficientnet_lite0"


@contextlib.contextmanager
def pretrained(row: Backbone, *, top: bool = False) -> Iterator[None]:
    """Guard building `row` with its pretrained weights, with or without its classification head.

    Keras downloads without a timeout, raises bare exceptions and prints progress to standard
    output. In this block a connection times out after `CONNECT_TIMEOUT_S`, and the progress goes to
    standard error.

    Raises:
        InputError: the weights are not available; the message contains fixes.
    """
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_TIMEOUT_S)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            # MobileNet warns that its weights were trained at another image size, like all others.
            warnings.filterwarnings("ignore", message=".*input_shape.*", category=UserWarning)
            yield
    except InputError:
        raise
    except Exception as error:
        # Keras raises a bare Exception if the download fails, otherwise OSError or ValueError.
        raise UnavailableError(_fixes(row, error, top=top)) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _fixes(row: Backbone, error: Exception, *, top: bool) -> str:
    """Return what failed and how to fix it; the message of Keras contains the URL."""
    text = " ".join(str(error).split())
    failed = re.match(r"URL fetch failure on (?P<url>\S+?): (?P<cause>.*)", text)
    cause = failed["cause"] if failed else f"{type(error).__name__}: {text[:200]}"
    file = failed["url"] if failed else f"its weights {_kind(top)} from Keras"
    return (
        f"expected the ImageNet weights of {row.name}, could not get them ({cause}); download "
        f"{file} on a machine with internet access and pass the file with --weights PATH, or use "
        f"--backbone {INSTALLED}, whose weights are installed"
    )


def _kind(top: bool) -> str:
    return "with top" if top else "without top"


def load_weights_file(row: Backbone, model: Any, weights: str, *, top: bool = False) -> None:
    """Load `weights` into `model`; only numbers are read from the file.

    Args:
        row: the backbone, for messages.
        model: built by `build_backbone` or, with `top`, by `build_classifier`.
        weights: a path or file URI of a `.weights.h5`, a `.keras` or a legacy `.h5` file (as Keras
            publishes them); `#sha256=<hex>` may follow and is then checked.

    Raises:
        InputError: it is missing, of another kind or digest, or does not match the backbone.
    """
    path, sha256 = parse_location(weights)
    if not path.is_file():
        raise InputError(f"weights: expected imagenet, random or a file, found no file at {path}")
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"weights: expected a file .weights.h5, .keras or .h5, got {path.name}")
    if sha256 and (received := digest_file(path)) != sha256:
        raise InputError(f"{path}: expected SHA-256 {sha256}, got {received}")
    try:
        check_declared(path, [tuple(variable.shape) for variable in model.weights])
        model.load_weights(path)
    except Exception as error:
        # h5py, zipfile and Keras raise many kinds of errors for a file that does not match.
        cause = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: expected weights of {row.label} {_kind(top)}: {cause}"
        ) from error
    check_finite(model, str(path))


def parse_location(weights: str) -> tuple[Path, str]:
    """Split a path or file URI from its optional digest."""
    location, _, digest = weights.partition("#sha256=")
    if is_remote(location):
        raise InputError(
            f"weights: expected a path or a file: URI, got {redact(weights)}; download it first"
        )
    return local_path(location).expanduser(), digest.lower()

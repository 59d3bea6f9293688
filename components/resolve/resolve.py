"""The first step: finds what the run's inputs are now, and ends a run whose inputs are unusable.

It always runs, computes nothing and is never retried. What it finds goes to the later steps as
parameters, by which Kubeflow Pipelines knows whether they must run again: a changed source, another
champion or removed content changes a parameter, and nothing else does.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regraft_core.backbones.table import find_backbone
from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.published_versions import locate_version
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import is_store_uri, open_store_uri
from regraft_core.runtime.step import log_progress
from regraft_core.runtime.version import code_digest
from regraft_core.sources.state import source_state

_PROBE = ".regraft-probe"


@dataclass(frozen=True)
class RunInputs:
    """What a run takes from outside; empty texts are not used."""

    sources: Sequence[str]
    mirrors: Sequence[str] = ()
    sha256: str = ""
    backbone: str = ""
    weights: str = "imagenet"
    ood_images: str = ""
    champion: str = ""
    destination: str = ""
    work_dir: str = ""


@dataclass(frozen=True)
class ResolvedInputs:
    """What the inputs are now.

    `source_state` changes with the sources, the code and removed content; `champion` is the address
    of the version that the run must not fall behind, with its digest; both are empty without one.
    """

    source_state: str
    champion: str
    champion_digest: str


def resolve(inputs: RunInputs) -> ResolvedInputs:
    """Check that a run can read and write what it names, and return what is there now.

    Raises:
        InputError: a source, the weights, the champion, the destination or the work folder is
            unusable; the message names it.
    """
    if inputs.backbone:
        find_backbone(inputs.backbone)
    if not inputs.sources:
        raise InputError("sources: expected at least one source, got none")
    states = [source_state(source, inputs.sha256) for source in inputs.sources]
    if inputs.weights not in ("imagenet", "random"):
        _require_readable("weights", inputs.weights)
    if inputs.ood_images:
        states.append(_require_readable("ood_images", inputs.ood_images))
    for name, place in (("destination", inputs.destination), ("work_dir", inputs.work_dir)):
        if place:
            _require_writable(name, place)
    if inputs.work_dir:
        states.append(ContentStore(inputs.work_dir).generation())
    champion = _champion(inputs.champion)
    log_progress(f"resolve: champion {champion[0] or 'none'}")
    return ResolvedInputs(digest_of([*states, code_digest()]), *champion)


def _champion(place: str) -> tuple[str, str]:
    if not place:
        return "", ""
    try:
        return locate_version(place) or ("", "")
    except InputError as error:
        raise InputError(f"champion: {error}") from error


def _require_readable(name: str, place: str) -> str:
    """Return the state of a file or folder that a step will read."""
    if "://" not in place and not Path(place).exists():
        raise InputError(f"{name}: expected a file or folder, found none at {place}")
    try:
        return source_state(place)
    except InputError as error:
        raise InputError(f"{name}: {str(error).removeprefix('source: ')}") from error


def _require_writable(name: str, place: str) -> None:
    """Write and remove a small file, which no other check of rights can stand for."""
    probe = f"{_PROBE}-{secrets.token_hex(4)}"
    try:
        if is_store_uri(place):
            store, base = open_store_uri(place)
            store.pipe_file(f"{base}/{probe}", b"")
            store.rm_file(f"{base}/{probe}")
        else:
            folder = Path(place.removeprefix("file://"))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / probe).touch()
            (folder / probe).unlink()
    except InputError:
        raise
    except Exception as error:
        # Each store's library raises errors of its own.
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name}: cannot write to {place}: {type(error).__name__}: {line}"
        ) from error

"""The first step: finds the current state of the run's inputs, and stops a run with invalid inputs.

It always runs, computes nothing and is never retried. Its results are parameters of the later
steps, which Kubeflow Pipelines runs again only if a parameter changes: after a change of the source
or the champion, or after stored content was removed.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from components.resolve.step_options import step_options
from regraft_core.backbones.at_hand import backbones_at_hand
from regraft_core.backbones.backbone_table import (
    AUTO,
    find_backbone,
    fixed_px,
    identified_backbone,
    is_location,
)
from regraft_core.backbones.weights import parse_location
from regraft_core.formats.backbone_names import short_name
from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.engine_packages import check_engine_package
from regraft_core.formats.export_packages import check_format_packages
from regraft_core.formats.fixes import identified_location
from regraft_core.formats.manifest_storage import digest_file, digest_of
from regraft_core.formats.published_versions import locate_version
from regraft_core.formats.run_outcome import LastPublication, read_last_publication
from regraft_core.formats.several_labels import check_label_options
from regraft_core.formats.store_records import (
    StartedRun,
    manifest_of,
    options_digest,
    read_origins,
    read_removal,
    record_run,
    usable_entries,
)
from regraft_core.runtime.addresses import (
    is_remote,
    local_path,
    refuse_credentials,
    refuse_signature,
)
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import is_store_uri, open_store_uri
from regraft_core.runtime.step_reports import log_progress
from regraft_core.runtime.version import code_digest
from regraft_core.sources.state import source_state
from regraft_core.tracking.mlflow_log import check_mlflow_package

STEPS_TO_VERDICT = ("ingest", "extract_features", "train_head", "fine_tune", "evaluate")
_PROBE = ".regraft-probe"


@dataclass(frozen=True)
class RunInputs:
    """The inputs and outputs of a run; empty texts are not used."""

    sources: Sequence[str]
    mirrors: Sequence[str] = ()
    sha256: str = ""
    backbone: str = ""
    image_px: str = "0"
    weights: str = "imagenet"
    scaling: str = "auto"
    ood_images: str = ""
    fixes: str = ""
    champion: str = ""
    destination: str = ""
    work_dir: str = ""


@dataclass(frozen=True)
class ResolvedInputs:
    """The current state of the inputs.

    `source_state` changes with the sources, the code and removed content; `champion` is the
    location of the champion's version; it and its digest are empty if there is no champion.
    `backbone`, `weights` and `fixes` are the options with the digests of their files. `candidates`
    are the backbones to compare, each with its weights in the same way.
    """

    source_state: str
    champion: str
    champion_digest: str
    backbone: str
    weights: str
    fixes: str
    candidates: Mapping[str, str]


def resolve_options(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the options of each step, which contain the state of the run's inputs.

    Args:
        values: all options of a run.

    Raises:
        InputError: an option is invalid, or as `resolve`.
    """
    options = step_options(values)
    if values["label_columns"] or values["label_separator"]:
        check_label_options(values, "several")
    given = {one.name: values[one.name] for one in fields(RunInputs)}
    found = resolve(RunInputs(**given | {"image_px": str(values["image_px"])}))
    check_format_packages(values["formats"])  # a container may lack them
    check_engine_package(values["feature_engine"])
    check_engine_package(values["serving_engine"], "serving-engine")
    if found.fixes:
        options["ingest"]["fixes"] = found.fixes
    if values["mlflow"]:
        check_mlflow_package()
    if is_location(values["backbone"]):
        options["extract_features"]["backbone"] = found.backbone
    options["extract_features"] |= {"weights": found.weights} | (
        {"candidates": dict(found.candidates)} if found.candidates else {}
    )
    if values.get("run_id"):  # on a cluster: shows why a run reuses no step of another
        log_progress(f"resolve: inputs {found.source_state[:12]}, code {code_digest()[:12]}")
    where = values["destination"], values["model_name"]
    last = read_last_publication(*where) if values["destination"] else None
    state = found.source_state
    while True:
        _set_state(options, state, values["champion"], found.champion_digest, last)
        if not values["work_dir"]:
            return options
        removed = _removed_content(ContentStore(values["work_dir"]), options, values)
        if not removed:
            return options
        log_progress(f"resolve: {removed[0]} was removed from work_dir, so all steps run again")
        state = digest_of([state, "removed"])


def _set_state(
    options: dict[str, dict[str, Any]],
    state: str,
    champion: str,
    champion_digest: str,
    last: LastPublication | None,
) -> None:
    """Add the state of the inputs to the options.

    If the champion is the model that a run with the same inputs has published, the champion's
    digest is that of the one before, as in that run. So the cache returns its evaluation. If the
    cache does not, `evaluate` finds the same record and compares with the current champion.
    """
    options["ingest"]["source_state"] = state
    options["evaluate"]["champion"] = champion
    for name in ("inputs", "champion_digest"):
        options["evaluate"].pop(name, None)
    inputs = digest_of([options[step] for step in STEPS_TO_VERDICT])
    if last and (last.inputs, last.saved_model_digest) == (inputs, champion_digest):
        champion_digest = last.champion_digest
    compared = {"inputs": inputs, "champion_digest": champion_digest}
    options["evaluate"] |= compared  # so they notice another champion
    options["publish"] |= compared | {"champion": champion}


def _removed_content(
    store: ContentStore, options: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]
) -> list[str]:
    """Record the run in the store; return the entries that caches may name but that are removed."""
    steps = {step: options_digest(own) for step, own in options.items()}
    where = {"destination": values["destination"], "model_name": values["model_name"]}
    # On this machine a run replaces the one before it.
    run = values.get("run_id") or digest_of(where)[:16]
    record_run(store, run, StartedRun(started=time.time(), steps=steps, **where))
    usable = usable_entries(read_origins(store, set(steps.values())), steps)
    removing = read_removal(store)
    return [name for name in sorted(usable)
            if name in removing or not store.contains(name, manifest_of(name))]  # fmt: skip


def resolve(inputs: RunInputs) -> ResolvedInputs:
    """Check that a run can access its inputs and outputs, and return the state of the inputs.

    Raises:
        InputError: a source, the weights, the fixes, the champion, the destination or the work
            folder is invalid or not accessible; the message names it.
    """
    for one in fields(inputs):
        value = getattr(inputs, one.name)
        for location in (value,) if isinstance(value, str) else value:
            refuse_credentials(one.name, location)
            refuse_signature(one.name, location)
    backbone = inputs.backbone
    if backbone and backbone != AUTO:
        find_backbone(backbone, inputs.scaling).side_px(fixed_px(inputs.image_px))
        backbone = identified_backbone(backbone)
    if not inputs.sources:
        raise InputError("sources: expected at least one source, got none")
    states = [source_state(source, inputs.sha256) for source in inputs.sources]
    candidates: dict[str, str] = {}
    if inputs.backbone == AUTO:
        at_hand = backbones_at_hand(inputs.weights, fixed_px(inputs.image_px))
        candidates = {
            identified_backbone(name): _identified(weights) for name, weights in at_hand.items()
        }
        log_progress(f"resolve: backbones at hand: {', '.join(map(short_name, candidates))}")
    weights = inputs.weights if candidates else _identified(inputs.weights)
    fixes = identified_location(inputs.fixes) if inputs.fixes else ""
    if inputs.ood_images:
        states.append(_check_readable("ood_images", inputs.ood_images))
    for name, location in (("destination", inputs.destination), ("work_dir", inputs.work_dir)):
        if location:
            _check_writable(name, location)
    if inputs.work_dir:
        states.append(ContentStore(inputs.work_dir).generation())
    champion = _champion(inputs.champion)
    log_progress(f"resolve: champion {champion[0] or 'none'}")
    return ResolvedInputs(
        digest_of([*states, code_digest()]), *champion, backbone, weights, fixes, candidates
    )


def _identified(weights: str) -> str:
    """Return the option `weights` with the digest of its file.

    A cache compares options, and a file can change without its path.
    """
    if weights in ("imagenet", "random"):
        return weights
    path, expected = parse_location(weights)
    if not path.is_file():
        raise InputError(f"weights: expected imagenet, random or a file, found no file at {path}")
    try:
        found = digest_file(path)
    except OSError as error:
        raise InputError(f"weights: cannot read {path}: {error.strerror}") from error
    if expected and found != expected:
        raise InputError(f"weights: expected SHA-256 {expected} of {path}, found {found}")
    return f"{weights.partition('#sha256=')[0]}#sha256={found}"


def _champion(location: str) -> tuple[str, str]:
    if not location:
        return "", ""
    try:
        return locate_version(location) or ("", "")
    except InputError as error:
        raise InputError(f"champion: {error}") from error


def _check_readable(name: str, location: str) -> str:
    """Return the state of a file or folder that a step reads."""
    if not is_remote(location) and not local_path(location).exists():
        raise InputError(f"{name}: expected a file or folder, found none at {location}")
    try:
        return source_state(location)
    except InputError as error:
        raise InputError(f"{name}: {str(error).removeprefix('source: ')}") from error


def _check_writable(name: str, location: str) -> None:
    """Write and remove a small file; other checks of permissions are not reliable."""
    probe = f"{_PROBE}-{secrets.token_hex(4)}"
    try:
        if is_store_uri(location):
            store, base = open_store_uri(location)
            store.pipe_file(f"{base}/{probe}", b"")
            store.rm_file(f"{base}/{probe}")
        else:
            _write_probe(local_path(location).absolute(), probe)
    except InputError:
        raise
    except Exception as error:
        # Each store's library raises errors of its own.
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name}: cannot write to {location}: {type(error).__name__}: {line}"
        ) from error


def _write_probe(folder: Path, name: str) -> None:
    """Write and remove a file in a folder; folders that did not exist are removed again."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    (folder / name).unlink()
    for one in missing:
        with contextlib.suppress(OSError):  # another run has put something into it
            one.rmdir()

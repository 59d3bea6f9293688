"""The published models of a folder, and the models.config with which a server serves them.

`ConfigUpdater` updates that file while a server runs. TF Serving rejects a label on a version that
is not loaded, so the file lists the new versions first and sets the labels when they are available.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regraft_client.errors import RegraftClientError
from regraft_client.rest import RestClient
from regraft_core.formats.manifest_storage import write_text
from regraft_core.formats.version_names import version_names
from regraft_core.runtime.errors import InputError
from serving.publishing.folder_store import FolderStore

_STATUS_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class FoundModel:
    """A published model: its name, the folder of its versions, the latest one, its labels."""

    name: str
    path: Path
    latest: int
    labels: dict[str, int]


def find_models(base_dir: str | os.PathLike[str]) -> list[FoundModel]:
    """Return the models in `base_dir`: itself if it contains versions, or its subfolders that do.

    Raises:
        InputError: there is no model.
    """
    base = Path(base_dir).resolve()
    if not base.is_dir():
        raise InputError(f"expected a folder of models, got {base_dir}")
    folders = [base] if _versions(base) else sorted(p for p in base.iterdir() if p.is_dir())
    found = []
    for path in folders:
        if versions := _versions(path):
            labels = FolderStore(path).labels()
            kept = {label: number for label, number in labels.items() if number in versions}
            found.append(FoundModel(path.name, path, max(versions), kept))
    if not found:
        raise InputError(f"expected <model>/<version>/ below {base}, found no version")
    return found


def models_config(models: Sequence[FoundModel], next_models: Sequence[FoundModel] = ()) -> str:
    """Return TF Serving's models.config: each model's latest version, and those of its labels.

    The versions of `next_models` are served as well, but their labels are not set yet.
    """
    following = {model.name: model for model in next_models}
    lines = ["model_config_list {"]
    for model in models:
        lines += [
            "  config {",
            f"    name: {json.dumps(model.name)}",
            f"    base_path: {json.dumps(str(model.path))}",
            '    model_platform: "tensorflow"',
        ]
        both = [model, following.get(model.name, model)]
        if any(one.labels for one in both):
            numbers = {number for one in both for number in (one.latest, *one.labels.values())}
            versions = " ".join(f"versions: {number}" for number in sorted(numbers))
            lines.append(f"    model_version_policy {{ specific {{ {versions} }} }}")
        lines += [
            f"    version_labels {{ key: {json.dumps(label)} value: {number} }}"
            for label, number in sorted(model.labels.items())
        ]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


class ConfigUpdater:
    """Keeps the models.config of a running server up to date with the folders of its models."""

    def __init__(self, models: Sequence[FoundModel], config: Path) -> None:
        self._models = list(models)
        self._config = config
        self._text = ""
        self._write(models_config(self._models))

    def step(self, rest_address: str) -> None:
        """Check for new versions and labels once; they are in effect a few steps later."""
        found = [_find_again(model) for model in self._models]
        if found == self._models:
            return
        if all(_labeled_available(rest_address, model) for model in found if model.labels):
            self._models = found
            self._write(models_config(found))
        else:
            self._write(models_config(self._models, found))

    def _write(self, text: str) -> None:
        if text != self._text:
            write_text(self._config, text)
            self._text = text


def _find_again(model: FoundModel) -> FoundModel:
    try:
        (found,) = find_models(model.path)
    except InputError:
        return model  # it has no versions at the moment
    return found


def _labeled_available(rest_address: str, model: FoundModel) -> bool:
    """Return whether all labeled versions of a model are available on a server."""
    try:
        with RestClient(rest_address, model.name, _STATUS_TIMEOUT_S) as client:
            available = {one.version for one in client.status() if one.state == "AVAILABLE"}
    except RegraftClientError:
        return False
    return set(model.labels.values()) <= available


def _versions(path: Path) -> list[int]:
    return [*version_names(child.name for child in path.iterdir() if child.is_dir())]

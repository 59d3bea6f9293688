"""The published models of a folder, and the models.config by which a server serves them.

`ConfigUpdater` keeps that file in step with labels while a server runs. TF Serving refuses a label
on a version that is not loaded, so the file first asks for the versions and then sets the labels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regraft_client.errors import ServingClientError
from regraft_client.rest import RestClient
from regraft_core.formats.manifest_storage import write_text
from regraft_core.runtime.errors import InputError
from serving.publishing.publish import FolderStore

_STATUS_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class FoundModel:
    """A model below a folder: its name, the folder of its versions, the newest, the labels."""

    name: str
    path: Path
    newest: int
    labels: dict[str, int]


def find_models(base_dir: str | os.PathLike[str]) -> list[FoundModel]:
    """Return the models in `base_dir`: itself if it holds versions, or its subfolders that do.

    Raises:
        InputError: there is none.
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


def models_config(models: Sequence[FoundModel], coming: Sequence[FoundModel] = ()) -> str:
    """Return TF Serving's models.config: each model's newest version, and those of its labels.

    The versions that `coming` names are served too, but its labels are not set yet.
    """
    later = {model.name: model for model in coming}
    lines = ["model_config_list {"]
    for model in models:
        lines += [
            "  config {",
            f"    name: {json.dumps(model.name)}",
            f"    base_path: {json.dumps(str(model.path))}",
            '    model_platform: "tensorflow"',
        ]
        both = [model, later.get(model.name, model)]
        if any(one.labels for one in both):
            numbers = {number for one in both for number in (one.newest, *one.labels.values())}
            versions = " ".join(f"versions: {number}" for number in sorted(numbers))
            lines.append(f"    model_version_policy {{ specific {{ {versions} }} }}")
        lines += [
            f"    version_labels {{ key: {json.dumps(label)} value: {number} }}"
            for label, number in sorted(model.labels.items())
        ]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


class ConfigUpdater:
    """The models.config of a running server, kept in step with the models that it began with."""

    def __init__(self, models: Sequence[FoundModel], config: Path) -> None:
        self._models = list(models)
        self._config = config
        self._text = ""
        self._write(models_config(self._models))

    def step(self, rest_address: str) -> None:
        """Look once for new versions and labels; what is found is in effect some steps later."""
        wanted = [_found_again(model) for model in self._models]
        if wanted == self._models:
            return
        if all(_available(rest_address, model) for model in wanted if model.labels):
            self._models = wanted
            self._write(models_config(wanted))
        else:
            self._write(models_config(self._models, wanted))

    def _write(self, text: str) -> None:
        if text != self._text:
            write_text(self._config, text)
            self._text = text


def _found_again(model: FoundModel) -> FoundModel:
    try:
        (found,) = find_models(model.path)
    except InputError:
        return model  # all versions are gone for now
    return found


def _available(rest_address: str, model: FoundModel) -> bool:
    """Tell whether a server answers with all versions that labels of a model name."""
    try:
        with RestClient(rest_address, model.name, _STATUS_TIMEOUT_S) as client:
            there = {one.version for one in client.status() if one.state == "AVAILABLE"}
    except ServingClientError:
        return False
    return set(model.labels.values()) <= there


def _versions(path: Path) -> list[int]:
    return [int(child.name) for child in path.iterdir() if child.name.isdigit() and child.is_dir()]

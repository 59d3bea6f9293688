"""The published models of a folder, and the models.config with which a server serves them.

`ConfigUpdater` updates that file while a server runs. TF Serving rejects a label on a version that
is not loaded, so the file lists the new versions first and sets the labels when they are available.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from regraft_client.errors import RegraftClientError
from regraft_client.rest import RestClient
from regraft_core.formats.manifest_storage import write_text
from regraft_core.runtime.errors import InputError
from serving.publishing.folder_store import FolderStore

_STATUS_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class FoundModel:
    """A published model: its name, the folder of its versions, the latest one, its labels.

    `problem` is why its folder could not be read again.
    """

    name: str
    path: Path
    latest: int
    labels: dict[str, int]
    problem: str = field(default="", compare=False)


def find_models(
    base_dir: str | os.PathLike[str], log: Callable[[str], None] = lambda line: None
) -> list[FoundModel]:
    """Return the models in `base_dir`: itself if it contains versions, or its subfolders that do.

    Subfolders that cannot be read are skipped and logged.

    Raises:
        InputError: there is no model, or its labels are malformed.
    """
    try:
        base = Path(base_dir).resolve()
        if not base.is_dir():
            raise InputError(f"expected a folder of models, got {base_dir}")
        if model := _read_model(base):
            return [model]
        folders = sorted(base.iterdir())
    except (OSError, RuntimeError) as error:
        raise InputError(f"expected a folder of models, cannot read {base_dir}: {error}") from error
    found = []
    for path in folders:
        try:
            model = _read_model(path) if path.is_dir() else None
        except OSError as error:
            log(f"skipped {path}: {error.strerror}")
            continue
        if model is not None:
            found.append(model)
    if not found:
        raise InputError(f"expected <model>/<version>/ below {base}, found no version")
    return found


def _read_model(path: Path) -> FoundModel | None:
    """Return the model whose versions are in `path`, None if there is none."""
    versions = _versions(path)
    if not versions:
        return None
    labels = FolderStore(path).labels()
    kept = {label: number for label, number in labels.items() if number in versions}
    return FoundModel(path.name, path, max(versions), kept)


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

    @property
    def problems(self) -> dict[str, str]:
        """Why folders could not be read at the last step, by the names of their models."""
        return {model.name: model.problem for model in self._models if model.problem}

    def restore(self) -> None:
        """Write the file again if it was deleted, as programs that clean temporary folders do."""
        if not self._config.is_file():
            self._config.parent.mkdir(parents=True, exist_ok=True)
            self._config.parent.chmod(0o755)  # a container has another user
            text, self._text = self._text, ""
            self._write(text)

    def step(self, rest_address: str) -> None:
        """Check for new versions and labels once; they are in effect a few steps later."""
        found = [_find_again(model) for model in self._models]
        if found == self._models:
            self._models = found
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
    """Return the model as it is now, or as it was if its folder has no version or is damaged."""
    try:
        return _read_model(model.path) or replace(model, problem="")
    except (InputError, OSError) as error:
        return replace(model, problem=str(error))


def _labeled_available(rest_address: str, model: FoundModel) -> bool:
    """Return whether all labeled versions of a model are available on a server."""
    try:
        with RestClient(rest_address, model.name, _STATUS_TIMEOUT_S) as client:
            available = {one.version for one in client.status() if one.state == "AVAILABLE"}
    except RegraftClientError:
        return False
    return set(model.labels.values()) <= available


def _versions(path: Path) -> list[int]:
    names = (child.name for child in path.iterdir() if child.is_dir())
    return [int(n) for n in names if n.isascii() and n.isdecimal() and len(n) < 20]

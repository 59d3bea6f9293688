"""The published models of a folder, and the models.config with which a server serves them.

`ConfigUpdater` updates that file while a server runs. TF Serving unloads a version at once when its
folder is renamed or the file no longer lists it, and rejects a label on a version that is not
loaded. So it is served from links to the folders, and every change takes three writes of the file:
the new versions are added, then the labels are moved, then the old versions are removed.
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
from regraft_core.formats.version_names import version_names
from regraft_core.runtime.errors import InputError
from serving.publishing.folder_store import WITHDRAWN, FolderStore

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

    @property
    def versions(self) -> frozenset[int]:
        """The versions to serve: the latest and the labeled ones."""
        return frozenset({self.latest, *self.labels.values()})


@dataclass(frozen=True)
class ServedModel:
    """What models.config lists of a model: its versions and labels, in the folder `base_path`."""

    name: str
    base_path: Path
    versions: frozenset[int]
    labels: dict[str, int]


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


def models_config(models: Sequence[ServedModel]) -> str:
    """Return TF Serving's models.config of these models."""
    lines = ["model_config_list {"]
    for model in models:
        versions = " ".join(f"versions: {number}" for number in sorted(model.versions))
        lines += [
            "  config {",
            f"    name: {json.dumps(model.name)}",
            f"    base_path: {json.dumps(str(model.base_path))}",
            '    model_platform: "tensorflow"',
            f"    model_version_policy {{ specific {{ {versions} }} }}",
        ]
        lines += [
            f"    version_labels {{ key: {json.dumps(label)} value: {number} }}"
            for label, number in sorted(model.labels.items())
        ]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


class ConfigUpdater:
    """Keeps the models.config of a running server up to date with the folders of its models."""

    def __init__(self, models: Sequence[FoundModel], config: Path) -> None:
        """Write the file, and next to it a folder of links for each model."""
        self._models = list(models)
        self._config = config
        self._links = config.parent / "versions"
        self._served = [
            ServedModel(model.name, self._links / model.name, model.versions, model.labels)
            for model in models
        ]
        self._text = ""
        self._write()

    @property
    def problems(self) -> dict[str, str]:
        """Why folders could not be read at the last step, by the names of their models."""
        return {model.name: model.problem for model in self._models if model.problem}

    def step(self, rest_address: str) -> None:
        """Check for new versions and labels once; they are in effect a few steps later."""
        self._models = [_find_again(model) for model in self._models]
        self._served = [
            _next(served, found, rest_address)
            for served, found in zip(self._served, self._models, strict=True)
        ]
        self._write()

    def _write(self) -> None:
        # Whatever programs that clean temporary folders have deleted is made again.
        models = [served.base_path for served in self._served]
        for folder in (self._config.parent, self._links, *models):
            if not folder.is_dir():
                folder.mkdir()
                folder.chmod(0o755)  # a container has another user
        for served, found in zip(self._served, self._models, strict=True):
            _link_versions(served, found.path)
        text = models_config(self._served)
        if text != self._text or not self._config.is_file():
            write_text(self._config, text)
            self._text = text
        for served in self._served:
            _remove_links(served)


def _next(served: ServedModel, found: FoundModel, rest_address: str) -> ServedModel:
    """Return what to serve next on the way to what was found."""
    if not found.versions <= served.versions:
        return replace(served, versions=served.versions | found.versions)
    if served.labels != found.labels:
        ready = set(found.labels.values()) <= _available(rest_address, served.name)
        return replace(served, labels=found.labels) if ready else served
    if served.versions != found.versions:
        ready = found.versions <= _available(rest_address, served.name)
        moved = ready and all(
            _labeled(rest_address, served.name, label) == number
            for label, number in served.labels.items()
        )
        return replace(served, versions=found.versions) if moved else served
    return served


def _link_versions(served: ServedModel, folder: Path) -> None:
    """Link the versions in `folder`, or the folder to which a rollback renamed one."""
    for number in served.versions:
        withdrawn = folder / f"{WITHDRAWN}{number}"
        target = folder / str(number)
        if withdrawn.is_dir() and not target.is_dir():
            target = withdrawn
        link = served.base_path / str(number)
        if not link.is_symlink() or link.readlink() != target:
            staged = served.base_path / f".{number}"
            staged.unlink(missing_ok=True)
            staged.symlink_to(target)
            staged.replace(link)


def _remove_links(served: ServedModel) -> None:
    for link in served.base_path.iterdir():
        if link.name not in {str(number) for number in served.versions}:
            link.unlink()


def _find_again(model: FoundModel) -> FoundModel:
    """Return the model as it is now, or as it was if its folder has no version or is damaged."""
    try:
        return _read_model(model.path) or replace(model, problem="")
    except (InputError, OSError) as error:
        return replace(model, problem=str(error))


def _available(rest_address: str, name: str) -> set[int]:
    """Return the available versions of a model on a server; none if it does not respond."""
    try:
        with RestClient(rest_address, name, _STATUS_TIMEOUT_S) as client:
            return {one.version for one in client.status() if one.state == "AVAILABLE"}
    except RegraftClientError:
        return set()


def _labeled(rest_address: str, name: str, label: str) -> int | None:
    """Return the version that a server serves for a label."""
    try:
        with RestClient(rest_address, name, _STATUS_TIMEOUT_S, label=label) as client:
            return client.metadata().version
    except RegraftClientError:
        return None


def _versions(path: Path) -> list[int]:
    return [*version_names(child.name for child in path.iterdir() if child.is_dir())]

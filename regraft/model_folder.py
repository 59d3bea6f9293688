"""Which folder a model is loaded from, if a run, a published model or a model's folder is given."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.local.run import LOG_FILE
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.published_versions import GRAPH_FILE, locate_version, resolve_version
from regraft_core.formats.version_names import version_names
from regraft_core.runtime.addresses import is_remote, local_path
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import is_store_uri

SUMMARY_FILE = "summary.json"
EXPECTED = (
    "a run's folder, a published model, one of its versions, an exported model or a candidate's "
    "folder"
)


def find_model_folder(path: str | os.PathLike[str], work: Path) -> Path:
    """Return the folder of the exported model or of the candidate that `path` refers to.

    Args:
        path: a folder, or the URL of a published model.
        work: an empty folder; a model at a URL is copied into it.

    Raises:
        InputError: there is no model, or the run at `path` was rejected.
    """
    source = published_by(path)
    if is_store_uri(source):
        return _resolved(source, work)
    folder = Path(source)
    if not folder.is_dir():
        kind = "the file" if folder.exists() else "nothing at"
        raise InputError(f"expected {EXPECTED}, found {kind} {folder}")
    if (folder / ModelManifest.file_name).is_file():
        return folder
    if (folder / GRAPH_FILE).is_file() or versions_in(folder):
        return _resolved(source, work)
    names = models_in(folder)
    if len(names) == 1:
        return _resolved(str(folder / names[0]), work)
    if names:
        raise InputError(f"{folder}: expected one model, found {', '.join(names)}; choose one")
    if (folder / LOG_FILE).is_file():
        raise InputError(f"{folder}: the run did not finish, so it has no model; see {LOG_FILE}")
    raise InputError(f"expected {EXPECTED}, got the folder {folder}")


def pinned_version(path: str | os.PathLike[str]) -> str:
    """Return the folder or URL of the version that `path` refers to now, even if others follow.

    Raises:
        InputError: as `find_model_folder`; for a URL, only that its store does not respond.
    """
    source = published_by(path)
    if not is_store_uri(source):
        return str(find_model_folder(source, Path()))
    located = locate_version(source)
    return located[0] if located else source


def plain_path(path: str | os.PathLike[str]) -> str:
    """Return a path, or a URL that is not a local file's, as text."""
    text = os.fspath(path)
    return text if is_remote(text) else str(local_path(text))


def published_by(path: str | os.PathLike[str]) -> str:
    """Return the folder or URL of the version that a run published, or `path` if it is not a run.

    Raises:
        InputError: the run was rejected, or its summary is damaged.
    """
    source = plain_path(path)
    if is_store_uri(source) or not (Path(source) / SUMMARY_FILE).is_file():
        return source
    from regraft.training_run import Run

    run = Run.read(source)
    if run.published is not None:
        return run.published
    failed = ", ".join(check.name for check in run.reasons)
    hint = f"; to load it anyway: {run.model_dir}" if run.model_dir else ""
    raise InputError(f"{source}: the gate rejected this run's model (failed: {failed}){hint}")


def find_served_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder to serve for `path`: of a run, that of the model which it published.

    Raises:
        InputError: the run was rejected, or published to a URL.
    """
    source = published_by(path)
    if is_store_uri(source):
        raise InputError(f"expected a folder of published models, got {source}; copy it first")
    is_run = source != plain_path(path)
    return Path(source).parent if is_run else Path(source)


def versions_in(folder: Path) -> list[int]:
    """Return the numbers of the versions of the published model at `folder`."""
    return [*version_names(p.name for p in folder.iterdir() if (p / GRAPH_FILE).is_file())]


def models_in(folder: Path) -> list[str]:
    """Return the names of the published models below `folder`."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and versions_in(path))


def _resolved(place: str, work: Path) -> Path:
    """Return the folder of the stable or else newest version at `place`, with all bytes checked."""
    folder = resolve_version(place, work)
    if folder is None:
        raise InputError(f"expected {EXPECTED}, found no version at {place}")
    if not (folder / SavedModelManifest.file_name).is_file():
        raise InputError(
            f"{folder}: expected a model exported by Regraft, found no "
            f"{SavedModelManifest.file_name}"
        )
    return folder

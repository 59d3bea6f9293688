"""The runners of a local run: subprocesses of this Python, or containers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipelines.recipes.recipe import Recipe
from regraft_core.backbones.backbone_table import backbone_path
from regraft_core.formats.backbone_names import DIGEST_MARK, PREFIX
from regraft_core.runtime.addresses import is_remote, local_path, variables_of
from regraft_core.runtime.container_image import IMAGE
from regraft_core.runtime.errors import InputError, unknown_name
from regraft_core.runtime.step_reports import EVENTS_VARIABLE
from regraft_core.runtime.version import code_digest

RUNNERS = ("subprocess", "docker")
KERAS_FOLDER = "~/.keras"
WEIGHTS_BY_NAME = ("imagenet", "random")


def make_runner(name: str, recipe: Recipe, out: Path, events_file: Path) -> Any:
    """Return kfp's runner of that name.

    Args:
        name: `subprocess` or `docker`.
        recipe: the run's options.
        out: the folder of the run.
        events_file: the file that steps write events to, below `out`.

    Raises:
        InputError: unknown runner, or something that `docker` needs is missing.
    """
    if name not in RUNNERS:
        raise unknown_name("runner", name, RUNNERS)
    from kfp import local

    if name == "subprocess":
        return local.SubprocessRunner(use_venv=False)
    _image_id()
    return local.DockerRunner(**container_options(recipe, out, events_file))


def code_digest_of(name: str) -> str:
    """Return a digest of the code that a runner executes: this package, or the container image."""
    return _image_id().removeprefix("sha256:") if name == "docker" else code_digest()


def container_options(recipe: Recipe, out: Path, events_file: Path) -> dict[str, Any]:
    """Return Docker's options for the containers, which run as this user with minimal rights.

    The run's folder and the download caches are mounted at their own paths, so that paths mean the
    same inside. Paths that the recipe only reads are mounted read-only.
    """
    from docker.types import DeviceRequest, Mount

    keras = Path(KERAS_FOLDER).expanduser()
    writable = [out, Path(recipe.download_cache).expanduser().absolute(), keras]
    if recipe.destination and not is_remote(recipe.destination):
        writable.append(local_path(recipe.destination).absolute())
    for folder in writable:
        folder.mkdir(parents=True, exist_ok=True)
    mounts = {str(folder): Mount(str(folder), str(folder), type="bind") for folder in writable}
    for path in _paths_read(recipe):
        mounts.setdefault(path, Mount(path, path, type="bind", read_only=True))
    named = {name for url in (*recipe.sources, *recipe.mirrors) for name in variables_of(url)}
    secret = {name: os.environ[name] for name in named if name in os.environ}
    gpus = [DeviceRequest(count=-1, capabilities=[["gpu"]])] if recipe.require_gpu else []
    return {
        "user": f"{os.getuid()}:{os.getgid()}",
        "mounts": list(mounts.values()),
        "environment": {"KERAS_HOME": str(keras), EVENTS_VARIABLE: str(events_file)} | secret,
        "read_only": True,
        "tmpfs": {"/tmp": "exec,mode=1777"},  # noqa: S108 - the container's own
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "shm_size": "1g",
        "init": True,
        "device_requests": gpus,
    }


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """Return the recipe with absolute paths, because a container has another working directory."""
    written = {"download_cache", "destination", "work_dir"}
    changes: dict[str, Any] = {
        name: _absolute(getattr(recipe, name), always=name in written)
        for name in written | {"champion", "ood_images"}
    }
    for name in ("weights", "fixes"):
        if getattr(recipe, name) not in WEIGHTS_BY_NAME:
            path, mark, digest = getattr(recipe, name).partition("#sha256=")
            changes[name] = f"{_absolute(path)}{mark}{digest}"
    if path := backbone_path(recipe.backbone):
        prefix = PREFIX if recipe.backbone.startswith(PREFIX) else ""
        _, mark, digest = recipe.backbone.partition(DIGEST_MARK)
        changes["backbone"] = f"{prefix}{_absolute(path)}{mark}{digest}"
    for name in ("sources", "mirrors"):
        changes[name] = tuple(_absolute(path) for path in getattr(recipe, name))
    return recipe.model_copy(update=changes)


def _absolute(text: str, *, always: bool = False) -> str:
    """Return an existing path (or with `always`, any path) as absolute; keep URIs and names."""
    if not text or is_remote(text):
        return text
    path = local_path(text).expanduser()
    return str(path.absolute()) if always or path.exists() else text


def _paths_read(recipe: Recipe) -> list[str]:
    """Return the absolute paths that the recipe names and no step writes to."""
    files = [text.partition("#sha256=")[0] for text in (recipe.weights, recipe.fixes)]
    files.append(backbone_path(recipe.backbone))
    named = (*recipe.sources, *recipe.mirrors, recipe.champion, recipe.ood_images, *files)
    return [name for name in named if Path(name).is_absolute() and Path(name).exists()]


def _image_id() -> str:
    """Return the id of the container image on this machine.

    Raises:
        InputError: there is no Docker engine, no container image, or no package `docker`.
    """
    try:
        import docker
    except ImportError as error:
        raise InputError(
            "runner docker: expected the package docker, found none; pip install docker"
        ) from error
    try:
        client = docker.from_env()
    except docker.errors.DockerException as error:
        raise InputError(f"runner docker: expected a Docker engine, found none: {error}") from error
    try:
        return str(client.images.get(IMAGE).id)
    except docker.errors.ImageNotFound as error:
        raise InputError(
            f"runner docker: expected the container image {IMAGE}, found none; "
            "`make image` builds it"
        ) from error
    finally:
        client.close()

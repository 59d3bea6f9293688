"""Settings of all pods in addition to the node: container image, secrets and volumes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from regraft_core.runtime.errors import InputError

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[A-Za-z0-9._-]{1,253}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._:/-]*(@sha256:[0-9a-f]{64})?")


def require_non_root(task: Any) -> None:
    """Refuse to start the container of a kfp task as root."""
    from kfp import kubernetes

    kubernetes.set_security_context(task, run_as_non_root=True)


@dataclass(frozen=True)
class SecretVariable:
    """A key of a Kubernetes secret as an environment variable; its value is not known here."""

    secret: str
    key: str
    variable: str


@dataclass(frozen=True)
class Mount:
    """A secret or PersistentVolumeClaim, by name, as a folder."""

    name: str
    path: str


@dataclass(frozen=True)
class Pods:
    """Settings of all pods. An empty `image` means the container image for the nodes.

    With `ray_nodes`, the run has a Ray cluster of so many worker nodes; `ray` is the address of an
    existing one.
    """

    image: str = ""
    secret_variables: tuple[SecretVariable, ...] = ()
    secret_volumes: tuple[Mount, ...] = ()
    pvcs: tuple[Mount, ...] = ()
    ray_nodes: int = 0
    ray: str = ""

    def configure(self, task: Any) -> None:
        """Apply the settings to a kfp task."""
        from kfp import kubernetes

        if self.image:
            task.set_container_image(self.image)
        for one in self.secret_variables:
            kubernetes.use_secret_as_env(task, one.secret, {one.key: one.variable})
        for folder in self.secret_volumes:
            kubernetes.use_secret_as_volume(task, folder.name, folder.path)
        for pvc in self.pvcs:
            kubernetes.mount_pvc(task, pvc.name, pvc.path)

    @property
    def on_kubernetes(self) -> bool:
        """Whether there are settings that only the Kubernetes part of a compiled file contains."""
        return bool(self.secret_variables or self.secret_volumes or self.pvcs or self.ray)

    def has_mounted(self, path: str) -> bool:
        """Return whether a path is in a mounted PersistentVolumeClaim or secret."""
        mounts = (*self.pvcs, *self.secret_volumes)
        return any(PurePosixPath(path).is_relative_to(mount.path) for mount in mounts)


def make_pods(
    image: str = "",
    secret_variables: tuple[str, ...] = (),
    secret_volumes: tuple[str, ...] = (),
    pvcs: tuple[str, ...] = (),
    ray_nodes: int = 0,
    ray: str = "",
) -> Pods:
    """Parse the options `SECRET:KEY=VARIABLE`, `SECRET=/path` and `PVC=/path`.

    Raises:
        InputError: an option has another form, or two have the same variable or path.
    """
    if image and not _IMAGE.fullmatch(image):
        raise InputError(f"image: expected a reference such as registry/name:tag, got {image!r}")
    pods = Pods(
        image,
        tuple(_variable(text) for text in secret_variables),
        tuple(_mount("secret-volume", text) for text in secret_volumes),
        tuple(_mount("pvc", text) for text in pvcs),
        ray_nodes,
        ray,
    )
    for kind, names in (
        ("variable", [one.variable for one in pods.secret_variables]),
        ("path", [mount.path for mount in (*pods.secret_volumes, *pods.pvcs)]),
    ):
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise InputError(f"expected each {kind} once, got {min(repeated)} twice")
    return pods


def _variable(text: str) -> SecretVariable:
    source, _, variable = text.partition("=")
    secret, _, key = source.partition(":")
    if _NAME.fullmatch(secret) and _KEY.fullmatch(key) and _VARIABLE.fullmatch(variable):
        return SecretVariable(secret, key, variable)
    # The text may contain the value of a secret, so it is not shown.
    raise InputError("secret-env: expected SECRET:KEY=VARIABLE, the names of a Kubernetes secret, "
                     "its key and an environment variable")  # fmt: skip


def _mount(option: str, text: str) -> Mount:
    name, _, path = text.partition("=")
    if _NAME.fullmatch(name) and path.startswith("/") and len(path) > 1 and ".." not in path:
        return Mount(name, path.rstrip("/"))
    if "/" in name and path:
        raise InputError(f"{option}: expected a name in the namespace of the run, got {name!r}; a "
                         "pod cannot mount what is in another namespace")  # fmt: skip
    raise InputError(f"{option}: expected NAME=/absolute/path, got {text!r}")

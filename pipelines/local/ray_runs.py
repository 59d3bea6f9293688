"""Local runs on a Ray cluster: what they need, and the cluster of a run on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pipelines.local.environment import set_variables
from pipelines.recipes.recipe import Recipe
from regraft_core.parallel.ray_cluster import RayCluster
from regraft_core.parallel.ray_executor import RAY_VARIABLE
from regraft_core.parallel.ray_package import check_ray_package
from regraft_core.runtime.errors import InputError


def check_ray(ray: str, recipe: Recipe, runner: str) -> None:
    """Check the option `ray` of a run, before anything is written.

    Raises:
        InputError: as `check_ray_address`, or another option does not go with it.
    """
    check_ray_address(ray)
    if ray and runner != "subprocess":
        raise InputError(f"ray: expected the runner subprocess with it, got {runner}")
    if ray and recipe.workers > 1:
        raise InputError(
            f"ray: expected workers 1 with it, got {recipe.workers}; Ray shares the extraction "
            "among all nodes"
        )


def check_ray_address(ray: str) -> None:
    """Check that the option `ray` is empty, or an address that can be used.

    Raises:
        InputError: it is not an address, or Ray is not installed.
    """
    if not ray:
        return
    if ray not in ("local", "auto") and not ray.startswith("ray://"):
        raise InputError(f"ray: expected local, auto or ray://HOST:PORT, got {ray}")
    check_ray_package(ray)


@contextlib.contextmanager
def using_ray(ray: str) -> Iterator[None]:
    """Set the environment variables by which this process and its steps find the cluster.

    For `local`, a cluster with all cores of this machine runs within the context.

    Raises:
        RegraftError: it does not start.
    """
    if ray != "local":
        with set_variables({RAY_VARIABLE: ray} if ray else {}):
            yield
        return
    with (
        RayCluster() as cluster,
        set_variables({RAY_VARIABLE: cluster.address, **cluster.environment}),
    ):
        yield

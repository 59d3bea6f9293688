"""Local runs on a Ray cluster: what they need, and the cluster of a run on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from pipelines.recipes.recipe import Recipe
from regraft_core.parallel.ray_cluster import RayCluster
from regraft_core.parallel.ray_executor import RAY_VARIABLE
from regraft_core.parallel.ray_package import check_ray_package
from regraft_core.runtime.errors import InputError


def check_ray(ray: str, recipe: Recipe, runner: str) -> None:
    """Check the option `ray`, before anything is written.

    Raises:
        InputError: it is not an address, Ray is not installed, or another option does not go with
            it.
    """
    if not ray:
        return
    if ray not in ("local", "auto") and not ray.startswith("ray://"):
        raise InputError(f"ray: expected local, auto or ray://HOST:PORT, got {ray}")
    check_ray_package(ray)
    if runner != "subprocess":
        raise InputError(f"ray: expected the runner subprocess with it, got {runner}")
    if recipe.workers > 1:
        raise InputError(
            f"ray: expected workers 1 with it, got {recipe.workers}; Ray shares the extraction "
            "among all nodes"
        )


@contextlib.contextmanager
def ray_variables(ray: str) -> Iterator[Mapping[str, str]]:
    """Return the environment variables by which steps find the cluster.

    For `local`, a cluster with all cores of this machine runs within the context.

    Raises:
        RegraftError: it does not start.
    """
    if ray != "local":
        yield {RAY_VARIABLE: ray} if ray else {}
        return
    with RayCluster() as cluster:
        yield {RAY_VARIABLE: cluster.address, **cluster.environment}

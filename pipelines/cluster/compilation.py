"""Compiles the pipeline into a file for Kubeflow Pipelines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.start_ray.start_ray import POD_VARIABLE
from pipelines.cluster.compact_ir import compact_file
from pipelines.cluster.node_presets import Hardware, set_node
from pipelines.cluster.pod_settings import Pods, require_non_root
from pipelines.cluster.ray_connection import RUN_VARIABLE
from pipelines.cluster.ray_pods import RAY_STEPS, check_ray, make_ray_pods
from pipelines.cluster.retry_policy import RETRY_POLICIES, set_deadline
from pipelines.recipe_checks import check_recipe
from pipelines.recipes.recipe import Recipe, make_recipe
from regraft_core.kuberay.ray_cluster import RUN_LABEL
from regraft_core.parallel.ray_executor import RAY_VARIABLE
from regraft_core.runtime.addresses import redact, variables_of
from regraft_core.runtime.container_image import GPU_IMAGE, IMAGE
from regraft_core.runtime.errors import InputError


def prepare_recipe(
    options: Mapping[str, Any], hardware: Hardware | None = None, pods: Pods | None = None
) -> Recipe:
    """Return the checked recipe of a run on a cluster; on GPU nodes, it requires a GPU by default.

    Raises:
        InputError: an unknown option, a value out of range, or as `check_recipe`.
    """
    recipe = make_recipe(**{"require_gpu": bool(hardware and hardware.has_gpu), **options})
    pods = pods or Pods()
    check_ray(recipe, hardware, pods)
    check_recipe(recipe, pods.has_mounted)
    known = {one.variable for one in pods.secret_variables}
    for url in (*recipe.sources, *recipe.mirrors):
        if missing := [name for name in variables_of(url) if name not in known]:
            raise InputError(
                f"source: expected --secret-env SECRET:KEY={missing[0]}, because the URL "
                f"{redact(url)}?... names this variable, got none"
            )
    return recipe


def image_of(hardware: Hardware | None, pods: Pods | None) -> str:
    """Return the container image of all steps: the given one, or the one for the nodes."""
    if pods is not None and pods.image:
        return pods.image
    return GPU_IMAGE if hardware is not None and hardware.has_gpu else IMAGE


def compile_pipeline(
    recipe: Recipe,
    output: Path,
    hardware: Hardware | None = None,
    pods: Pods | None = None,
    *,
    cache: bool = True,
) -> None:
    """Compile the pipeline into a file.

    Args:
        recipe: its options become the defaults of the pipeline's parameters.
        output: the file to write. A .json file cannot contain that the steps must not run as root.
        hardware: the nodes that the steps request. On GPU nodes, the container image has CUDA
            unless `pods` set another.
        pods: container image, secrets and volumes of all steps, and their Ray cluster.
        cache: whether a step may reuse the result of an earlier run.

    Raises:
        InputError: the file is not a .yaml, .yml or .json file, or cannot contain the settings.
    """
    if output.suffix not in (".yaml", ".yml", ".json"):
        raise InputError(f"output: expected a .yaml, .yml or .json file, got {output.name!r}")
    if output.suffix == ".json" and (hardware is not None or (pods and pods.on_kubernetes)):
        raise InputError("output: expected a .yaml file, because a .json file cannot contain the "
                         "settings of nodes, secrets and PVCs")  # fmt: skip
    from kfp import kubernetes
    from kfp.compiler import Compiler

    from pipelines.pipeline import make_pipeline

    with_image = replace(pods or Pods(), image=image_of(hardware, pods))
    nodes = with_image.ray_nodes
    ray = make_ray_pods(hardware, with_image) if hardware is not None and nodes else None

    def configure(task: Any, step: str) -> None:
        if hardware is not None:
            set_node(task, hardware.node(step))
            set_deadline(task, RETRY_POLICIES[step])
        with_image.configure(task)
        if output.suffix != ".json":
            require_non_root(task)
        if step == "start_ray":
            kubernetes.use_field_path_as_env(task, POD_VARIABLE, "metadata.name")
        elif step in RAY_STEPS and (ray is not None or with_image.ray):
            if with_image.ray:
                task.set_env_variable(RAY_VARIABLE, with_image.ray)
            kubernetes.use_field_path_as_env(task, RUN_VARIABLE, f"metadata.labels['{RUN_LABEL}']")
        if not cache:
            task.set_caching_options(False)

    output.parent.mkdir(parents=True, exist_ok=True)
    pipeline = make_pipeline(configure, fan_out=recipe.workers > 1, cluster=True, ray=ray)
    values = recipe.arguments() | ({"ray_nodes": nodes} if ray else {})
    Compiler().compile(pipeline, str(output), pipeline_parameters=values)
    compact_file(output)

"""From the pipeline to the file that Kubeflow takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.cluster.node_presets import Hardware, place
from pipelines.cluster.pods import Pods
from pipelines.cluster.retry_policy import RETRY_POLICIES, set_deadline, set_retries
from pipelines.recipes.recipe import Recipe, make_recipe
from regraft_core.runtime.container_image import GPU_IMAGE, IMAGE
from regraft_core.runtime.errors import InputError


def recipe_for(values: dict[str, Any], hardware: Hardware | None) -> Recipe:
    """Return the checked recipe, with the defaults that the hardware gives.

    Raises:
        InputError: a value is unusable.
    """
    return make_recipe(**({"require_gpu": bool(hardware and hardware.has_gpu)} | values))


def image_of(hardware: Hardware | None, pods: Pods | None) -> str:
    """Return the image of all steps: the one that is asked for, or the one that fits the nodes."""
    if pods is not None and pods.image:
        return pods.image
    return GPU_IMAGE if hardware is not None and hardware.has_gpu else IMAGE


def compile_pipeline(
    values: dict[str, Any],
    output: Path,
    hardware: Hardware | None = None,
    pods: Pods | None = None,
) -> None:
    """Write the IR; `values` become the defaults of the parameters of the same names.

    With `hardware`, each step asks for its node. Where that has a GPU, `require_gpu` is on unless
    `values` say otherwise, and the image is the one with CUDA unless `pods` name another. With
    `pods`, each step gets their secrets and claims.

    Raises:
        InputError: a value is unusable, or the file's ending is not .yaml, .yml or .json.
    """
    if output.suffix not in (".yaml", ".yml", ".json"):
        raise InputError(f"output: expected a .yaml, .yml or .json file, got {output.name!r}")
    if hardware is not None and output.suffix == ".json":
        raise InputError("output: expected a .yaml file, as JSON cannot hold what nodes are asked")
    recipe = recipe_for({"sources": ("sample:digits",)} | values, hardware)
    from kfp.compiler import Compiler

    from pipelines.pipeline import make_pipeline

    with_image = replace(pods or Pods(), image=image_of(hardware, pods))

    def configure(task: Any, step: str) -> None:
        set_retries(task, RETRY_POLICIES[step])
        if hardware is not None:
            place(task, hardware.node(step))
            set_deadline(task, RETRY_POLICIES[step])
        with_image.configure(task)

    output.parent.mkdir(parents=True, exist_ok=True)
    pipeline = make_pipeline(configure, fan_out=recipe.workers > 1, cluster=True)
    Compiler().compile(pipeline, str(output), pipeline_parameters=recipe.arguments())

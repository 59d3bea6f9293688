"""From the pipeline to the file that Kubeflow takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.core.errors import InputError
from pipelines.hardware import Hardware, place
from pipelines.patience import PATIENCE, set_deadline, set_retries
from pipelines.pods import Pods
from pipelines.recipe import Recipe, make_recipe


def recipe_for(values: dict[str, Any], hardware: Hardware | None) -> Recipe:
    """Return the checked recipe, with the defaults that the hardware gives.

    Raises:
        InputError: a value is unusable.
    """
    return make_recipe(**({"require_gpu": bool(hardware and hardware.has_gpu)} | values))


def compile_pipeline(
    values: dict[str, Any],
    output: Path,
    hardware: Hardware | None = None,
    pods: Pods | None = None,
) -> None:
    """Write the IR; `values` become the defaults of the parameters of the same names.

    With `hardware`, each step asks for its node. Where that has a GPU, `require_gpu` is on unless
    `values` say otherwise. With `pods`, each step gets their image, secrets and claims.

    Raises:
        InputError: a value is unusable, or the file's ending is not .yaml, .yml or .json.
    """
    if output.suffix not in (".yaml", ".yml", ".json"):
        raise InputError(f"output: expected a .yaml, .yml or .json file, got {output.name!r}")
    if hardware is not None and output.suffix == ".json":
        raise InputError("output: expected a .yaml file, as JSON cannot hold what nodes are asked")
    recipe = recipe_for({"sources": ("sample:digits",)} | values, hardware)
    from kfp.compiler import Compiler

    from pipelines.transfer import make_transfer

    def configure(task: Any, step: str) -> None:
        set_retries(task, PATIENCE[step])
        if hardware is not None:
            place(task, hardware.node(step))
            set_deadline(task, PATIENCE[step])
        if pods is not None:
            pods.configure(task)

    output.parent.mkdir(parents=True, exist_ok=True)
    transfer = make_transfer(configure, concluded=True)
    Compiler().compile(transfer, str(output), pipeline_parameters=recipe.arguments())

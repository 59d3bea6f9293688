"""From the pipeline to the file that Kubeflow takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.core.errors import InputError
from pipelines.recipe import make_recipe


def compile_pipeline(values: dict[str, Any], output: Path) -> None:
    """Write the IR; `values` become the defaults of the parameters of the same names.

    Raises:
        InputError: a value is unusable, or the file's ending is not .yaml, .yml or .json.
    """
    if output.suffix not in (".yaml", ".yml", ".json"):
        raise InputError(f"output: expected a .yaml, .yml or .json file, got {output.name!r}")
    recipe = make_recipe(**({"sources": ("sample:digits",)} | values))
    from kfp.compiler import Compiler

    from pipelines.transfer import transfer

    output.parent.mkdir(parents=True, exist_ok=True)
    Compiler().compile(transfer, str(output), pipeline_parameters=recipe.arguments())

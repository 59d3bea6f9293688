"""Logs a local run to a tracking server, after its outcome is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.recipes.recipe import Recipe
from regraft_core.formats.published_versions import read_labels_of
from regraft_core.runtime.errors import RegraftError
from regraft_core.tracking.mlflow_log import MlflowTarget, log_to_mlflow
from regraft_core.tracking.tracked_run import (
    TrackedRun,
    TrackedVersion,
    as_parameters,
    read_details,
)

if TYPE_CHECKING:
    from pipelines.local.run import Summary


def log_run(recipe: Recipe, out: Path, summary: Summary) -> str:
    """Log a run to the server of `recipe.mlflow`; return a line that reports it. Never raises."""
    try:
        run = tracked_run(recipe, out, summary)
    except RegraftError as error:
        return f"warning: mlflow: the run is complete but not logged: {error}"
    return log_to_mlflow(run, MlflowTarget(recipe.mlflow))


def tracked_run(recipe: Recipe, out: Path, summary: Summary) -> TrackedRun:
    """Return what to log of a run.

    Raises:
        InputError: what it wrote cannot be read.
    """
    details = read_details(summary.evaluation)
    timings = {f"seconds_{step}": seconds for step, seconds in summary.timings.items()}
    version = None
    if summary.published is not None and summary.model_version is not None:
        labels = read_labels_of(f"{recipe.destination.rstrip('/')}/{recipe.model_name}")
        version = TrackedVersion(
            recipe.model_name, summary.model_version, summary.published, labels
        )
    parameters = details.parameters | as_parameters(summary.recipe)
    return TrackedRun(
        experiment=recipe.model_name,
        name=out.name,
        verdict=summary.verdict,
        metrics=summary.metrics | timings,
        details=details.model_copy(update={"parameters": parameters}),
        report=Path(summary.report),
        version=version,
    )

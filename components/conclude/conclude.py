"""The last step of a run on a cluster: reports how it ended."""

from __future__ import annotations

from regraft_core.formats.published_versions import read_labels_of
from regraft_core.formats.run_outcome import main_metric, read_outcome
from regraft_core.kuberay.kubernetes_api import KubernetesApi
from regraft_core.kuberay.lifecycle import remove_cluster
from regraft_core.kuberay.ray_cluster import cluster_name
from regraft_core.runtime.errors import RegraftError
from regraft_core.runtime.printable import markdown_text, without_markdown
from regraft_core.tracking.mlflow_log import MlflowTarget, log_to_mlflow
from regraft_core.tracking.tracked_run import TrackedRun, TrackedVersion

RELEASE = "`export`, `verify` or `publish`"


def conclude(run_id: str, destination: str, model_name: str) -> str:
    """Return how the run ended, in Markdown: published or not, rejected, or no verdict.

    It reads the record that the run wrote at its destination. The state that Kubeflow Pipelines
    passes to a step that runs after all others is that of its metadata store: `RUNNING` or
    `COMPLETE` however the run ended, so it is not used.

    Args:
        run_id: ID of the run.
        destination: folder or URI to which the run publishes.
        model_name: name of the model at the destination.

    Raises:
        InputError: the destination cannot be read.
    """
    outcome = read_outcome(destination, model_name, run_id)
    location = f"{destination.rstrip('/')}/{model_name}"
    if outcome is None:
        return (
            "# No verdict\n\nA step failed, or the run was canceled, before it could record a "
            f"verdict at `{location}`; the log of the first failed step shows the cause.\n"
        )
    name = main_metric(outcome.metrics)
    score = outcome.metrics.get(name)
    summary = f"strategy {outcome.strategy}" + (
        "" if score is None else f", {name.replace('_', ' ')} {score:.4f}"
    )
    if outcome.accepted_only:
        return (
            f"# Accepted, not published\n\nThe gate accepted the model, but {RELEASE} failed, or "
            f"the run was canceled. No version was added at `{location}`: {summary}. The log of "
            "the first failed step shows the cause.\n"
        )
    if outcome.verdict == "accepted" and not outcome.added:
        return (
            f"# Accepted, no new version\n\n`{outcome.path}` has this model already, so `publish` "
            f"added no version: {summary}.\n"
        )
    if outcome.verdict == "accepted":
        return f"# Published\n\n`{outcome.path}`: {summary}.\n"
    failed = "".join(
        f"- {markdown_text(f'{check.name}: expected {check.expected}, got {check.received}')}\n"
        for check in outcome.checks
        if not check.passed
    )
    return f"# Rejected\n\nNo version was added at `{location}`: {summary}.\n\n{failed}"


def end_ray(api: KubernetesApi, run_id: str) -> str:
    """Remove the Ray cluster of a run; return a line that reports it.

    Raises:
        InputError: no permission.
        UnavailableError: the API server does not respond.
    """
    name = cluster_name(run_id)
    existed = remove_cluster(api, name)
    return f"conclude: {'removed' if existed else 'found no'} Ray cluster {name}"


def log_outcome(run_id: str, destination: str, model_name: str, target: MlflowTarget) -> str:
    """Log the run to a tracking server; return a line that reports it. Never raises an error."""
    try:
        run = _tracked_run(run_id, destination, model_name)
    except RegraftError as error:
        return f"warning: mlflow: the run is complete but not logged: {error}"
    return "mlflow: nothing to log without a verdict" if run is None else log_to_mlflow(run, target)


def _tracked_run(run_id: str, destination: str, model_name: str) -> TrackedRun | None:
    """Return what a tracking server records of the run; None without a verdict.

    Raises:
        InputError: the destination cannot be read.
    """
    outcome = read_outcome(destination, model_name, run_id)
    if outcome is None:
        return None
    version = None
    if outcome.version is not None:
        labels = read_labels_of(f"{destination.rstrip('/')}/{model_name}")
        version = TrackedVersion(model_name, outcome.version, outcome.path, labels)
    return TrackedRun(
        experiment=model_name,
        name=run_id,
        verdict=outcome.verdict,
        metrics=outcome.metrics,
        details=outcome.details,
        version=version,
    )


def as_line(text: str) -> str:
    """Return a text with a title in one line; `regraft submit --wait` finds it in the log."""
    title, _, rest = text.partition("\n")
    return f"{title}: {without_markdown(' '.join(rest.split()))}"

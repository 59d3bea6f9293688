"""The last step of a run on a cluster: reports how it ended."""

from __future__ import annotations

from regraft_core.formats.run_outcome import read_outcome

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
    accuracy = outcome.metrics.get("test_accuracy")
    summary = f"strategy {outcome.strategy}" + (
        "" if accuracy is None else f", test accuracy {accuracy:.4f}"
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
        f"- {check.name}: expected {check.expected}, got {check.received}\n"
        for check in outcome.checks
        if not check.passed
    )
    return f"# Rejected\n\nNo version was added at `{location}`: {summary}.\n\n{failed}"


def as_line(text: str) -> str:
    """Return a text with a title in one line; `regraft submit --wait` finds it in the log."""
    title, _, rest = text.partition("\n")
    return f"{title}: {' '.join(rest.split())}"

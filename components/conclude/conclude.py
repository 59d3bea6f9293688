"""The last step of a run on a cluster: reports how it ended, whatever happened before."""

from __future__ import annotations

from regraft_core.formats.run_outcome import read_outcome


def conclude(run_id: str, destination: str, model_name: str) -> str:
    """Return how the run ended, in Markdown: published, rejected, or stopped before a verdict.

    It reads what the run left at its destination. The state that Kubeflow Pipelines hands to a step
    that runs after all others is that of its metadata store, `RUNNING` or `COMPLETE` for any end of
    a run, so it is not asked.

    Args:
        run_id: ID of the run.
        destination: Folder or bucket that the run publishes to.
        model_name: The model's name there.

    Raises:
        InputError: the destination cannot be read.
    """
    outcome = read_outcome(destination, model_name, run_id)
    place = f"{destination.rstrip('/')}/{model_name}"
    if outcome is None:
        return (
            "# No verdict\n\nA step failed, or the run was canceled, before the gate decided or "
            f"before its decision was carried out. This run published nothing at `{place}`; the "
            "log of the first failed step names the cause.\n"
        )
    accuracy = outcome.metrics.get("test_accuracy")
    shown = f"strategy {outcome.strategy}" + (
        "" if accuracy is None else f", test accuracy {accuracy:.4f}"
    )
    if outcome.verdict == "accepted":
        return f"# Published\n\n`{outcome.path}`: {shown}.\n"
    failed = "".join(
        f"- {check.name}: expected {check.expected}, got {check.received}\n"
        for check in outcome.checks
        if not check.passed
    )
    return f"# Rejected\n\nNo version was added at `{place}`: {shown}.\n\n{failed}"

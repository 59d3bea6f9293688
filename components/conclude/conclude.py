"""The last step of a run on a cluster: reports how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from regraft_core.formats.manifests import SavedModelManifest
from regraft_core.runtime.errors import InputError


@dataclass(frozen=True)
class RunStatus:
    """Status of a run in kfp: `SUCCEEDED`, `FAILED` or `CANCELLED`, and the first error."""

    state: str
    error: str = ""


def conclude(status: RunStatus, destination: str, model_name: str, started: str) -> str:
    """Return how the run ended, in Markdown: published, rejected, failed or canceled.

    Args:
        status: of the run.
        destination: folder or URI to which the run publishes.
        model_name: name of the model at the destination.
        started: time at which the run was created, in ISO 8601.
    """
    if status.state != "SUCCEEDED":
        cause = (
            " ".join(status.error.split()) or "no cause reported; see the log of the failed step"
        )
        return f"# {status.state.capitalize()}\n\n{cause}\n\nThis run published nothing.\n"
    location = f"{destination.rstrip('/')}/{model_name}"
    if "://" in destination:
        return (f"# Done\n\nAn accepted model is the latest version at `{location}`; "
                "the steps after the gate were skipped if it was rejected.\n")  # fmt: skip
    latest = _published_since(Path(location), started)
    if latest is None:
        return (f"# Rejected\n\nNo version was added at `{location}`. "
                "The report of `evaluate` lists the failed checks.\n")  # fmt: skip
    model = SavedModelManifest.read(latest)
    accuracy = model.metrics.get("test_accuracy")
    text = "" if accuracy is None else f", test accuracy {accuracy:.4f}"
    return f"# Published\n\n`{latest}`: strategy {model.strategy}{text}.\n"


def _published_since(folder: Path, started: str) -> Path | None:
    """Return the latest version if it is not older than the run."""
    try:
        since = datetime.fromisoformat(started.replace("Z", "+00:00")).timestamp()
    except ValueError:
        raise InputError(f"started: expected a time in ISO 8601, got {started!r}") from None
    versions = [path for path in folder.glob("*") if path.name.isdigit()]
    latest = max(versions, key=lambda path: int(path.name), default=None)
    return latest if latest and latest.stat().st_mtime >= since else None

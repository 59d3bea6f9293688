"""The last step of a run on a cluster: says how it ended, whatever happened before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from regraft_core.formats.manifests import SavedModelManifest
from regraft_core.runtime.errors import InputError


@dataclass(frozen=True)
class RunStatus:
    """What kfp says of the run: `SUCCEEDED`, `FAILED` or `CANCELLED`, and of the first error."""

    state: str
    error: str = ""


def conclude(ending: RunStatus, destination: str, model_name: str, started: str) -> str:
    """Return how the run ended, in Markdown: published, rejected, failed or cancelled.

    Args:
        ending: what kfp says.
        destination: where the run publishes to.
        model_name: the model's name there.
        started: when the run was created, in ISO 8601.
    """
    if ending.state != "SUCCEEDED":
        cause = " ".join(ending.error.split()) or "kfp gives no cause; see the log of the red step"
        return f"# {ending.state.capitalize()}\n\n{cause}\n\nNothing was published by this run.\n"
    place = f"{destination.rstrip('/')}/{model_name}"
    if "://" in destination:
        return (f"# Done\n\nAn accepted model is the newest version at `{place}`; "
                "the steps after the gate were skipped if it was rejected.\n")  # fmt: skip
    newest = _published_since(Path(place), started)
    if newest is None:
        return (f"# Rejected\n\nNo version was added at `{place}`. "
                "The report of `evaluate` names the reasons.\n")  # fmt: skip
    model = SavedModelManifest.read(newest)
    accuracy = model.metrics.get("test_accuracy")
    shown = "" if accuracy is None else f", test accuracy {accuracy:.4f}"
    return f"# Published\n\n`{newest}`: strategy {model.strategy}{shown}.\n"


def _published_since(folder: Path, started: str) -> Path | None:
    """Return the newest version if it is not older than the run."""
    try:
        since = datetime.fromisoformat(started.replace("Z", "+00:00")).timestamp()
    except ValueError:
        raise InputError(f"started: expected a time in ISO 8601, got {started!r}") from None
    versions = [path for path in folder.glob("*") if path.name.isdigit()]
    newest = max(versions, key=lambda path: int(path.name), default=None)
    return newest if newest and newest.stat().st_mtime >= since else None

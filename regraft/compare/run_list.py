"""`regraft runs`: the local runs in a folder, from what each has written."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.local.run import LOG_FILE, STEPS_FOLDER
from regraft.training_run import Run
from regraft_core.formats.options.option_types import MACHINE_OPTIONS
from regraft_core.formats.run_outcome import main_metric
from regraft_core.runtime.errors import InputError

SUMMARY_FILE = "summary.json"
# Where a run reads and writes, which its results do not depend on.
LOCATIONS = frozenset(
    {"destination", "download_cache", "champion", "mlflow", "model_registry", *MACHINE_OPTIONS}
)
UNFINISHED, DAMAGED = "unfinished", "damaged"


@dataclass(frozen=True)
class RunRow:
    """One run of a list; values that are not known are None.

    Attributes:
        name: its folder, relative to the listed one.
        verdict: `accepted`, `rejected`, `unfinished` (no summary) or `damaged`.
        version: the published version.
        strategy: of the chosen candidate.
        metric: `test_accuracy`, or with several labels an image `mean_average_precision`.
        accuracy: the value of the metric on the test split.
        accuracy_low: lower bound of its 95% interval.
        accuracy_high: upper bound.
        seconds: of all steps.
        model_mb: size of the model's file.
        latency_ms: from an image's bytes to its prediction.
        dataset_digest: of the dataset.
        options: that are not the same in all finished runs of the list.
    """

    name: str
    verdict: str
    version: int | None = None
    strategy: str | None = None
    metric: str | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    seconds: float | None = None
    model_mb: float | None = None
    latency_ms: float | None = None
    dataset_digest: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the row as values of JSON."""
        return asdict(self)


def list_runs(folder: str | os.PathLike[str]) -> list[RunRow]:
    """Return the runs in a folder and in the folders of it, the oldest first.

    Raises:
        InputError: there is none.
    """
    root = Path(folder)
    found = sorted(_run_folders(root), key=lambda one: (one.stat().st_mtime, one.name))
    if not found:
        raise InputError(f"expected runs in {root}, found none; `regraft run` makes one")
    finished: dict[Path, Run] = {}
    rows = {}
    for run in found:
        name = run.relative_to(root).as_posix() if run != root else run.resolve().name
        if not (run / SUMMARY_FILE).is_file():
            rows[run] = RunRow(name, UNFINISHED)
            continue
        try:
            finished[run] = Run.read(run)
        except InputError:
            rows[run] = RunRow(name, DAMAGED)
            continue
        rows[run] = RunRow(name, "")
    differing = differing_options([options_of(run) for run in finished.values()])
    for path, options in zip(finished, differing, strict=True):
        rows[path] = _row(rows[path].name, finished[path], options)
    return [rows[path] for path in found]


def options_of(run: Run) -> dict[str, Any]:
    """Return the options of a run that its results may depend on, except defaults."""
    given: dict[str, Any] = run.summary["recipe"]
    return {name: value for name, value in given.items() if name not in LOCATIONS}


def differing_options(options: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return of each run the options that are not the same in all; None stands for a default."""
    names = sorted({name for one in options for name in one})
    values = {name: [one.get(name) for one in options] for name in names}
    differing = [name for name in names if any(v != values[name][0] for v in values[name])]
    return [{name: one.get(name) for name in differing} for one in options]


def _run_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of runs: `root` itself, or those in it, or in the folders there."""
    if _is_run(root):
        yield root
        return
    for pattern in ("*", "*/*"):
        for path in root.glob(pattern):
            if _is_run(path) and not _is_run(path.parent):
                yield path


def _is_run(path: Path) -> bool:
    started = (path / LOG_FILE).is_file() and (path / STEPS_FOLDER).is_dir()
    return (path / SUMMARY_FILE).is_file() or started


def _row(name: str, run: Run, options: dict[str, Any]) -> RunRow:
    def metric(key: str) -> float | None:
        value = run.metrics.get(key)
        return value if value is not None and math.isfinite(value) else None

    main = main_metric(run.metrics)
    return RunRow(
        name=name,
        metric=main,
        verdict=run.summary["verdict"],
        version=run.version,
        strategy=run.strategy,
        accuracy=metric(main),
        accuracy_low=metric(f"{main}_low"),
        accuracy_high=metric(f"{main}_high"),
        seconds=sum(run.timings.values()),
        model_mb=metric("model_mb"),
        latency_ms=metric("latency_ms"),
        dataset_digest=run.summary["dataset_digest"],
        options=options,
    )

"""A run on this machine: the same pipeline, executed by kfp's local runner."""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pipelines.local.progress import Progress
from pipelines.local.runners import code_of, in_containers, make_runner
from pipelines.recipes.recipe import Recipe
from regraft_core.formats.manifest_storage import Record, write_text
from regraft_core.formats.manifests import (
    Check,
    DatasetManifest,
    EvaluationManifest,
    PublishedManifest,
)
from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.step import LIVE_MARK, LIVE_VARIABLE, PROGRESS_MARK

_ERROR = re.compile(r"\[regraft:error:(\d+)\] (.*)")
_START = re.compile(r"(\w+): start")
_DONE = re.compile(r"(\w+): done in ([\d.]+) s")
STEPS_FOLDER = "steps"


class Summary(Record):
    """`summary.json`: how a local run ended."""

    verdict: Literal["accepted", "rejected"]
    reasons: list[Check]
    strategy: str
    model_version: int | None
    saved_model: str | None
    published: str | None
    metrics: dict[str, float]
    parity: dict[str, float]
    timings: dict[str, float]
    report: str
    dataset_digest: str
    dataset: str
    evaluation: str


class StepError(RegraftError):
    """A step of the run failed; carries the exit code that the step ended with."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _LogFilter(io.TextIOBase):
    """Takes all that kfp prints: into the log file, and the marked lines to those who listen.

    What is told for the moment only stays out of the log.
    """

    def __init__(
        self, log: io.TextIOBase, line: Callable[[str], None], now: Callable[[str], None]
    ) -> None:
        self._log, self._listener, self._now, self._line = log, line, now, ""
        self.error: tuple[int, str] | None = None
        self.timings: dict[str, float] = {}
        self._running: Counter[str] = Counter()

    @property
    def unfinished(self) -> list[str]:
        """The steps that started and neither ended nor failed in a line of their own."""
        return sorted(self._running.elements())

    def write(self, text: str) -> int:
        *whole, self._line = (self._line + text).split("\n")
        for line in whole:
            if LIVE_MARK in line:
                self._now(line.split(LIVE_MARK, 1)[1])
            else:
                self._log.write(f"{line}\n")
                self._take(line)
        return len(text)

    def flush(self) -> None:
        if not self._log.closed:
            self._log.flush()

    def finish(self) -> None:
        """Put into the log what was not ended by a new line."""
        self._log.write(self._line)
        self._line = ""

    def _take(self, line: str) -> None:
        if match := _ERROR.search(line):
            self.error = self.error or (int(match[1]), match[2])
        elif PROGRESS_MARK in line:
            said = line.split(PROGRESS_MARK, 1)[1]
            if match := _START.fullmatch(said):
                self._running[match[1]] += 1
            elif match := _DONE.fullmatch(said):
                self._running[match[1]] -= 1
                self.timings[match[1]] = self.timings.get(match[1], 0.0) + float(match[2])
            self._listener(said)


def run_locally(
    recipe: Recipe,
    out: str | os.PathLike[str],
    listener: Callable[[str], None] | None = None,
    runner: str = "subprocess",
) -> Summary:
    """Run the whole pipeline on this machine and write `<out>/summary.json`.

    `runner` is `subprocess`, or `docker` for containers of the image. Steps leave their artifacts
    under `<out>/steps`, their output in `<out>/run.log`. `listener` gets each line of progress; it
    must not print to standard output, which belongs to the log.

    A step that an earlier run into `out` has done is not run again, unless its inputs or
    Regraft's code have changed since.

    Raises:
        InputError: `out` cannot be written to.
        StepError: a step failed; its one line and its exit code.
    """
    out = Path(out).absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "summary.json").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"out: cannot write to the folder {out}: {error.strerror}") from error
    if runner == "docker":
        recipe = in_containers(recipe)
    outputs, timings = _execute(recipe, out, listener, runner)
    summary = _summarize(out, outputs, timings)
    write_text(out / "summary.json", summary.model_dump_json(indent=2) + "\n")
    return summary


def _execute(
    recipe: Recipe, out: Path, listener: Callable[[str], None] | None, runner: str
) -> tuple[dict[str, Any], dict[str, float]]:
    from kfp import local

    from pipelines.pipeline import pipeline

    steps = out / STEPS_FOLDER
    local.init(
        make_runner(runner, recipe, out),
        pipeline_root=str(steps),
        enable_caching=True,
        cache_root=str(steps / ".cache" / code_of(runner)[:16]),
    )
    with open(out / "run.log", "a", encoding="utf-8") as log:
        progress = Progress()
        captured = _LogFilter(log, listener or progress.line, progress.now)
        variables = {"TF_CPP_MIN_LOG_LEVEL": "2"}  # start-up notes stay out of the log
        if progress.live and listener is None:
            variables[LIVE_VARIABLE] = "1"
        try:
            with contextlib.redirect_stdout(captured), own_output(), _lent(variables):
                task = pipeline(**recipe.arguments())
        except (RuntimeError, ValueError) as error:  # kfp misses the output of what died at once
            if captured.error:
                code, line = captured.error
                raise StepError(line, code) from None
            raise StepError(f"{error} See {out / 'run.log'}.") from error
        finally:
            captured.finish()
            progress.end()
        # kfp may report success for a container that failed as soon as it had started.
        if captured.error:
            code, line = captured.error
            raise StepError(line, code)
        if captured.unfinished:
            raise StepError(f"{', '.join(captured.unfinished)}: started and never done; "
                            f"see {out / 'run.log'}")  # fmt: skip
    return dict(task.outputs), captured.timings


@contextlib.contextmanager
def own_output() -> Iterator[None]:
    """Put `print` and the root logger back as they were.

    kfp changes both for each step and restores what it found; where steps overlap, that is another
    step's, which would stay: `print` indented, and a handler that writes to a closed log.
    """
    plain, root = builtins.print, logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        builtins.print = plain
        root.handlers[:] = handlers
        root.setLevel(level)


@contextlib.contextmanager
def _lent(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the steps, but those that the user has set."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _summarize(out: Path, outputs: dict[str, Any], timings: dict[str, float]) -> Summary:
    """Gather the summary from the manifests that the run left.

    Raises:
        StepError: an output is missing although kfp reports success.
    """
    try:
        dataset, evaluation = (Path(outputs[name].path) for name in ("dataset", "evaluation"))
        data = DatasetManifest.read(dataset)
        result = EvaluationManifest.read(evaluation)
        published = None
        if result.verdict == "accepted":
            this_run = max((out / STEPS_FOLDER).glob("regraft-*"))  # named by the time
            published = PublishedManifest.read(this_run / "publish" / "published")
    except (KeyError, ValueError, InputError) as error:
        raise StepError(f"a step left no output: {error}; see {out / 'run.log'}") from error
    return Summary(
        verdict=result.verdict,
        reasons=result.checks,
        strategy=result.strategy,
        model_version=published.version if published else None,
        saved_model=published.path if published else None,
        published=published.path if published else None,
        metrics=result.metrics,
        parity=published.parity if published else {},
        timings=timings,
        report=str(evaluation / "report.html"),
        dataset_digest=data.digest,
        dataset=str(dataset),
        evaluation=str(evaluation),
    )


def read_summary(out: str | os.PathLike[str]) -> Summary:
    """Read `<out>/summary.json`.

    Raises:
        InputError: there is none, or it is damaged.
    """
    path = Path(out) / "summary.json"
    try:
        return Summary.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"expected the summary of a run at {path}: {error}") from error

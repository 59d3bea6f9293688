"""A run on this machine: the pipeline, executed by kfp's local runner."""

from __future__ import annotations

import builtins
import contextlib
import fcntl
import io
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

from pydantic import Field

from pipelines.local.environment import set_variables
from pipelines.local.progress import Progress
from pipelines.local.ray_runs import check_ray, using_ray
from pipelines.local.runners import code_digest_of, make_runner, with_absolute_paths
from pipelines.local.step_events import StepEvents, reading_events
from pipelines.local.step_processes import steps_by_forks
from pipelines.local.tracking import log_run
from pipelines.recipes.recipe import Recipe
from regraft_core.formats.manifest_storage import Record, write_text
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import Check, EvaluationManifest
from regraft_core.formats.manifests.published import PublishedManifest
from regraft_core.runtime.addresses import redact_all, redact_text
from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.out_of_memory import describe_out_of_memory, is_out_of_memory_text
from regraft_core.runtime.printable import one_line, without_colors
from regraft_core.runtime.safe_files import lock_file, refuse_link
from regraft_core.runtime.step_reports import EVENTS_VARIABLE

STEPS_FOLDER, STORE_FOLDER, LOG_FILE, RUN_LOCK = "steps", "by_content", "run.log", ".run.lock"
# In the messages of kfp's local runner, and the last line of a traceback.
_FAILED_TASK = re.compile(r"Inner task failed: '([^']+)'")
_ERROR_LINE = re.compile(r"(\S+: )?[\w.]*(Error|Exception)\b")


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
    recipe: dict[str, Any] = Field(
        default_factory=dict,
        description="Options other than the defaults, without secrets in URLs.",
    )


class StepError(RegraftError):
    """A step of the run failed; `exit_code` is the step's."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run_locally(
    recipe: Recipe,
    out: str | os.PathLike[str],
    listener: Callable[[str], None] | None = None,
    runner: str = "subprocess",
    ray: str = "",
) -> Summary:
    """Run the whole pipeline on this machine and write `<out>/summary.json`.

    The steps' outputs go to `<out>/steps`, with their content in a store there unless the recipe
    sets `work_dir`, and what they print to `<out>/run.log`. A step that an earlier run into `out`
    has finished is not run again, unless its inputs or Regraft's code have changed.

    Args:
        recipe: all options of the run.
        out: the folder of the run.
        listener: gets each line of progress; by default they go to standard error. It must not
            print to standard output, which is redirected to the log.
        runner: `subprocess`, or `docker` for the container image.
        ray: `local`, `auto` or `ray://HOST:PORT` of the Ray cluster that ingest, extraction,
            training of heads and fine-tuning use; "" for none.

    Raises:
        InputError: `out` cannot be written to, another run is using it, or `ray` is not usable.
        StepError: a step failed; it has the step's message and exit code.
    """
    check_ray(ray, recipe, runner)
    out = Path(out).absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out: cannot write to the folder {out}: {error.strerror}") from error
    with _running_alone(out):
        return _run(recipe, out, listener, runner, ray)


@contextlib.contextmanager
def _running_alone(out: Path) -> Iterator[None]:
    """Hold the lock of a run's folder; the system releases it with the process at the latest."""
    with contextlib.ExitStack() as opened:
        try:
            lock = opened.enter_context(lock_file(out / RUN_LOCK))
        except OSError as error:
            raise InputError(f"out: cannot write to the folder {out}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"out: expected a folder of one run, but another run is using {out}; wait for it, "
                "or choose another --out"
            ) from None
        yield


def _run(
    recipe: Recipe, out: Path, listener: Callable[[str], None] | None, runner: str, ray: str
) -> Summary:
    try:
        (out / "summary.json").unlink(missing_ok=True)
        refuse_link(out / LOG_FILE)
        (out / LOG_FILE).touch()
    except OSError as error:
        raise InputError(f"out: cannot write to the folder {out}: {error.strerror}") from error
    if not recipe.work_dir:
        store = out / STEPS_FOLDER / STORE_FOLDER
        recipe = recipe.model_copy(update={"work_dir": str(store)})
    if runner == "docker":
        recipe = with_absolute_paths(recipe)
    given = redact_all(recipe.model_dump(mode="json", exclude_defaults=True))
    outputs, timings = _execute(recipe, out, listener, runner, ray)
    summary = _summarize(out, outputs, timings).model_copy(update={"recipe": given})
    write_text(out / "summary.json", summary.model_dump_json(indent=2) + "\n")
    if recipe.mlflow:
        (listener or Progress().line)(log_run(recipe, out, summary))
    return summary


def _execute(
    recipe: Recipe, out: Path, listener: Callable[[str], None] | None, runner: str, ray: str
) -> tuple[dict[str, Any], dict[str, float]]:
    """Run the pipeline; return the artifacts that it leaves, and each step's seconds."""
    from kfp import local

    from pipelines.pipeline import make_pipeline

    progress = Progress()
    live = progress.live if progress.is_live and listener is None else None
    events = StepEvents(listener or progress.line, live)
    outputs: dict[str, Any] = {}
    failure: Exception | None = None
    log_file, steps = out / LOG_FILE, out / STEPS_FOLDER
    logged_before = log_file.stat().st_size
    with (
        open(log_file, "a", encoding="utf-8", errors="backslashreplace", buffering=1) as log,
        contextlib.closing(progress),
        reading_events(out, events) as events_file,
        # kfp would make one and leave it; no step uses it.
        tempfile.TemporaryDirectory(prefix="regraft-workspace-") as workspace,
    ):
        own_runner = make_runner(runner, recipe, out, events_file)
        cache = steps / ".cache" / code_digest_of(runner)[:16]
        try:
            with (
                contextlib.redirect_stdout(RedactedLog(log)),
                without_traces(),
                using_ray(ray),
                _environment(events_file),
                steps_by_forks(log),
            ):
                local.init(
                    own_runner, str(steps), workspace, enable_caching=True, cache_root=str(cache)
                )
                pipeline = make_pipeline(fan_out=recipe.workers > 1)
                outputs = dict(pipeline(**recipe.arguments()).outputs)
        except (RuntimeError, ValueError) as error:  # kfp's, for a step that failed
            failure = error
    # kfp may also report success for a container that failed as soon as it had started.
    if failed := failed_step(events, log_file, logged_before):
        raise failed
    if failure:
        reason = _why_not_started(str(failure), log_file, logged_before)
        raise StepError(f"{reason}; see {log_file}") from failure
    return outputs, events.timings


def failed_step(events: StepEvents, log_file: Path, start: int) -> StepError | None:
    """Return the error of the step that failed, in one line; None if the events show none.

    Args:
        events: what the steps have reported.
        log_file, start: as for `_why_ended`.
    """
    if events.error:
        code, message = events.error
        return StepError(f"{message}; see {log_file}", code)
    if events.unfinished:
        reason = _why_ended(log_file, start)
        return StepError(f"{', '.join(events.unfinished)}: {reason}; see {log_file}")
    return None


class RedactedLog(io.TextIOBase):
    """Writes to a log, with URLs without secrets.

    kfp logs the parameters of every step, and steps print what libraries report.
    """

    def __init__(self, log: TextIO) -> None:
        self._log = log

    def write(self, text: str) -> int:
        """Write a text; a URL in it is complete, because kfp writes whole lines."""
        self._log.write(redact_text(text))
        return len(text)

    def flush(self) -> None:
        """Flush the log."""
        self._log.flush()


def _why_ended(log_file: Path, start: int) -> str:
    """Return why the process of a step ended early, if its log has the reason.

    CUDA and TensorFlow can end a process without an exception.

    Args:
        log_file: the log of the run.
        start: where the log of this attempt begins.
    """
    lines = _logged_lines(log_file, start)
    if found := [line for line in lines if is_out_of_memory_text(line)]:
        return describe_out_of_memory(found[-1])
    if fatal := [line for line in lines if line.startswith("Fatal Python error: ")]:
        return f"its process ended early ({fatal[-1]})"
    return "its process was killed or ended early, perhaps because the memory was exhausted"


def _why_not_started(failure: str, log_file: Path, start: int) -> str:
    """Return why a step failed that did not report its start.

    Args:
        failure: the message of kfp; it names the task, with colors for a terminal.
        log_file, start: as for `_why_ended`.
    """
    task = _FAILED_TASK.search(without_colors(failure))
    if task is None:
        return one_line(failure).rstrip(".")
    errors = [line for line in _logged_lines(log_file, start) if _ERROR_LINE.match(line)]
    cause = one_line(errors[-1])[:300] if errors else "no error in the log"
    return f"{task[1].replace('-', '_')}: failed before it started: {cause}"


def _logged_lines(log_file: Path, start: int) -> list[str]:
    with open(log_file, encoding="utf-8", errors="replace") as log:
        log.seek(start)
        return [line.strip() for line in log]


@contextlib.contextmanager
def without_traces() -> Iterator[None]:
    """Restore at the end what kfp changes in the process: its configuration, `print`, logging.

    `local.init` replaces the configuration for good. kfp replaces `print` and the root logger for
    each step and restores what it found. If steps overlap, that belongs to another step and would
    stay: an indented `print`, and a handler that writes to a closed log.
    """
    from kfp.local.config import LocalExecutionConfig

    configuration = LocalExecutionConfig.instance
    plain, root = builtins.print, logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        LocalExecutionConfig.instance = configuration
        builtins.print = plain
        root.handlers[:] = handlers
        root.setLevel(level)


@contextlib.contextmanager
def _environment(events_file: Path) -> Iterator[None]:
    """Set the environment variables of the steps.

    With a safe path, Python does not import modules from the current folder, where a folder of the
    user's may be called `components` or `serving`.
    """
    variables = {
        EVENTS_VARIABLE: str(events_file),
        "PYTHONSAFEPATH": "1",
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
    }
    with set_variables(variables):
        yield


def _summarize(out: Path, outputs: dict[str, Any], timings: dict[str, float]) -> Summary:
    """Return the summary, from the manifests of the run.

    Raises:
        StepError: an output is missing although kfp reported success.
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
        raise StepError(f"a step wrote no output: {error}; see {out / LOG_FILE}") from error
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
        InputError: the file does not exist or is damaged.
    """
    path = Path(out) / "summary.json"
    try:
        return Summary.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(f"expected the summary of a run at {path}: {error}") from error

"""`regraft.run`: the pipeline on this machine, as `regraft run` runs it, and its result."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO, cast

from pipelines.local.prepare_recipe import prepare_recipe
from pipelines.local.progress import Progress
from pipelines.local.run import STEPS_FOLDER, StepError, Summary, read_summary, run_locally
from pipelines.recipes.option_hints import unknown_option
from pipelines.recipes.recipe import RECIPE_FIELDS
from pipelines.recipes.recipe_choice import RunOptions, choose_options
from pipelines.recipes.recipe_draft import BACKBONE
from regraft_core.formats.manifests.evaluation import Check, EvaluationManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import is_store_uri

Source = str | os.PathLike[str]


@dataclass(frozen=True)
class Run(os.PathLike[str]):
    """The result of a run. A `Run` is also the path of its folder.

    Attributes:
        folder: Folder of the run.
        accepted: True if the gate accepted the model, which is then published.
        reasons: The checks that failed; empty if the model was accepted.
        checks: All checks of the gate, with what each expected and received.
        metrics: Metrics on the test split by name, such as `test_accuracy`.
        strategy: Strategy of the chosen candidate: `head`, `top` or `full`.
        version: Number of the published version, or None.
        published: Folder or URL of the published version, or None.
        model_dir: Folder of the model that `regraft.load` accepts: the published version, or the
            chosen candidate if the model was rejected. None if it is not on this machine.
        report: The HTML report.
        dataset: Folder of the dataset.
        timings: Seconds by step.
        summary: Content of `summary.json`.

    Example:
        >>> run = regraft.Run.read("runs/pets")
        >>> run.accepted, run.metrics["test_accuracy"]
        (True, 0.942)
    """

    folder: Path
    accepted: bool
    reasons: tuple[Check, ...]
    checks: tuple[Check, ...] = field(repr=False)
    metrics: dict[str, float] = field(repr=False)
    strategy: str
    version: int | None
    published: str | None
    model_dir: Path | None
    report: Path
    dataset: Path = field(repr=False)
    timings: dict[str, float] = field(repr=False)
    summary: dict[str, Any] = field(repr=False)

    def __fspath__(self) -> str:
        return str(self.folder)

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Run:
        """Read the result of an earlier run; its folder may have been moved.

        Args:
            folder: Folder of the run, the `out` of `regraft.run`.

        Returns:
            The result.

        Raises:
            InputError: the folder has no `summary.json`, or it is damaged.

        Example:
            >>> regraft.Run.read("runs/pets").version
            1
        """
        folder = Path(folder).absolute()
        return _result(folder, _moved(read_summary(folder), folder))


def run(
    source: Source | Iterable[Source] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    recipe: str | os.PathLike[str] | None = None,
    runner: Literal["subprocess", "docker"] = "subprocess",
    ray: str = "",
    progress: Callable[[str], None] | None = None,
    **options: Any,
) -> Run:
    """Run the whole pipeline on this machine: train, evaluate, export, verify and publish a model.

    A model that the gate rejects is not an error: the result's `accepted` is False. A run into the
    same `out` reuses every step whose inputs have not changed. The steps are processes of their
    own, so the calling process may have TensorFlow loaded; on a GPU it must leave memory for them.

    Args:
        source: Images to learn from: a folder with one subfolder per class, an archive, a CSV file,
            a URL or a sample, or several of these. Without `recipe`, a single source uses the
            defaults of `regraft run SOURCE`, and it may also be a recipe, by its name or YAML file.
        out: Folder of the run: its outputs, log and `summary.json`; by default `runs/` and the name
            of the recipe or images. Models are published to `<out>/models` unless `destination`
            is set.
        recipe: A recipe's name or YAML file; `source` overrides its sources.
        runner: `subprocess`, or `docker` to run the steps in the container image.
        ray: Ray cluster that reads images, extracts features and trains: `local` starts one on this
            machine, `auto` uses the one that runs here, or `ray://HOST:PORT`.
        progress: Called with each line of progress. By default the lines go to standard error, as
            for the command.
        **options: Recipe fields that override the recipe, such as `backbone="vgg16"`,
            `strategies=["head", "top"]` or `min_accuracy=0.9`; the command has the same options.

    Returns:
        The result, accepted or rejected.

    Raises:
        InputError: an unknown option (similar names are suggested), a bad value or unusable data.
        RegraftError: a step failed.

    Example:
        >>> run = regraft.run("images/", out="runs/pets", backbone="efficientnet_lite0")
        >>> run.accepted, run.version
        (True, 1)
    """
    chosen = _choose_options(source, recipe, options)
    out = Path("runs") / chosen.name if out is None else Path(out)
    prepared = prepare_recipe(chosen.values, out, runner)
    listener = None if progress is None else _PrintingAllowed(progress, sys.stdout)
    if chosen.note:
        (progress or Progress().line)(chosen.note)
    try:
        # A `progress` that ends after the run would otherwise leave the log as standard output.
        with contextlib.redirect_stdout(sys.stdout):
            summary = run_locally(prepared, out, listener, runner, ray)
    except StepError as error:
        if error.exit_code == InputError.exit_code:
            raise InputError(str(error)) from error
        raise
    return _result(out.absolute(), summary)


def _choose_options(
    source: Source | Iterable[Source] | None,
    recipe: str | os.PathLike[str] | None,
    options: dict[str, Any],
) -> RunOptions:
    """Return the options of the recipe or of images without one, overridden by the given ones."""
    for name in options:
        if name not in RECIPE_FIELDS:
            raise unknown_option("option", name, RECIPE_FIELDS)
    given = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in options.items()
    }
    base = None if recipe is None else os.fspath(recipe)
    if source is None:
        return choose_options(base, given)
    if "sources" in given:
        raise InputError("expected either source or sources, got both")
    sources = [source] if isinstance(source, str | os.PathLike) else list(source)
    if base is None and len(sources) == 1:
        return choose_options(os.fspath(sources[0]), given)
    if base is None:  # as for a single source: the backbone whose weights are installed
        given = {"backbone": BACKBONE, **given}
    return choose_options(base, {**given, "sources": tuple(map(os.fspath, sources))})


def _result(folder: Path, summary: Summary) -> Run:
    published = summary.published
    if published is None:
        model_dir = _candidate(folder, summary)
    else:
        model_dir = None if is_store_uri(published) else Path(published)
    return Run(
        folder=folder,
        accepted=summary.verdict == "accepted",
        reasons=tuple(check for check in summary.reasons if not check.passed),
        checks=tuple(summary.reasons),
        metrics=summary.metrics,
        strategy=summary.strategy,
        version=summary.model_version,
        published=published,
        model_dir=model_dir,
        report=Path(summary.report),
        dataset=Path(summary.dataset),
        timings=summary.timings,
        summary=summary.model_dump(),
    )


def _candidate(folder: Path, summary: Summary) -> Path | None:
    """Return the folder of the candidate that the run evaluated; None if it was removed."""
    try:
        digest = EvaluationManifest.read(summary.evaluation).model_digest
    except InputError:
        return None
    for file in (folder / STEPS_FOLDER).rglob(ModelManifest.file_name):
        with contextlib.suppress(InputError):
            manifest = ModelManifest.read(file.parent)
            if (manifest.kind, manifest.digest) == ("candidate", digest):
                return file.parent
    return None


def _moved(summary: Summary, folder: Path) -> Summary:
    """Return the summary with the paths inside the run's folder where that folder is now."""
    before = [p.parent for p in Path(summary.evaluation).parents if p.name == STEPS_FOLDER]
    changes = {}
    for name in ("report", "dataset", "evaluation", "saved_model", "published"):
        path = getattr(summary, name)
        if before and path is not None and Path(path).is_relative_to(before[0]):
            changes[name] = str(folder / Path(path).relative_to(before[0]))
    return summary.model_copy(update=changes)


class _PrintingAllowed:
    """Calls `progress` so that it may print: while a run lasts, `sys.stdout` is the run's log."""

    def __init__(self, progress: Callable[[str], None], output: TextIO) -> None:
        self._progress, self._output = progress, output
        self._lock = threading.Lock()

    def __call__(self, line: str) -> None:
        # One call at a time: otherwise the first to end would restore what the second replaced.
        output = cast(TextIO, _OfThisThread(self._output, sys.stdout))
        with self._lock, contextlib.redirect_stdout(output):
            self._progress(line)


class _OfThisThread:
    """Standard output that is `own` for the thread that made it, and `other` for all others."""

    def __init__(self, own: TextIO, other: TextIO) -> None:
        self._own, self._other, self._thread = own, other, threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        is_own = threading.get_ident() == self._thread
        return getattr(self._own if is_own else self._other, name)

"""A run on Kubeflow Pipelines: prepared and checked here, then sent as a pipeline's version.

The compiled pipeline is uploaded once for each content and named by its digest; a run refers to it
and brings the recipe as parameters. What was sent is looked for before it is sent again, so that a
lost answer never makes a second run.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from components.ingest.sources.drive import drive_id
from components.ingest.sources.samples import SAMPLES
from pipelines.cluster.compilation import compile_pipeline, image_of, recipe_for
from pipelines.cluster.kfp_api import Client, Connection, NoResponseError, UnreachableError, pause
from pipelines.cluster.node_presets import Hardware
from pipelines.cluster.pods import Pods
from pipelines.cluster.schedule import kfp_cron
from pipelines.recipes.recipe import Recipe
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.version import VERSION

PIPELINE = "regraft"
DESCRIPTION = "From labeled images to a published classifier that is proven."
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How a run is filed and run, besides its recipe. Empty texts are the defaults."""

    experiment: str = PIPELINE
    run_name: str = ""
    service_account: str = ""
    pipeline_root: str = ""
    schedule: str = ""
    cache: bool = True
    hardware: Hardware | None = None
    pods: Pods = field(default_factory=Pods)


@dataclass(frozen=True)
class Submission:
    """All that is sent, ready and checked. `pipeline` is the compiled file's text."""

    settings: Settings
    run_name: str
    version: str
    pipeline: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class SubmittedRun:
    """What the server made of a submission: a run, or a recurring run."""

    id: str
    name: str
    page: str
    recurring: bool


def prepare(values: dict[str, Any], settings: Settings) -> tuple[Submission, Recipe]:
    """Check the recipe's values and the settings, and compile the pipeline; nothing is sent.

    Raises:
        InputError: a value is unusable, or a path is of this machine only.
    """
    recipe = recipe_for(values, settings.hardware)
    check_paths(recipe, settings.pods)
    if settings.schedule:
        kfp_cron(settings.schedule)
    for name in ("experiment", "run_name"):
        if len(getattr(settings, name)) > 128:
            raise InputError(f"{name}: expected at most 128 characters, got more")
    if settings.pipeline_root and "://" not in settings.pipeline_root:
        raise InputError(f"pipeline_root: expected an address as s3://bucket/path, "
                         f"got {settings.pipeline_root!r}")  # fmt: skip
    text = _compiled(settings)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    generated = f"{recipe.model_name}-{now}-{secrets.token_hex(2)}"
    name = settings.run_name or (recipe.model_name if settings.schedule else generated)
    version = f"{VERSION}-{digest_of(text)[:12]}"
    return Submission(settings, name, version, text, recipe.arguments()), recipe


def check_paths(recipe: Recipe, pods: Pods) -> None:
    """Refuse paths that a step in a cluster does not see, before anything is sent.

    Raises:
        InputError: a source or folder is of this machine, or there is no destination.
    """
    if not recipe.destination:
        raise InputError("destination: expected where models are published, as s3://bucket/models "
                         "or a folder of a mounted claim, got none")  # fmt: skip
    for source in (*recipe.sources, *recipe.mirrors):
        if not (source in SAMPLES or drive_id(source)):
            _check_path("source", source, pods)
    weights = "" if recipe.weights in ("imagenet", "random") else recipe.weights
    for name, value in (("destination", recipe.destination), ("champion", recipe.champion),
                        ("ood_images", recipe.ood_images), ("weights", weights),
                        ("work_dir", recipe.work_dir)):  # fmt: skip
        if value:
            _check_path(name, value, pods)


def _check_path(name: str, value: str, pods: Pods) -> None:
    if "://" not in value and not pods.holds(value):
        raise InputError(f"{name}: expected an address, or a path below a --pvc that is mounted, "
                         f"as the cluster does not see this machine; got {value!r}")  # fmt: skip


def _compiled(settings: Settings) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compile_pipeline({}, path, settings.hardware, settings.pods)
        text = path.read_text(encoding="utf-8")
    if settings.cache:
        return text
    documents = list(yaml.safe_load_all(text))
    for component in [documents[0]["root"], *documents[0]["components"].values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {}
    return yaml.safe_dump_all(documents)


def described(submission: Submission, connection: Connection) -> dict[str, Any]:
    """Return what would be sent, for people and scripts; no secret is known here."""
    settings, pods = submission.settings, submission.settings.pods
    names = [f"{one.secret}:{one.key} as {one.variable}" for one in pods.secret_variables]
    names += [f"{one.name} at {one.path}" for one in pods.secret_volumes]
    return {
        "host": connection.host,
        "namespace": connection.namespace,
        "token": connection.credentials,
        "experiment": settings.experiment,
        "run_name": submission.run_name,
        "service_account": settings.service_account,
        "schedule": kfp_cron(settings.schedule) if settings.schedule else "",
        "pipeline": PIPELINE,
        "version": submission.version,
        "pipeline_root": settings.pipeline_root,
        "hardware": settings.hardware.name if settings.hardware else "",
        "image": image_of(settings.hardware, pods),
        "cache": settings.cache,
        "secrets": names,
        "pvcs": [f"{pvc.name} at {pvc.path}" for pvc in pods.pvcs],
        "parameters": submission.parameters,
    }


def send(client: Client, connection: Connection, submission: Submission) -> SubmittedRun:
    """Upload the pipeline where this content is new, and create the run or the recurring run.

    Raises:
        InputError: no permission, or a recurring run of that name exists.
        SubmissionError: the server failed, or cannot be reached.
    """
    if client.several_users and not (connection.namespace or client.get_user_namespace()):
        raise InputError("namespace: expected --namespace, as the server has several users")
    # kfp's client prints links of its own.
    with contextlib.redirect_stdout(io.StringIO()):
        pipeline, version = _uploaded(client, connection, submission)
        experiment = _tried(
            connection,
            lambda: client.create_experiment(
                submission.settings.experiment, namespace=connection.namespace or None
            ),
            lambda: None,
        ).experiment_id
        create = _create_recurring if submission.settings.schedule else _create_run
        return create(client, connection, submission, (experiment, pipeline, version))


def _tried(connection: Connection, create: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Create something; after a lost answer look for it before it is created again."""
    for attempt in range(connection.attempts):
        try:
            return create()
        except (NoResponseError, UnreachableError):
            if attempt + 1 == connection.attempts:
                raise
        pause(connection, attempt)
        if (found := find()) is not None:
            return found
    raise AssertionError("unreachable")


def _uploaded(client: Client, connection: Connection, submission: Submission) -> tuple[str, str]:
    """Return the ids of the pipeline and of the version with this content."""
    space = connection.namespace or None

    def pipeline() -> Any:
        listed = client.list_pipelines(namespace=space, filter=_named(PIPELINE)).pipelines
        return listed[0].pipeline_id if listed else None

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        file.write_text(submission.pipeline, encoding="utf-8")

        def upload() -> Any:
            return client.upload_pipeline(str(file), PIPELINE, DESCRIPTION, space).pipeline_id

        found = pipeline() or _tried(connection, upload, pipeline)

        def version() -> Any:
            wanted = _named(submission.version)
            listed = client.list_pipeline_versions(found, filter=wanted).pipeline_versions
            return listed[0].pipeline_version_id if listed else None

        def upload_version() -> Any:
            made = client.upload_pipeline_version(str(file), submission.version, found)
            return made.pipeline_version_id

        return found, version() or _tried(connection, upload_version, version)


def _create_run(
    client: Client, connection: Connection, submission: Submission, ids: tuple[str, str, str]
) -> SubmittedRun:
    experiment, pipeline, version = ids

    def named() -> set[str]:
        listed = client.list_runs(experiment_id=experiment, filter=_named(submission.run_name))
        return {run.run_id for run in listed.runs or ()}

    before = named()

    def create() -> str:
        return client.run_pipeline(
            experiment,
            submission.run_name,
            params=submission.parameters,
            pipeline_id=pipeline,
            version_id=version,
            pipeline_root=submission.settings.pipeline_root or None,
            service_account=submission.settings.service_account or None,
        ).run_id

    run = _tried(connection, create, lambda: next(iter(named() - before), None))
    page = f"{connection.host.rstrip('/')}/#/runs/details/{run}"
    return SubmittedRun(run, submission.run_name, page, recurring=False)


def _create_recurring(
    client: Client, connection: Connection, submission: Submission, ids: tuple[str, str, str]
) -> SubmittedRun:
    experiment, pipeline, version = ids

    def named() -> str | None:
        listed = client.list_recurring_runs(
            experiment_id=experiment, filter=_named(submission.run_name)
        ).recurring_runs  # fmt: skip
        return listed[0].recurring_run_id if listed else None

    if there := named():
        raise InputError(
            f"run-name: a recurring run {submission.run_name!r} exists already ({there}); delete "
            "it, or give another --run-name"
        )

    def create() -> str:
        return client.create_recurring_run(
            experiment,
            submission.run_name,
            description=DESCRIPTION,
            cron_expression=kfp_cron(submission.settings.schedule),
            max_concurrency=1,
            no_catchup=True,
            params=submission.parameters,
            pipeline_id=pipeline,
            version_id=version,
            pipeline_root=submission.settings.pipeline_root or None,
            service_account=submission.settings.service_account or None,
        ).recurring_run_id

    made = _tried(connection, create, named)
    page = f"{connection.host.rstrip('/')}/#/recurringrun/details/{made}"
    return SubmittedRun(made, submission.run_name, page, recurring=True)


def _named(name: str) -> str:
    """Return KFP's filter for a display name."""
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})

"""Submits a run to Kubeflow Pipelines, as a version of the pipeline with parameters.

Each compiled pipeline is uploaded once, as a version named by its digest. A run refers to a version
and has the recipe as its parameters. After a lost response, the run is searched on the server
before it is sent again, so that it is never created twice.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import re
import secrets
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from kfp_server_api import V2beta1PipelineVersionReference, V2beta1Run, V2beta1RuntimeConfig

from pipelines.cluster.compilation import compile_pipeline, image_of, prepare_recipe
from pipelines.cluster.cron import kfp_cron
from pipelines.cluster.kfp_api import Client, Connection, retrying
from pipelines.cluster.node_presets import Hardware
from pipelines.cluster.pod_settings import Pods
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.runtime.addresses import refuse_credentials, refuse_signature
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.version import VERSION

PIPELINE = "regraft"
DESCRIPTION = "Trains, verifies and publishes an image classifier by transfer learning."
MAX_NAME = 128
# What KFP's launcher can read: `ParseBucketPathToConfig` in backend/src/v2/objectstore/config.go.
_PIPELINE_ROOT = re.compile(r"(gs|s3|minio):///?[^/?]+(/[^?]*)?(\?.+)?")
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """Settings of a run in addition to its recipe; empty texts use the server's defaults."""

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
    """A checked run, ready to be sent. `pipeline` is the text of the compiled file."""

    settings: Settings
    run_name: str
    version: str
    pipeline: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class SubmittedRun:
    """The run or recurring run that the server created, with its pipeline version, if any."""

    id: str
    name: str
    page: str
    version: str
    parameters: Mapping[str, Any]
    recurring: bool = False


def prepare(options: Mapping[str, Any], settings: Settings) -> Submission:
    """Check the options and the settings, and compile the pipeline; nothing is sent.

    Raises:
        InputError: a value is invalid, or as `prepare_recipe`.
    """
    recipe = prepare_recipe(options, settings.hardware, settings.pods)
    if not recipe.destination:
        raise InputError("destination: expected a bucket URI such as s3://bucket/models, or a "
                         "folder in a mounted PVC, got none")  # fmt: skip
    refuse_credentials("pipeline_root", settings.pipeline_root)
    refuse_signature("pipeline_root", settings.pipeline_root)
    if settings.schedule:
        kfp_cron(settings.schedule)
    check_name("experiment", settings.experiment)
    check_name("run_name", settings.run_name)
    if settings.pipeline_root and not _PIPELINE_ROOT.fullmatch(settings.pipeline_root):
        raise InputError(f"pipeline_root: expected a URI such as s3://bucket/path, gs://... or "
                         f"minio://..., got {settings.pipeline_root!r}")  # fmt: skip
    text = _compiled(settings, recipe.workers)
    nodes = settings.pods.ray_nodes
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    generated = f"{recipe.model_name}-{now}-{secrets.token_hex(2)}"
    name = settings.run_name or (recipe.model_name if settings.schedule else generated)
    version = f"{VERSION}-{digest_of(text)[:12]}"
    parameters = recipe.arguments() | ({"ray_nodes": nodes} if nodes else {})
    return Submission(settings, name, version, text, parameters)


def check_name(option: str, name: str) -> None:
    """Check the length of a name on the server.

    Raises:
        InputError: it is too long.
    """
    if len(name) > MAX_NAME:
        raise InputError(f"{option}: expected at most {MAX_NAME} characters, got {len(name)}")


def _compiled(settings: Settings, workers: int) -> str:
    """Return the compiled pipeline; it has a loop, and other parameters, for several workers.

    Its defaults are not those of a recipe, so that all recipes share a version of the pipeline.
    """
    defaults = prepare_recipe(
        {"sources": ("sample:digits",), "workers": workers}, settings.hardware
    )
    pods = replace(settings.pods, ray_nodes=min(settings.pods.ray_nodes, 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        compile_pipeline(defaults, path, settings.hardware, pods, cache=settings.cache)
        return path.read_text(encoding="utf-8")


def describe(submission: Submission, connection: Connection) -> dict[str, Any]:
    """Return what would be sent, for people and scripts; it contains no secret."""
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
        "ray_nodes": settings.pods.ray_nodes,
        "ray": settings.pods.ray,
        "pvcs": [f"{pvc.name} at {pvc.path}" for pvc in pods.pvcs],
        "parameters": submission.parameters,
    }


def send(client: Client, connection: Connection, submission: Submission) -> SubmittedRun:
    """Upload the pipeline if this content is new, and create the run or recurring run.

    Raises:
        InputError: no permission, or a recurring run of that name exists.
        SubmissionError: the server failed, or cannot be reached.
    """
    if client.several_users and not (connection.namespace or client.get_user_namespace()):
        raise InputError("namespace: expected --namespace, because the server has several users")
    # kfp's client prints its own links.
    with contextlib.redirect_stdout(io.StringIO()):
        pipeline, version = _uploaded(client, connection, submission)
        experiment = _create_once(
            connection,
            lambda: client.create_experiment(
                submission.settings.experiment, namespace=connection.namespace or None
            ),
            lambda: None,
        ).experiment_id
        create = _create_recurring if submission.settings.schedule else _create_run
        return create(client, connection, submission, (experiment, pipeline, version))


def _create_once(
    connection: Connection, create: Callable[[], T], find: Callable[[], T | None]
) -> T:
    """Create an object; after a lost response, search for it before creating it again."""
    lost = False

    def attempt() -> T:
        nonlocal lost
        if lost and (found := find()) is not None:
            return found
        lost = True
        return create()

    return retrying(connection, connection.attempts)(attempt)


def _uploaded(client: Client, connection: Connection, submission: Submission) -> tuple[str, str]:
    """Return the ids of the pipeline and of the version with this content."""
    space = connection.namespace or None

    def pipeline() -> Any:
        listed = client.list_pipelines(namespace=space, filter=_with_name(PIPELINE)).pipelines
        return listed[0].pipeline_id if listed else None

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        file.write_text(submission.pipeline, encoding="utf-8")

        def upload() -> Any:
            return client.upload_pipeline(str(file), PIPELINE, DESCRIPTION, space).pipeline_id

        found = pipeline() or _create_once(connection, upload, pipeline)

        def version() -> Any:
            predicate = _with_name(submission.version)
            listed = client.list_pipeline_versions(found, filter=predicate).pipeline_versions
            return listed[0].pipeline_version_id if listed else None

        def upload_version() -> Any:
            uploaded = client.upload_pipeline_version(str(file), submission.version, found)
            return uploaded.pipeline_version_id

        return found, version() or _create_once(connection, upload_version, version)


def _create_run(
    client: Client, connection: Connection, submission: Submission, ids: tuple[str, str, str]
) -> SubmittedRun:
    experiment, pipeline, version = ids
    settings = submission.settings
    return create_run_once(
        client,
        connection,
        V2beta1Run(
            experiment_id=experiment,
            display_name=submission.run_name,
            pipeline_version_reference=V2beta1PipelineVersionReference(
                pipeline_id=pipeline, pipeline_version_id=version
            ),
            runtime_config=V2beta1RuntimeConfig(
                parameters=submission.parameters, pipeline_root=settings.pipeline_root or None
            ),
            service_account=settings.service_account or None,
        ),
        submission.version,
    )


def create_run_once(
    client: Client, connection: Connection, run: V2beta1Run, version: str
) -> SubmittedRun:
    """Create a run; after a lost response, search for it before creating it again."""

    def run_ids() -> set[str]:
        listed = client.list_runs(
            experiment_id=run.experiment_id, filter=_with_name(run.display_name)
        )
        return {one.run_id for one in listed.runs or ()}

    before = run_ids()
    created = _create_once(
        connection,
        lambda: client.create_run(run),
        lambda: next(iter(run_ids() - before), None),
    )
    parameters = (run.runtime_config and run.runtime_config.parameters) or {}
    page = page_of(connection, created)
    return SubmittedRun(created, run.display_name, page, version, parameters)


def page_of(connection: Connection, run_id: str) -> str:
    """Return the URL of a run's page."""
    return f"{connection.host.rstrip('/')}/#/runs/details/{run_id}"


def _create_recurring(
    client: Client, connection: Connection, submission: Submission, ids: tuple[str, str, str]
) -> SubmittedRun:
    experiment, pipeline, version = ids

    def existing() -> str | None:
        listed = client.list_recurring_runs(
            experiment_id=experiment, filter=_with_name(submission.run_name)
        ).recurring_runs  # fmt: skip
        return listed[0].recurring_run_id if listed else None

    if found := existing():
        raise InputError(
            f"run_name: a recurring run {submission.run_name!r} exists already ({found}); delete "
            "it, or set another --run-name"
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

    created = _create_once(connection, create, existing)
    page = f"{connection.host.rstrip('/')}/#/recurringrun/details/{created}"
    return SubmittedRun(created, submission.run_name, page, submission.version,
                        submission.parameters, recurring=True)  # fmt: skip


def _with_name(name: str) -> str:
    """Return the filter of KFP's API for a display name."""
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})

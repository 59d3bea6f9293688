"""Repeats a run that has ended, with everything that its server knows of it.

The new run has the same version of the pipeline and the same parameters, so the server's cache
returns the steps that were finished, and with `work_dir` an interrupted training continues. All of
it is read from the server: the run may have been created by another client or by a schedule.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any

from kfp_server_api import V2beta1Run

from pipelines.cluster.kfp_api import Client, Connection, NotFoundError
from pipelines.cluster.pod_reports import service_account_of
from pipelines.cluster.run_tasks import has_ended, tasks_of
from pipelines.cluster.submit import (
    MAX_NAME,
    PIPELINE,
    SubmittedRun,
    check_name,
    create_run_once,
    page_of,
)
from regraft_core.runtime.errors import InputError

_SUFFIX = re.compile(r"-resumed-[0-9a-f]{4}$")


@dataclass(frozen=True)
class Resumption:
    """A run to create. `version` is the name of its pipeline version, empty if it has none."""

    resumed_id: str
    experiment: str
    version: str
    run: V2beta1Run


def prepare_resumption(
    client: Client, connection: Connection, run_id: str, run_name: str = ""
) -> Resumption:
    """Read a run that has ended and return the run that repeats it; nothing is sent.

    Args:
        client: the client of the server.
        connection: how to connect to it.
        run_id: the run to repeat.
        run_name: name of the new run; generated if empty.

    Raises:
        InputError: there is no such run, it has not ended, or it is not a run of this pipeline.
        SubmissionError: the server failed, or cannot be reached.
    """
    check_name("run_name", run_name)
    old = _ended_run(client, connection, run_id)
    version = _check_pipeline(client, old)
    run = V2beta1Run(
        experiment_id=old.experiment_id,
        display_name=run_name or _next_name(old.display_name or PIPELINE),
        description=f"Resumes the run {run_id}.",
        pipeline_spec=old.pipeline_spec if old.pipeline_version_reference is None else None,
        pipeline_version_reference=old.pipeline_version_reference,
        runtime_config=old.runtime_config,
        service_account=_service_account(client, old),
    )
    experiment = client.get_experiment(old.experiment_id).display_name
    return Resumption(run_id, str(experiment), version, run)


def describe_resumption(resumption: Resumption, connection: Connection) -> dict[str, Any]:
    """Return what would be sent, for people and scripts."""
    run = resumption.run
    return {
        "host": connection.host,
        "namespace": connection.namespace,
        "token": connection.credentials,
        "resumes": resumption.resumed_id,
        "experiment": resumption.experiment,
        "run_name": run.display_name,
        "service_account": run.service_account or "",
        "pipeline": PIPELINE,
        "version": resumption.version,
        "pipeline_root": (run.runtime_config and run.runtime_config.pipeline_root) or "",
        "parameters": (run.runtime_config and run.runtime_config.parameters) or {},
    }


def send_resumption(client: Client, connection: Connection, resumption: Resumption) -> SubmittedRun:
    """Create the run that repeats another.

    Raises:
        InputError: no permission.
        SubmissionError: the server failed, or cannot be reached.
    """
    return create_run_once(client, connection, resumption.run, resumption.version)


def _ended_run(client: Client, connection: Connection, run_id: str) -> Any:
    """Return a run of the server, if it has ended."""
    missing = f"resume: expected the ID of a run on {connection.host}, found no run {run_id!r}"
    try:
        run = client.get_run(run_id) if run_id else None
    except NotFoundError:
        raise InputError(missing) from None
    if run is None or run.run_id != run_id:
        raise InputError(missing)
    if not _has_ended(run):
        raise InputError(
            f"resume: expected a run that has ended, but {run_id} is {run.state or 'not started'}; "
            f"wait for its end, or terminate it: {page_of(connection, run_id)}"
        )
    return run


def _service_account(client: Client, run: Any) -> str | None:
    """Return the service account of a run, if it is known.

    The server has none for a run that a schedule created, although its pods use that of the
    schedule (`ReportWorkflowResource` in backend/src/apiserver/resource/resource_manager.go, KFP
    2.17.0).
    """
    return run.service_account or service_account_of(client, run.run_id) or None


def _has_ended(run: Any) -> bool:
    """Return whether no step of a run can still work.

    A canceled run may stay CANCELING: with the default settings of KFP 2.17.0, Argo 3.7.3 retries
    its root DAG and does not end it, although no pod can start after the deadline.
    """
    if run.state == "CANCELING":
        return not any(task.state == "RUNNING" for task in tasks_of(run))
    return has_ended(run)


def _check_pipeline(client: Client, run: Any) -> str:
    """Check that a run is of this pipeline, and return the name of the version, if it has one.

    A run has a reference to a version, or the whole pipeline (`toApiRun` in
    backend/src/apiserver/server/api_converter.go, KFP 2.17.0).
    """
    reference, spec, name = run.pipeline_version_reference, run.pipeline_spec, ""
    if reference is not None:
        try:
            version = client.get_pipeline_version(
                reference.pipeline_id, reference.pipeline_version_id
            )
        except NotFoundError:
            raise InputError(
                f"resume: the pipeline version of the run {run.run_id} was deleted; submit again"
            ) from None
        spec, name = version.pipeline_spec, str(version.display_name or "")
    spec = spec or {}
    found = spec.get("pipeline_spec", spec).get("pipelineInfo", {}).get("name", "unknown")
    if found != PIPELINE:
        raise InputError(f"resume: expected a run of the pipeline {PIPELINE!r}, but {run.run_id} "
                         f"is of {found!r}")  # fmt: skip
    return name


def _next_name(name: str) -> str:
    """Return a name for a run that repeats one of this name; names need not be unique."""
    suffix = f"-resumed-{secrets.token_hex(2)}"
    return _SUFFIX.sub("", name)[: MAX_NAME - len(suffix)] + suffix

"""Logs a run that has ended to an MLflow tracking server, with MLflow's own client.

The run itself is over and its results are on the disk: whatever happens here costs a warning.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from regraft_core.formats.fingerprint import MODEL_CARD_FILE
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.published_versions import STABLE, read_version_file
from regraft_core.runtime.addresses import redact
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.printable import hide_secret, one_line
from regraft_core.tracking.tracked_run import TrackedRun, TrackedVersion, finite

PACKAGE = "mlflow"
ALIASES = (STABLE, "canary")
MODEL_PATH, REPORT_PATH = "model", "report"
# Of the server's API: parameters and tags of one request, and the length of their values.
BATCH, MAX_TEXT = 100, 500
VERSION_TAG, PATH_TAG = "regraft.version", "regraft.path"
# Requests are repeated once and end soon; nothing is sent to anyone but the server.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


@dataclass(frozen=True)
class MlflowTarget:
    """Where to log to.

    Attributes:
        uri: of the tracking server.
        experiment_id: of an experiment that exists; empty uses the run's experiment.
        run_id: of a run that exists, which its owner ends; empty creates one.
    """

    uri: str
    experiment_id: str = ""
    run_id: str = ""


def check_mlflow_package() -> None:
    """Check that the client is installed here.

    Raises:
        InputError: it is missing.
    """
    if find_spec(PACKAGE) is None:
        raise InputError(
            "mlflow: the client is not installed here; pip install 'regraft[mlflow]', or leave "
            "--mlflow out"
        )


def log_to_mlflow(run: TrackedRun, target: MlflowTarget) -> str:
    """Log a run; return a line that reports it, or why it failed. Never raises an error."""
    where = redact(target.uri)
    try:
        with _settings():
            check_mlflow_package()
            run_id = _Logging(run, target).log()
    except Exception as error:  # the run must not be lost for it
        reason = _without_secrets(str(error) or type(error).__name__, target.uri)[:200]
        return (
            f"warning: mlflow: the run is complete but not (fully) logged to {where}: {reason}; "
            "repeat the run to log it"
        )
    return f"mlflow: logged run {run_id} to {where}"


class _Logging:
    """The requests for one run."""

    def __init__(self, run: TrackedRun, target: MlflowTarget) -> None:
        from mlflow import MlflowClient

        self._run = run
        self._target = target
        self._client = MlflowClient(target.uri, registry_uri=target.uri)

    def log(self) -> str:
        if self._target.run_id:
            self._log_all(self._target.run_id)
            return self._target.run_id
        run_id = self._create_run()
        try:
            self._log_all(run_id)
        except Exception:
            with contextlib.suppress(Exception):  # otherwise MLflow shows it as running for good
                self._client.set_terminated(run_id, "FAILED")
            raise
        self._client.set_terminated(run_id, "FINISHED")
        return run_id

    def _log_all(self, run_id: str) -> None:
        self._log_values(run_id)
        if self._run.report is not None:
            self._client.log_artifact(run_id, str(self._run.report), REPORT_PATH)
        if self._run.version is not None:
            self._register(run_id, self._run.version)

    def _create_run(self) -> str:
        experiment_id = self._target.experiment_id or self._experiment()
        created = self._client.create_run(experiment_id, run_name=self._run.name)
        return str(created.info.run_id)

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self._run.experiment
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:  # another run has just created it
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)

    def _log_values(self, run_id: str) -> None:
        from mlflow.entities import Metric, Param, RunTag

        run, details = self._run, self._run.details
        tags = {"regraft.verdict": run.verdict, "regraft.dataset_digest": details.dataset_digest}
        metrics = [Metric(name, value, 0, 0) for name, value in finite(run.metrics).items()]
        for step, epoch in enumerate(details.history):
            values = epoch.model_dump(include={"loss", "accuracy", "validation_loss",
                                               "validation_accuracy"})  # fmt: skip
            metrics += [Metric(f"epoch_{name}", value, 0, step)
                        for name, value in finite(values).items()]  # fmt: skip
        parameters = [Param(name, text[:MAX_TEXT]) for name, text in details.parameters.items()]
        self._client.log_batch(run_id, tags=[RunTag(*pair) for pair in tags.items() if pair[1]])
        for values_of, batch in (("params", parameters), ("metrics", metrics)):
            left = iter(batch)
            while part := list(islice(left, BATCH)):
                self._client.log_batch(run_id, **{values_of: part})

    def _register(self, run_id: str, version: TrackedVersion) -> None:
        """Register the version, unless it is, and move the aliases to the labeled versions."""
        from mlflow.exceptions import MlflowException

        self._log_manifest(run_id, version.path)
        try:
            self._client.create_registered_model(version.model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = self._registered(version.model)
        if known.get(version.number, ("", ""))[1] != version.path:
            made = self._client.create_model_version(
                version.model, f"runs:/{run_id}/{MODEL_PATH}", run_id,
                tags={VERSION_TAG: str(version.number), PATH_TAG: version.path},
            )  # fmt: skip
            known[version.number] = (str(made.version), version.path)
        for alias in ALIASES:
            number = version.labels.get(alias)
            if number is not None and number in known:
                self._client.set_registered_model_alias(version.model, alias, known[number][0])

    def _registered(self, model: str) -> dict[int, tuple[str, str]]:
        """Return MLflow's version and the path by Regraft's version, of the newest of each."""
        found: dict[int, tuple[str, str]] = {}
        token = None
        while True:
            page = self._client.search_model_versions(
                f"name='{model}'", order_by=["version_number ASC"], page_token=token
            )
            for one in page:
                number = one.tags.get(VERSION_TAG, "")
                if number.isdigit():
                    found[int(number)] = (str(one.version), one.tags.get(PATH_TAG, ""))
            token = page.token
            if not token:
                return found

    def _log_manifest(self, run_id: str, path: str) -> None:
        """Log what describes the version; the model stays where it is published."""
        with tempfile.TemporaryDirectory(prefix="regraft-mlflow-") as folder:
            for name in (SavedModelManifest.file_name, MODEL_CARD_FILE):
                text = read_version_file(path, name)
                if text is not None:
                    file = Path(folder, name)
                    file.write_text(text, encoding="utf-8")
                    self._client.log_artifact(run_id, str(file), MODEL_PATH)


def _without_secrets(text: str, uri: str) -> str:
    """Return an error in one line, without what the URI and the environment keep secret."""
    for secret in map(os.environ.get, SECRETS):
        text = hide_secret(text, secret or "")
    return one_line(text.replace(uri, redact(uri)))


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Set what the client reads from the environment, where it is not set, and silence it.

    It warns of each repeated request, and prints links to standard output, which may be JSON.
    """
    added = {name: value for name, value in SETTINGS.items() if name not in os.environ}
    loggers = [logging.getLogger(name) for name in ("urllib3", "mlflow", "databricks")]
    levels = [logger.level for logger in loggers]
    os.environ.update(added)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name in added:
            os.environ.pop(name, None)


def kubeflow_target(given: str, environment: Mapping[str, str]) -> MlflowTarget | None:
    """Return where a step on Kubeflow logs to; None if nowhere.

    Kubeflow Pipelines with its MLflow plugin sets these variables in the containers of steps, if
    `injectUserEnvVars` is on (`RetrieveUserContainerEnvVars` in
    backend/src/v2/common/plugins/mlflow/handler.go, KFP 2.17). Its run is that of the task, and it
    also ends it.

    Args:
        given: the option; empty uses the variables.
        environment: the variables.
    """
    own = environment.get("MLFLOW_TRACKING_URI", "")
    if given and given.rstrip("/") != own.rstrip("/"):
        return MlflowTarget(given)
    if not own:
        return None
    names = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID")
    return MlflowTarget(own, *(environment.get(name, "") for name in names))

"""The publish step: a verified model becomes the next version at its destination."""

from __future__ import annotations

import os
from dataclasses import dataclass

from components.publish.registry import Registry, RegistryError
from regraft_core.formats.compared_champion import compared_version
from regraft_core.formats.manifest_storage import MadeBy, digest_of, staged_folder
from regraft_core.formats.manifests.parity import ParityManifest
from regraft_core.formats.manifests.published import PublishedManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.options.publish import PublishOptions
from regraft_core.formats.run_outcome import (
    LastPublication,
    RunDetails,
    RunOutcome,
    read_outcome,
    write_last_publication,
    write_outcome,
)
from regraft_core.runtime.errors import InputError, ParityError
from regraft_core.runtime.machine import machine_kind
from regraft_core.runtime.step_reports import Clock, log_progress
from regraft_core.runtime.version import VERSION
from serving.publishing.publish import Once, publish_saved_model


@dataclass(frozen=True)
class Compared:
    """Digest of a run's inputs, and the champion that it compared with: location and digest.

    `champion_digest` is empty if there was no champion.
    """

    inputs: str
    champion: str
    champion_digest: str

    def check_champion(self) -> None:
        """Check that the champion is still the same, as `compared_version`."""
        compared_version(self.champion, self.champion_digest, self.inputs)


def publish(
    saved_model: str | os.PathLike[str],
    parity: str | os.PathLike[str],
    out: str | os.PathLike[str],
    destination: str,
    name: str,
    options: PublishOptions | None = None,
    run_id: str = "",
    compared: Compared | None = None,
) -> PublishedManifest:
    """Publish a verified model, and write `published.json` into `out`.

    If the latest version is already this model, or one that was added after the champion that the
    run compared with, no version is added. So a run can be repeated, resumed after an interruption,
    or attempted twice at once. Buckets have no locks: there, two attempts that write their last
    object in the same moment add two versions.

    The bytes are compared with their fingerprint. They are loaded again only if this machine is of
    another kind than the one that `verify` served them on, or if that used a GPU.

    Args:
        saved_model: the exported folder.
        parity: the parity report that `verify` wrote for this folder.
        out: receives `published.json`.
        destination: folder or URI of published models.
        name: name of the model.
        options: label, number of versions to keep, and model registry.
        run_id: ID of the run on a cluster, which writes its record at the destination.
        compared: inputs and champion of the run, which are recorded at the destination.

    Raises:
        ParityError: verification failed.
        InputError: the report is of another model, the champion has changed since the comparison;
            as `publish_saved_model` and `Registry`.
        RegistryError: the registry does not respond and nothing was published, or it failed
            afterwards.
    """
    clock, options = Clock(), options or PublishOptions()
    model, report = SavedModelManifest.read(saved_model), ParityManifest.read(parity)
    _check_parity(report, model, parity)
    registry = Registry(options.model_registry) if options.model_registry else None
    with staged_folder(out) as folder:
        if compared is not None:
            compared.check_champion()  # now, too: loading the model takes a while

        def confirm() -> None:
            """Check the champion, and record the publication, so that no version lacks a record."""
            if compared is not None:
                compared.check_champion()
                last = LastPublication(
                    inputs=compared.inputs, champion_digest=compared.champion_digest,
                    saved_model_digest=model.digest,
                )  # fmt: skip
                write_last_publication(destination, name, last)

        version = publish_saved_model(
            saved_model, destination, name, label=options.version_label,
            keep_last=options.keep_last, confirm=confirm,
            once=Once(model.digest, compared.champion_digest if compared else None),
            served=report.device == "CPU" and report.machine == machine_kind(),
        )  # fmt: skip
        if not version.added:
            confirm()
        manifest = PublishedManifest(
            digest=digest_of([name, version.number, model.digest]),
            made_by=MadeBy(step="publish", version=VERSION, seconds=clock.seconds),
            name=name,
            version=version.number,
            path=version.path,
            saved_model_digest=model.digest,
            parity=report.max_abs_diff,
        )
        manifest.write(folder)
    if run_id:
        recorded = read_outcome(destination, name, run_id)
        details = recorded.details if recorded else RunDetails()
        outcome = RunOutcome(verdict="accepted", strategy=model.strategy, metrics=model.metrics,
                             checks=model.checks, version=version.number, path=version.path,
                             added=version.added, details=details)  # fmt: skip
        write_outcome(destination, name, run_id, outcome)
    if registry and not registry.contains(name, version.number):
        _register(registry, manifest, model)
    note = "" if version.added else " has this model already; no version was added"
    log_progress(f"publish: version {version.number} at {version.path}{note}")
    return manifest


def _check_parity(
    report: ParityManifest, model: SavedModelManifest, path: str | os.PathLike[str]
) -> None:
    if not report.passed:
        raise ParityError(f"{path}: expected a passed parity report, got a failed one")
    if report.saved_model_digest != model.digest:
        raise InputError(
            f"{path}: expected a parity report of the model {model.digest[:12]}, "
            f"got one of {report.saved_model_digest[:12]}"
        )
    if "bfloat16" in model.serving_precisions and report.bfloat16_tolerance is None:
        raise ParityError(f"{path}: expected a parity report in bfloat16, too; verify it again")
    if "openvino" in model.serving_engines and report.openvino_tolerance is None:
        raise ParityError(f"{path}: expected a parity report with OpenVINO, too; verify it again")


def _register(registry: Registry, published: PublishedManifest, model: SavedModelManifest) -> None:
    try:
        registry.register(published.name, published.version, published.path, model)
    except RegistryError as error:
        raise RegistryError(
            f"version {published.version} is published at {published.path}, but not registered: "
            f"{error}"
        ) from error

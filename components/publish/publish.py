"""The publish step: a proven model becomes the next version at its destination."""

from __future__ import annotations

import os

from components.publish.registry import Registry, RegistryError
from regraft_core.formats.manifest_storage import MadeBy, digest_of, staged_folder
from regraft_core.formats.manifests import ParityManifest, PublishedManifest, SavedModelManifest
from regraft_core.runtime.errors import InputError, ParityError
from regraft_core.runtime.step import Clock, log_progress
from regraft_core.runtime.version import VERSION
from serving.publishing.publish import Version, open_store, publish_saved_model, set_label


def publish(
    saved_model: str | os.PathLike[str],
    parity: str | os.PathLike[str],
    out: str | os.PathLike[str],
    destination: str,
    name: str,
    *,
    label: str = "",
    keep_last: int = 0,
    model_registry: str = "",
) -> PublishedManifest:
    """Publish a model whose served answers were proven, and write `published.json` into `out`.

    Where the newest version in a folder is this very model already, it stays the newest, so that a
    run that is repeated, or was killed after this step, adds no version.

    Args:
        saved_model: the exported folder.
        parity: what `verify` wrote about this very folder.
        out: receives `published.json`.
        destination: folder or address that holds models.
        name: the model's name.
        label: `stable`, `canary` or empty.
        keep_last: how many versions stay; 0 keeps all.
        model_registry: address of a Kubeflow Model Registry that the version is entered in.

    Raises:
        ParityError: the proof is of another model, or it failed.
        InputError: as `serving.publishing.publish.publish_saved_model` and `Registry`.
        RegistryError: no registry answers, and nothing was published; or it failed afterwards.
    """
    clock = Clock()
    model, proof = SavedModelManifest.read(saved_model), ParityManifest.read(parity)
    _check_proof(proof, model, parity)
    registry = Registry(model_registry) if model_registry else None
    with staged_folder(out) as folder:
        version = _published_already(model, destination, name)
        if version is None:
            version = publish_saved_model(
                saved_model, destination, name, label=label, keep_last=keep_last
            )
        elif label:
            set_label(destination, name, label, version.number)
        manifest = PublishedManifest(
            digest=digest_of([name, version.number, model.digest]),
            made_by=MadeBy(step="publish", version=VERSION, seconds=clock.seconds),
            name=name,
            version=version.number,
            path=version.path,
            saved_model_digest=model.digest,
            parity=proof.max_abs_diff,
        )
        manifest.write(folder)
    if registry and not registry.knows(name, version.number):
        _record(registry, manifest, model)
    log_progress(f"publish: version {version.number} at {version.path}")
    return manifest


def _check_proof(
    proof: ParityManifest, model: SavedModelManifest, where: str | os.PathLike[str]
) -> None:
    if not proof.passed:
        raise ParityError(f"{where}: expected a passed proof, got a failed one")
    if proof.saved_model_digest != model.digest:
        raise InputError(
            f"{where}: expected a proof of the model {model.digest[:12]}, "
            f"got one of {proof.saved_model_digest[:12]}"
        )


def _published_already(model: SavedModelManifest, destination: str, name: str) -> Version | None:
    if "://" in destination:
        return None
    store = open_store(destination, name)
    for number in store.versions()[-1:]:
        try:
            newest = SavedModelManifest.read(store.path(number))
        except InputError:
            continue  # exported by something else
        if newest.digest == model.digest:
            return Version(number, store.path(number))
    return None


def _record(registry: Registry, published: PublishedManifest, model: SavedModelManifest) -> None:
    try:
        registry.record(published.name, published.version, published.path, model)
    except RegistryError as error:
        raise RegistryError(
            f"version {published.version} is published at {published.path}, but not entered in "
            f"the registry: {error}"
        ) from error

"""What a review reads of a run: the dataset, the features and the head that its model came from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.local.run import STEPS_FOLDER
from regraft.training_run import Run
from regraft_core.curation.suspects import Image
from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.fixes import FIXES_FILE, Fix, read_fixes
from regraft_core.formats.manifests.dataset import DatasetManifest
from regraft_core.formats.manifests.evaluation import EvaluationManifest
from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.store_records import Origins, manifest_of, read_origins
from regraft_core.formats.stored_artifacts import entry_of, referring_folders
from regraft_core.runtime.addresses import redact
from regraft_core.runtime.errors import InputError
from regraft_core.training.feature_store import SAME_FOR_ALL_WORKERS, feature_folders


@dataclass(frozen=True)
class ReviewedRun:
    """The folders of a run, and the fixes that its dataset was made with.

    Attributes:
        folder: Of the run.
        dataset: Folder of the dataset.
        data: Its manifest.
        features: Folders of the features, of all workers.
        head: Folder of the head.
        fixes: By the SHA-256 of their image.
    """

    folder: Path
    dataset: Path
    data: DatasetManifest
    features: list[Path]
    head: Path
    fixes: dict[str, Fix]

    def is_settled(self, image: Image) -> bool:
        """Return whether a fix decided on an image; one that was not applied decides nothing."""
        fix = self.fixes.get(image.sha256)
        if fix is None or fix.action not in ("keep", "relabel"):
            return False
        return image.label == (fix.new_label or fix.old_label)


def find_reviewed(folder: str | os.PathLike[str]) -> ReviewedRun:
    """Find what a review of the run in `folder` reads.

    Raises:
        InputError: it is not a finished run, its dataset, features or head were removed, or its
            images have several labels.
    """
    run = Run.read(folder)
    evaluation = Path(run.summary["evaluation"])
    store = ContentStore(entry_of(Path(run.summary["dataset"])).rpartition("/")[0])
    name = evaluation.name
    if store.remote:
        name = f"evaluation-{EvaluationManifest.read(evaluation).digest[:32]}"
    origins = read_origins(store)
    names = set(_inputs(origins, name))
    entries = _Entries(run.folder, store)
    dataset = entries.find("dataset", names)[-1]
    head = entries.find("head", names)[-1]
    if not any(name.startswith("features-") for name in names):  # of several workers
        names |= _worker_features(origins, dataset.name)
    found = entries.find("features", names)
    features = [one for folder in found for one in feature_folders(folder)]
    data = DatasetManifest.read(dataset)
    if data.labels_per_image == "several":
        raise InputError(
            f"{run.folder}: expected a run with one label an image, got one with several; correct "
            "the labels in its table"
        )
    fixes = dict(read_fixes(dataset / FIXES_FILE).fixes) if data.fixes else {}
    return ReviewedRun(run.folder, dataset, data, _of_head(features, head), head, fixes)


class _Entries:
    """The entries of a store in folders of this machine.

    Those of a bucket are the artifacts of the run that refer to them, whose files are fetched as
    they are read.
    """

    def __init__(self, run: Path, store: ContentStore) -> None:
        self._run, self._store = run, store
        self._referring = referring_folders(run / STEPS_FOLDER) if store.remote else {}

    def find(self, kind: str, names: Iterable[str]) -> list[Path]:
        """Return the entries of a kind, by name.

        Raises:
            InputError: there are none.
        """
        chosen = [name for name in sorted(names) if name.startswith(f"{kind}-")]
        folders = [self._folder(self._store.location(name)) for name in chosen]
        if found := [one for one in folders if one is not None]:
            return found
        raise InputError(
            f"{self._run}: expected the {kind} of the run in {redact(self._store.root)}, found "
            "none, perhaps because regraft gc has removed it; run the pipeline again with the same "
            "--out"
        )

    def _folder(self, location: str) -> Path | None:
        folder = self._referring.get(location) if self._store.remote else Path(location)
        return folder if folder is not None and _is_there(folder, location) else None


def _inputs(origins: Origins, evaluation: str) -> Iterator[str]:
    """Yield the entries that an evaluation was made from, and those of its candidates."""
    for of_evaluation in origins.get(evaluation, []):
        for name in of_evaluation.inputs:
            yield name
            for origin in origins.get(name, []):
                yield from origin.inputs


def _worker_features(origins: Origins, dataset: str) -> set[str]:
    """Return all features of a dataset; the head was made from a merged copy of some."""
    return {
        name for name, made in origins.items()
        if name.startswith("features-") and any(dataset in one.inputs for one in made)
    }  # fmt: skip


def _of_head(features: list[Path], head: Path) -> list[Path]:
    """Return the folders of the newest complete features that a head can have been fitted to."""
    model = ModelManifest.read(head)
    fitted = (model.backbone, model.weights_digest, model.preprocessing.image_px)
    extractions: dict[str, dict[int, Path]] = {}  # by worker
    for folder in sorted(features, key=lambda one: one.stat().st_mtime):
        manifest = FeaturesManifest.read(folder)
        if (manifest.backbone, manifest.weights_digest, manifest.image_px) == fitted:
            same = manifest.model_dump_json(include=set(SAME_FOR_ALL_WORKERS))
            workers = extractions.setdefault(same, {})
            workers[manifest.shard_index] = folder
            if len(workers) == manifest.shard_count:
                features = list(workers.values())
    return features


def _is_there(folder: Path, location: str) -> bool:
    manifest = manifest_of(location.rpartition("/")[2])
    return (folder / manifest).is_file() or any(folder.glob(f"*/{manifest}"))

"""What a review reads of a run: the dataset, the features and the head that its model came from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from regraft.training_run import Run
from regraft_core.curation.suspects import Image
from regraft_core.formats.content_store import ContentStore
from regraft_core.formats.fixes import FIXES_FILE, Fix, read_fixes
from regraft_core.formats.manifests import DatasetManifest
from regraft_core.formats.store_records import manifest_of, read_origins
from regraft_core.runtime.errors import InputError
from regraft_core.training.feature_store import feature_folders


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
    store = ContentStore(str(evaluation.parent))
    inputs = set(_inputs(store, evaluation.name))
    found: dict[str, Path] = {}
    for kind in ("dataset", "features", "head"):
        names = sorted(name for name in inputs if name.startswith(f"{kind}-"))
        present = [one for one in map(Path, map(store.location, names)) if _is_there(one)]
        if not present:
            raise InputError(
                f"{run.folder}: expected the {kind} of the run in {store.root}, found none, "
                "perhaps because regraft gc has removed it; run the pipeline again with the same "
                "--out"
            )
        found[kind] = present[-1]
    data = DatasetManifest.read(found["dataset"])
    if data.labels_per_image == "several":
        raise InputError(
            f"{run.folder}: expected a run with one label an image, got one with several; correct "
            "the labels in its table"
        )
    fixes = dict(read_fixes(found["dataset"] / FIXES_FILE).fixes) if data.fixes else {}
    return ReviewedRun(
        run.folder, found["dataset"], data, feature_folders(found["features"]), found["head"], fixes
    )


def _inputs(store: ContentStore, evaluation: str) -> Iterator[str]:
    """Yield the entries that an evaluation was made from, and those of its candidates."""
    origins = read_origins(store)
    for of_evaluation in origins.get(evaluation, []):
        for name in of_evaluation.inputs:
            yield name
            for origin in origins.get(name, []):
                yield from origin.inputs


def _is_there(entry: Path) -> bool:
    manifest = manifest_of(entry.name)
    return (entry / manifest).is_file() or any(entry.glob(f"*/{manifest}"))

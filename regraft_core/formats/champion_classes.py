"""The classes and labels of the champion, which a new model must have, too."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from regraft_core.formats.fingerprint import LABELS_FILE
from regraft_core.formats.manifests.dataset import LabelsPerImage
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.published_versions import (
    locate_version,
    read_version_file,
    read_version_manifest,
    resolve_version,
)
from regraft_core.formats.served_thresholds import ServedThresholds
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import is_store_uri


@dataclass(frozen=True)
class ChampionClasses:
    """The name of a champion (model and version), and its classes.

    `labels_per_image` is None if another program exported it.
    """

    name: str
    classes: Collection[str]
    labels_per_image: LabelsPerImage | None = None

    def check(
        self, classes: Collection[str], labels_per_image: LabelsPerImage | None = None
    ) -> None:
        """Check that the champion has these classes, in any order, and as many labels an image.

        Args:
            classes: of a dataset or a model.
            labels_per_image: of the same; None if unknown.

        Raises:
            InputError: it has not; the message lists the differences.
        """
        known = labels_per_image and self.labels_per_image
        if known and labels_per_image != self.labels_per_image:
            label = "one label" if self.labels_per_image == "one" else "several labels"
            raise InputError(
                f"champion {self.name} predicts {label} an image, and this model "
                "does not; publish under a new --model-name"
            )
        missing = sorted(set(classes) - set(self.classes))
        extra = sorted(set(self.classes) - set(classes))
        if missing or extra:
            raise InputError(
                f"champion {self.name} has different classes (missing: {missing or 'none'}; "
                f"extra: {extra or 'none'}); publish under a new --model-name"
            )


def find_champion_classes(location: str) -> ChampionClasses | None:
    """Return the classes and labels of the champion at `location`; None if there is none.

    A model in a bucket is not copied, so that a run can end before it computes anything.

    Args:
        location: the folder or URI of a model or of one of its versions; may be empty.

    Raises:
        InputError: it cannot be read, is damaged, or has no list of its classes.
    """
    if not location:
        return None
    try:
        if is_store_uri(location):
            found = locate_version(location)
            version = found[0] if found else ""
        else:
            version = str(resolve_version(location, Path()) or "")  # copies nothing
        if not version:
            return None
        text = read_version_file(version, LABELS_FILE)
        manifest = read_version_manifest(version)
    except InputError as error:
        raise InputError(f"champion: {error}") from error
    if text is None:
        raise InputError(f"champion: expected {LABELS_FILE} in {version}, found none")
    model, number = version.rstrip("/").split("/")[-2:]
    return ChampionClasses(
        f"{model} version {number}", text.splitlines(), _labels_per_image(manifest)
    )


def _labels_per_image(manifest: SavedModelManifest | None) -> LabelsPerImage | None:
    if manifest is None:
        return None
    return "one" if ServedThresholds.of(manifest.details).by_label is None else "several"

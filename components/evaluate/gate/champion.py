"""The champion: the production version at the destination, run on the same stored bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft_core.formats.champion_classes import ChampionClasses
from regraft_core.formats.fingerprint import LABELS_FILE
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.published_versions import resolve_version
from regraft_core.formats.served_thresholds import SELECTED
from regraft_core.runtime.errors import InputError, RegraftError
from regraft_core.runtime.step_reports import ProgressReporter


@dataclass(frozen=True)
class Champion:
    """A published version: its folder, its class names in order, and its dataset's digest."""

    folder: Path
    classes: tuple[str, ...]
    dataset_digest: str | None

    @property
    def name(self) -> str:
        """Name of the model and number of the version."""
        return f"{self.folder.parent.name} version {self.folder.name}"


def find_champion(location: str, work: Path) -> Champion | None:
    """Find the champion at `location`: the folder or URI of a model or of one of its versions.

    Of a model's versions it is the one labeled `stable`, otherwise the latest. None if `location`
    is empty, does not exist, or has no version.

    Args:
        location: where the model is published.
        work: an empty folder for the copy of a version from an object store.

    Raises:
        InputError: `location` is not the folder of a published model, cannot be read or is damaged,
            or its labels are missing.
    """
    if not location:
        return None
    try:
        folder = resolve_version(location, work)
    except InputError as error:
        raise InputError(f"champion: {error}") from error
    if folder is None:
        return None
    labels = folder / LABELS_FILE
    if not labels.is_file():
        raise InputError(f"champion: expected {LABELS_FILE} in {folder}, found none")
    classes = tuple(labels.read_text(encoding="utf-8").splitlines())
    return Champion(folder.resolve(), classes, _dataset_of(folder))


def _dataset_of(folder: Path) -> str | None:
    try:
        return SavedModelManifest.read(folder).dataset_digest
    except InputError:
        return None  # a model that Regraft did not export can still be run


def check_classes(champion: Champion, classes: Sequence[str]) -> None:
    """Check that the champion has these classes, in any order.

    Raises:
        InputError: it has not; the message lists the differences.
    """
    ChampionClasses(champion.name, champion.classes).check(classes)


def champion_labels(
    champion: Champion, encoded: Sequence[bytes], batch_size: int
) -> NDArray[np.str_]:
    """Return the class names that the champion predicts for encoded images, in order.

    Raises:
        InputError: it predicts several labels an image.
        RegraftError: its signature is missing or fails on an image.
    """
    found = _run(champion, encoded, batch_size, "label", several=False)
    return np.array([name.decode() for batch in found for name in batch])


def champion_scores(
    champion: Champion, encoded: Sequence[bytes], batch_size: int, classes: Sequence[str]
) -> NDArray[np.floating]:
    """Return the probabilities that the champion predicts for encoded images, [n, classes].

    Args:
        champion: a model for several labels an image.
        encoded: the images.
        batch_size: how many it predicts together.
        classes: its classes, in the order of the columns to return.

    Raises:
        InputError: it predicts one label an image.
        RegraftError: its signature is missing or fails on an image.
    """
    found = _run(champion, encoded, batch_size, "probabilities", several=True)
    columns = [champion.classes.index(name) for name in classes]
    return np.concatenate([np.empty((0, len(classes))), *found])[:, columns]


def _run(
    champion: Champion, encoded: Sequence[bytes], batch_size: int, output: str, *, several: bool
) -> list[NDArray[Any]]:
    """Return an output of the champion's default signature, of one batch after another.

    Raises:
        InputError: it is not for as many labels an image.
        RegraftError: its signature is missing or fails on an image.
    """
    import tensorflow as tf  # takes seconds, and finding a champion does not need it

    try:
        loaded = tf.saved_model.load(str(champion.folder))
        signature = loaded.signatures["serving_default"]
        if (SELECTED in signature.structured_outputs) != several:
            raise InputError(
                f"champion {champion.name} predicts {'one label' if several else 'several labels'} "
                "an image, and this model does not; publish under a new --model-name"
            )
        found: list[NDArray[Any]] = []
        progress = ProgressReporter("evaluate: images of test by the champion", len(encoded))
        for start in range(0, len(encoded), batch_size):
            batch = tf.constant(encoded[start : start + batch_size])
            found.append(signature(image_bytes=batch)[output].numpy())
            progress(min(start + batch_size, len(encoded)))
    except (KeyError, TypeError, OSError, ValueError, tf.errors.OpError) as error:
        line = " ".join(str(error).split())[:300]
        raise RegraftError(f"champion {champion.folder} cannot be run: {line}") from error
    return found

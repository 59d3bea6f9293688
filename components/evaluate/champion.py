"""The model in service: found in its published folder and run on the same stored bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.core.artifacts import SavedModelManifest
from components.core.errors import InputError, RegraftError


@dataclass(frozen=True)
class Champion:
    """A published version: its folder, class names in its own order, and its dataset's digest."""

    folder: Path
    classes: tuple[str, ...]
    dataset_digest: str | None

    @property
    def name(self) -> str:
        """Model and version, as people speak of it."""
        return f"{self.folder.parent.name} version {self.folder.name}"


def find_champion(place: str) -> Champion | None:
    """Find the model in service at `place`: a version's folder or that of a model.

    Of a model's versions the newest one (the highest number) that holds a model counts. None when
    `place` is empty, is not there yet, or has no version yet.

    Raises:
        InputError: `place` is no folder of a published model, or its labels are missing.
    """
    if not place:
        return None
    folder = Path(place.removeprefix("file://"))
    if "://" in str(place) and not place.startswith("file://"):
        raise InputError(f"champion: expected a folder, got {place}")
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise InputError(f"champion: expected a folder, got the file {folder}")
    if not _holds_model(folder):
        numbered = [p for p in folder.iterdir() if p.name.isdigit() and _holds_model(p)]
        if not numbered:
            return None
        folder = max(numbered, key=lambda p: int(p.name))
    labels = folder / "assets" / "labels.txt"
    if not labels.is_file():
        raise InputError(f"champion: expected assets/labels.txt in {folder}, found none")
    classes = tuple(labels.read_text(encoding="utf-8").splitlines())
    return Champion(folder.resolve(), classes, _dataset_of(folder))


def _holds_model(folder: Path) -> bool:
    return (folder / "saved_model.pb").is_file()


def _dataset_of(folder: Path) -> str | None:
    try:
        return SavedModelManifest.read(folder).dataset_digest
    except InputError:
        return None  # a model that Regraft did not export, or an older form: it can still be run


def require_same_classes(champion: Champion, classes: Sequence[str]) -> None:
    """Check that both know the same class names, in whatever order.

    Raises:
        InputError: they do not; the message names the differences.
    """
    missing, extra = (
        sorted(set(classes) - set(champion.classes)),
        sorted(set(champion.classes) - set(classes)),
    )
    if missing or extra:
        raise InputError(
            f"champion {champion.name} knows other classes: it lacks {missing or 'none'} and has "
            f"{extra or 'none'} besides; publish under another name to start anew"
        )


def champion_labels(
    champion: Champion, encoded: Sequence[bytes], batch_size: int
) -> NDArray[np.str_]:
    """Return the names that the champion gives to encoded pictures, in order.

    Raises:
        RegraftError: its signature is missing or fails on a picture.
    """
    import tensorflow as tf  # seconds that finding a champion need not wait for

    try:
        loaded = tf.saved_model.load(str(champion.folder))
        signature = loaded.signatures["serving_default"]
        names: list[str] = []
        for start in range(0, len(encoded), batch_size):
            batch = tf.constant(encoded[start : start + batch_size])
            names += [name.decode() for name in signature(image_bytes=batch)["label"].numpy()]
    except (KeyError, TypeError, OSError, ValueError, tf.errors.OpError) as error:
        line = " ".join(str(error).split())[:300]
        raise RegraftError(f"champion {champion.folder} cannot be run: {line}") from error
    return np.array(names)

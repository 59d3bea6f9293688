"""Predictions of any number of images into Parquet: one file, or a folder or bucket of parts.

Images are listed, predicted and written one part after the other, so the memory does not grow with
their number. A file appears when it is complete. A folder has `_predictions.json`, which says for
which images and model it is, and whether it is finished; a second run keeps its complete parts.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from regraft.bulk.image_listing import ListedImage, list_images
from regraft.bulk.output_file import output_file
from regraft.bulk.output_folder import OutputFolder
from regraft.bulk.prediction import IMAGES_PER_TASK, PredictionSetup, in_groups, no_image
from regraft.bulk.prediction_rows import (
    ERRORS,
    KEY,
    PredictionRow,
    as_table,
    check_parquet,
    prepare_rows,
)
from regraft.model_folder import find_model_folder, pinned_version
from regraft_core.formats.manifest_storage import digest_of
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.parallel.executor import Executor
from regraft_core.parallel.local_processes import LocalProcesses
from regraft_core.parallel.ray_executor import ray_executor
from regraft_core.runtime.addresses import is_remote, local_path, redact, refuse_credentials
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import check_scheme, is_store_uri

SUFFIX = ".parquet"
IMAGES_PER_PART = 64 * IMAGES_PER_TASK
_PART_FILE = re.compile(rf"part-\d{{5,}}{re.escape(SUFFIX)}")
STATE_FILE = "_predictions.json"
"""Programs that read a folder of Parquet files ignore names with an underscore."""


@dataclass(frozen=True)
class Written:
    """How many images were predicted, how many of them have an error, and how many parts stayed."""

    images: int
    errors: int
    kept_parts: int = 0


@dataclass(frozen=True)
class _Part:
    """Some images that follow each other, and a digest of all that their rows depend on."""

    number: int
    names: list[str]
    key: str

    @property
    def file(self) -> str:
        return _part_file(self.number)


def _part_file(number: int) -> str:
    return f"part-{number:05d}{SUFFIX}"


def predict_into(
    images: Sequence[str],
    setup: PredictionSetup,
    output: str,
    progress: Callable[[int, int | None], None] | None,
) -> Written:
    """Predict images and write the rows to `output`.

    Args:
        images: files, folders and URIs of buckets.
        setup: the model.
        output: a file that ends in `.parquet`, or a folder; each a path or the URI of a bucket.
        progress: called with the number of images done and None.

    Raises:
        InputError: no image, no model, `output` cannot be written or has something else, a bucket
            does not respond, or as `ray_executor`.
    """
    check_parquet()
    if is_store_uri(output):
        check_scheme("output", output)
        refuse_credentials("output", output)
    listed = list_images(images)
    first = next(listed, None)
    if first is None:
        raise no_image(images)
    listed = chain([first], listed)
    setup = replace(setup, model_dir=pinned_version(setup.model_dir))
    work = _Work(_identify(images, setup), setup, progress)
    with ray_executor(None, setup.model_dir, *images) as connected:
        executor = connected or LocalProcesses()
        if output.endswith(SUFFIX):
            _write_file(output, work, executor, listed)
        else:
            _write_folder(OutputFolder(output), work, executor, listed)
    return Written(work.images, work.errors, work.kept_parts)


def _identify(images: Sequence[str], setup: PredictionSetup) -> dict[str, Any]:
    """Return what the rows depend on, except for the listed images."""
    with tempfile.TemporaryDirectory(prefix="regraft-load-") as work:
        folder = find_model_folder(setup.model_dir, Path(work))
        exported = (folder / SavedModelManifest.file_name).is_file()
        manifest = (SavedModelManifest if exported else ModelManifest).read(folder)
    return {
        "images": [redact(one) if is_remote(one) else str(local_path(one).absolute())
                   for one in images],
        "model": manifest.digest, "engine": setup.engine,
    }  # fmt: skip


class _Work:
    """Predicts parts, and counts."""

    def __init__(
        self, identity: dict[str, Any], setup: PredictionSetup,
        progress: Callable[[int, int | None], None] | None,
    ) -> None:  # fmt: skip
        self.identity, self._setup, self._progress = identity, setup, progress
        self.images = self.errors = self.kept_parts = self.parts = 0

    def tables(
        self, listed: Iterator[ListedImage], executor: Executor,
        stored: Callable[[_Part], Any] = lambda part: None,
    ) -> Iterator[tuple[_Part, Any]]:  # fmt: skip
        """Yield each part that is not stored, with its table.

        Args:
            listed: the images.
            executor: predicts them, several tasks ahead of the part that is written.
            stored: returns the metadata of a part's table, if it exists.
        """
        pending: deque[_Part] = deque()

        def tasks() -> Iterator[list[str]]:
            for part in self._split(listed):
                self.parts += 1
                metadata = stored(part)
                if metadata is None:
                    pending.append(part)
                    yield from in_groups(part.names, IMAGES_PER_TASK)
                else:
                    self.kept_parts += 1
                    self._count(len(part.names), int(metadata[ERRORS]))

        rows: list[PredictionRow] = []
        for result in executor.map_prepared(prepare_rows, self._setup, tasks(), "predict"):
            rows += result
            self._count(len(result), sum(row.error is not None for row in result))
            if len(rows) == len(pending[0].names):
                part = pending.popleft()
                yield part, as_table(rows, part.key)
                rows = []

    def _split(self, listed: Iterator[ListedImage]) -> Iterator[_Part]:
        for number, images in enumerate(in_groups(listed, IMAGES_PER_PART)):
            # As ASCII, because a name need not be valid UTF-8.
            key = digest_of(json.dumps([self.identity, images]))
            yield _Part(number, [image.name for image in images], key)

    def _count(self, images: int, errors: int) -> None:
        self.images, self.errors = self.images + images, self.errors + errors
        if self._progress:
            self._progress(self.images, None)


def _write_file(
    output: str, work: _Work, executor: Executor, listed: Iterator[ListedImage]
) -> None:
    """Write all rows to one file, which appears at the end."""
    with output_file(output, as_table([]).schema.remove_metadata()) as write:
        for _, table in work.tables(listed, executor):
            write(table.replace_schema_metadata())


def _write_folder(
    folder: OutputFolder, work: _Work, executor: Executor, listed: Iterator[ListedImage]
) -> None:
    """Write parts, except those that an earlier run has written for the same images and model.

    Raises:
        InputError: the folder has something else.
    """
    names = folder.names()
    if names and _read_identity(folder, names) != work.identity:
        raise InputError(
            f"output: expected an empty folder, or predictions of these images by this model, at "
            f"{redact(folder.location)}, found something else; choose another one"
        )
    state = {**work.identity, "finished": False}
    folder.write(STATE_FILE, json.dumps(state, indent=2).encode())

    def stored(part: _Part) -> Any:
        found = folder.read_metadata(part.file) if part.file in names else None
        return found if found and found.get(KEY) == part.key.encode() else None

    for part, table in work.tables(listed, executor, stored):
        folder.write_table(part.file, table)
    # Parts of images that were removed since an earlier run.
    written = set(map(_part_file, range(work.parts)))
    for name in sorted(names - written):
        if _PART_FILE.fullmatch(name):
            folder.remove(name)
    state |= {"finished": True, "parts": work.parts, "rows": work.images, "errors": work.errors}
    folder.write(STATE_FILE, json.dumps(state, indent=2).encode())


def _read_identity(folder: OutputFolder, names: set[str]) -> dict[str, Any] | None:
    """Return the images and the model that a folder is for; None if it is for none."""
    if STATE_FILE not in names:
        return None
    try:
        found = json.loads(folder.read(STATE_FILE))
        return {name: found[name] for name in ("images", "model", "engine")}
    except (ValueError, KeyError, TypeError):
        return None

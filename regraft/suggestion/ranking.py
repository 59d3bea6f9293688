"""Ranks unlabeled images by how useful their labels would be to a model."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from regraft.image_inputs import encode_image
from regraft.model_folder import find_model_folder
from regraft_core.curation.image_selection import (
    Candidate,
    CandidatePool,
    label_uncertainties,
    uncertainties,
)
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.served_thresholds import ServedThresholds
from regraft_core.images.prefetch import prefetch_map
from regraft_core.runtime.errors import InputError

BATCH_SIZE = 32
# Names of exported models: the signature, and its outputs without those that a model may lack.
SIGNATURE, FAMILIAR, ERROR = "features", "familiar", "error"
OUTPUTS = ("features", "probabilities", "label", "confidence", ERROR)
Run = Callable[[Sequence[bytes]], dict[str, Any]]


@dataclass(frozen=True)
class SuggestedImage:
    """An image to label.

    Attributes:
        path: The file.
        sha256: SHA-256 (hex) of its bytes.
        predicted: The most probable class; with several labels an image, the JSON list of them.
        confidence: The highest probability of a class.
        uncertainty: Of the prediction, 0 to 1 (`regraft_core/curation/image_selection.py`).
        familiar: Whether it is in-distribution; None if the model has no OOD threshold.
    """

    path: str
    sha256: str
    predicted: str
    confidence: float
    uncertainty: float
    familiar: bool | None


@dataclass(frozen=True)
class Suggestions:
    """The images to label, the most useful first.

    Attributes:
        images: The suggested images.
        candidates: Number of different images that the model could predict.
        refused: Files that it could not, with the reason.
    """

    images: list[SuggestedImage]
    candidates: int
    refused: list[tuple[str, str]]


@dataclass(frozen=True)
class _Encoded:
    path: str
    sha256: str
    data: bytes
    error: str = ""


def suggest_images(
    model: str | os.PathLike[str], folder: Path, count: int,
    progress: Callable[[int, int], None] | None = None,
) -> Suggestions:  # fmt: skip
    """Return at most `count` images of a folder that should be labeled next.

    Args:
        model: as for `regraft.load`, but exported.
        folder: images, also in folders below it; of equal files, one is ranked.
        count: maximum number of images.
        progress: called with the number of files done and in total.

    Raises:
        InputError: there is no image that the model can predict, or the model is not exported or of
            an earlier version.
    """
    from regraft_client.predict_files import find_images

    files = find_images([folder])
    with tempfile.TemporaryDirectory(prefix="regraft-suggest-") as work:
        source = find_model_folder(model, Path(work))
        if (source / ModelManifest.file_name).is_file():
            raise InputError(f"{source}: expected an exported model, got a candidate; publish it")
        run, labels = _load(source), _Labels.of(SavedModelManifest.read(source))
    pool = CandidatePool(count)
    refused: list[tuple[str, str]] = []
    done, found, known = 0, 0, set[str]()
    for batch in _batches(files):
        done += len(batch)
        valid = []
        for one in batch:
            if one.error:
                refused.append((one.path, one.error))
            elif one.sha256 not in known:
                known.add(one.sha256)
                valid.append(one)
        candidates = []
        for one, row in zip(valid, _predict(run, valid), strict=True):
            if reason := row[ERROR].decode():
                refused.append((one.path, reason))
            else:
                candidates.append(_candidate(one, row, labels))
        pool.add(candidates)
        found += len(candidates)
        if progress:
            progress(done, len(files))
    if not found:
        path, reason = refused[0]
        raise InputError(f"{folder}: expected an image that the model can read; {path}: {reason}")
    return Suggestions(pool.select(), found, refused)


@dataclass(frozen=True)
class _Labels:
    """The classes of a model for several labels an image, and their thresholds."""

    classes: Sequence[str]
    thresholds: Sequence[float]

    @classmethod
    def of(cls, manifest: SavedModelManifest) -> Self | None:
        """Return those of an exported model; None if it predicts one label an image."""
        thresholds = ServedThresholds.of(manifest.details).by_label
        return None if thresholds is None else cls(manifest.classes, thresholds)

    def predicted(self, probabilities: NDArray[np.floating]) -> str:
        """Return the JSON list of the labels of an image."""
        selected = np.flatnonzero(probabilities >= np.array(self.thresholds, np.float32)).tolist()
        return json.dumps([self.classes[k] for k in selected], ensure_ascii=False)


def _candidate(one: _Encoded, row: dict[str, Any], labels: _Labels | None) -> Candidate:
    """Return what is kept of an image; its features in half precision, and not those of a batch."""
    familiar = None if FAMILIAR not in row else bool(row[FAMILIAR])
    probabilities = row["probabilities"]
    if labels is None:
        predicted, uncertain = row["label"].decode(), uncertainties(probabilities[None])
    else:
        predicted = labels.predicted(probabilities)
        uncertain = label_uncertainties(probabilities[None], labels.thresholds)
    uncertainty = float(uncertain[0])
    image = SuggestedImage(
        path=one.path, sha256=one.sha256, predicted=predicted,
        confidence=float(row["confidence"]), uncertainty=uncertainty, familiar=familiar,
    )  # fmt: skip
    return Candidate(image, uncertainty, row["features"].astype(np.float16), familiar is not False)


def _load(folder: Path) -> Run:
    """Load an exported model as a function from encoded images to its outputs.

    Raises:
        InputError: it cannot be loaded, or lacks an output.
    """
    from regraft_core.runtime.gpu_setup import GpuSetup, set_up_gpus
    from regraft_core.runtime.quiet_start import quiet_start
    from serving.server.protocol.status import ServingError

    with quiet_start():
        from serving.server.models.servable import load_servable

        set_up_gpus(GpuSetup(tf32=False))
        try:
            servable = load_servable(folder)
        except (ServingError, ValueError) as error:
            raise InputError(f"{folder}: cannot load the exported model: {error}") from error
    signature = servable.signatures.get(SIGNATURE)
    outputs = signature.outputs if signature else {}
    if signature is None or not set(OUTPUTS) <= set(outputs):
        raise InputError(
            f"{folder}: expected a model with the signature {SIGNATURE!r} and its outputs "
            f"{', '.join(OUTPUTS)}; an earlier version has exported it, so run the pipeline again"
        )
    (feed,) = [spec.tensor for spec in signature.inputs.values()]
    fetches = {name: outputs[name].tensor for name in (*OUTPUTS, FAMILIAR) if name in outputs}

    def run(encoded: Sequence[bytes]) -> dict[str, Any]:
        values = servable.run({feed: np.array(encoded, object)}, list(fetches.values()))
        return dict(zip(fetches, values, strict=True))

    return run


def _predict(run: Run, batch: Sequence[_Encoded]) -> Iterator[dict[str, Any]]:
    """Yield the outputs of each image."""
    if not batch:
        return
    outputs = run([one.data for one in batch])
    for k in range(len(batch)):
        yield {name: values[k] for name, values in outputs.items()}


def _batches(files: Sequence[Path]) -> Iterator[list[_Encoded]]:
    """Yield the files in batches; the next ones are read while the model computes."""
    remaining = iter(files)
    batches = iter(lambda: list(islice(remaining, BATCH_SIZE)), [])
    return prefetch_map(lambda batch: [_read(path) for path in batch], batches, threads=1)


def _read(path: Path) -> _Encoded:
    try:
        data = encode_image(path)
        return _Encoded(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), data)
    except (OSError, ValueError) as error:
        return _Encoded(str(path), "", b"", str(error))

"""Predictions of images in files, folders and buckets by a model, without a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from components.ingest.sources.download import read_url
from regraft.bulk.image_listing import list_images
from regraft.model_folder import pinned_version
from regraft_client.image_files import to_served
from regraft_client.predict_files import MAX_FILE_BYTES, FilePrediction
from regraft_core.formats.options.ingest import IngestOptions
from regraft_core.images.prefetch import prefetch_map
from regraft_core.parallel.ray_executor import ray_executor
from regraft_core.runtime.addresses import is_remote, redact
from regraft_core.runtime.errors import InputError, UnavailableError

BULK_IMAGES = 500
"""Images from which on finding the faster engine takes less time than it saves."""
IMAGES_PER_TASK = 256
"""Whole batches, so that a worker has the same batches as one process."""
REMOTE_READS = 16
"""Objects of a bucket that are read at the same time."""
Predictions = tuple[tuple[str, ...], list[FilePrediction]]
"""The classes of a model, and its predictions."""
T = TypeVar("T")


@dataclass(frozen=True)
class PredictionSetup:
    """The model, by its folder or URI, and its engine."""

    model_dir: str
    engine: str


def predict_here(
    images: Sequence[str],
    model_dir: str,
    engine: str,
    progress: Callable[[int, int], None] | None,
) -> Predictions:
    """Predict images as `predict_files` does, in this process or by the workers of its cluster.

    Args:
        images: files, folders and URIs of buckets.
        model_dir: the model, for `regraft.load`.
        engine: its engine; `auto` is `tf` for few images.
        progress: called with the number of files done and in total.

    Raises:
        InputError: no image, no model, a bucket does not respond, or as `ray_executor`.
    """
    names = [image.name for image in list_images(images)]
    if not names:
        raise no_image(images)
    if engine == "auto" and len(names) < BULK_IMAGES:
        engine = "tf"
    setup = PredictionSetup(model_dir, engine)
    classes: tuple[str, ...] = ()
    results: list[FilePrediction] = []
    with ray_executor(None, model_dir, *images) as executor:
        if executor is None:
            model = LoadedModel(setup)
            for result in model(names):
                results.append(result)
                if progress:
                    progress(len(results), len(names))
            return model.classes, results
        # A version that is published meanwhile must not be loaded by some of the workers.
        setup = replace(setup, model_dir=pinned_version(model_dir))
        tasks = in_groups(names, IMAGES_PER_TASK)
        parts = executor.map_prepared(prepare_prediction, setup, tasks, "predict")
        for predictions in parts:
            classes = predictions[0]
            results += predictions[1]
            if progress:
                progress(len(results), len(names))
    return classes, results


def no_image(images: Sequence[str]) -> InputError:
    """Return the error for sources without an image."""
    return InputError(f"found no image in {', '.join(map(redact, images))}")


def prepare_prediction(setup: PredictionSetup) -> Callable[[list[str]], Predictions]:
    """Load a model; return its predictions of images by name as a function."""
    model = LoadedModel(setup)
    return lambda names: (model.classes, list(model(names)))


class LoadedModel:
    """A model in this process, called with the names of images."""

    def __init__(self, setup: PredictionSetup) -> None:
        from regraft.model import load
        from regraft_core.runtime.quiet_start import quiet_start

        with quiet_start():
            self._model = load(setup.model_dir, setup.engine)
        self.classes = self._model.classes

    def __call__(self, names: Sequence[str]) -> Iterator[FilePrediction]:
        """Yield a prediction, or why there is none, for each image.

        Raises:
            UnavailableError: a bucket fails in all attempts.
        """
        from regraft.image_inputs import ImageError

        unread: dict[str, str] = {}

        def read(name: str) -> str | bytes:
            if not is_remote(name):
                return name
            try:
                return to_served(read_url(name, IngestOptions(), MAX_FILE_BYTES))
            except UnavailableError as error:
                raise UnavailableError(f"{redact(name)}: {error}") from error
            except InputError as error:
                unread[name] = str(error)
                return b""

        images = prefetch_map(read, names, REMOTE_READS) if any(map(is_remote, names)) else names
        found = self._model.predict_iter(images, errors="return")
        for name, prediction in zip(names, found, strict=True):
            if isinstance(prediction, ImageError):
                yield FilePrediction(name, None, unread.get(name, prediction.reason))
            else:
                yield FilePrediction(name, prediction)


def in_groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield items in lists of `size`, the last of which may have fewer."""
    remaining = iter(items)
    return iter(lambda: list(islice(remaining, size)), [])

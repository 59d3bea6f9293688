"""Predictions for image files and folders of images by a model, without a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from regraft_client.predict_files import FilePrediction, find_images
from regraft_core.parallel.ray_executor import ray_executor

BULK_IMAGES = 500
"""Images from which on finding the faster engine takes less time than it saves."""
IMAGES_PER_TASK = 256
"""Whole batches, so that a worker has the same batches as one process."""
Predictions = tuple[tuple[str, ...], list[FilePrediction]]
"""The classes of a model, and its predictions."""


@dataclass(frozen=True)
class PredictionSetup:
    """The model, by its folder or URI, and its engine."""

    model_dir: str
    engine: str


def predict_here(
    images: Sequence[Path],
    model_dir: str,
    engine: str,
    progress: Callable[[int, int], None] | None,
) -> Predictions:
    """Predict images as `predict_files` does, in this process or by the workers of its cluster.

    Args:
        images: files and folders.
        model_dir: the model, for `regraft.load`.
        engine: its engine; `auto` is `tf` for few images.
        progress: called with the number of files done and in total.

    Raises:
        InputError: no image, no model, or as `ray_executor`.
    """
    paths = find_images(images)
    if engine == "auto" and len(paths) < BULK_IMAGES:
        engine = "tf"
    setup = PredictionSetup(model_dir, engine)
    classes: tuple[str, ...] = ()
    results: list[FilePrediction] = []
    with ray_executor(None, model_dir, *images) as executor:
        if executor is None:
            model = _LoadedModel(setup)
            for result in model(paths):
                results.append(result)
                if progress:
                    progress(len(results), len(paths))
            return model.classes, results
        parts = executor.map_prepared(prepare_prediction, setup, _parts(paths), "predict")
        for predictions in parts:
            classes = predictions[0]
            results += predictions[1]
            if progress:
                progress(len(results), len(paths))
    return classes, results


def prepare_prediction(setup: PredictionSetup) -> Callable[[list[Path]], Predictions]:
    """Load a model; return its predictions of files as a function."""
    model = _LoadedModel(setup)
    return lambda paths: (model.classes, list(model(paths)))


class _LoadedModel:
    def __init__(self, setup: PredictionSetup) -> None:
        from regraft.model import load
        from regraft_core.runtime.quiet_start import quiet_start

        with quiet_start():
            self._model = load(setup.model_dir, setup.engine)
        self.classes = self._model.classes

    def __call__(self, paths: Sequence[Path]) -> Iterator[FilePrediction]:
        from regraft.image_inputs import ImageError

        found = self._model.predict_iter(paths, errors="return")
        for path, prediction in zip(paths, found, strict=True):
            if isinstance(prediction, ImageError):
                yield FilePrediction(str(path), None, prediction.reason)
            else:
                yield FilePrediction(str(path), prediction)


def _parts(paths: Sequence[Path]) -> Iterator[list[Path]]:
    remaining = iter(paths)
    return iter(lambda: list(islice(remaining, IMAGES_PER_TASK)), [])

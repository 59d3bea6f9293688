"""`regraft.load`: a trained model in this process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, overload

from regraft.image_inputs import (
    ImageError,
    ImageInput,
    encode_image,
    iterate_images,
    name_image,
)
from regraft.model_folder import find_model_folder
from regraft_client.results import Prediction
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.images.prefetch import prefetch_map
from regraft_core.runtime.errors import InputError

Predict = Callable[[Sequence[bytes]], list[Prediction]]
Encoded = tuple[str, bytes | ImageError]


@dataclass(frozen=True, eq=False)
class Model:
    """A model in this process, from `regraft.load`; several threads may use it at once.

    Attributes:
        path: Folder or URL that it was loaded from.
        classes: Class names, in the order of the probabilities.
        image_px: Height and width to which images are resized, in pixels.
        metrics: Metrics on the test split by name; of a candidate, those on validation.

    Example:
        >>> model = regraft.load("runs/pets")
        >>> [prediction] = model.predict("cat.jpg")
        >>> prediction.label, prediction.confidence
        ('cat', 0.981)
    """

    path: str
    classes: tuple[str, ...]
    image_px: int
    metrics: Mapping[str, float] = field(repr=False)
    _predict: Predict = field(repr=False)

    def predict(
        self, images: ImageInput | Iterable[ImageInput], batch_size: int = 32
    ) -> list[Prediction]:
        """Predict images, as a server of this model does.

        Args:
            images: One image or several. An image is the path of a file, the bytes of one, a PIL
                image, or an array: `[height, width]`, or `[height, width, channels]` with 1, 3
                (RGB) or 4 (RGBA) channels, of whole numbers 0 to 255. Other arrays are refused,
                because floats may be meant as 0 to 1 or as 0 to 255.
            batch_size: Images that the model computes together.

        Returns:
            A prediction for each image, in their order: `label`, `confidence`, `probabilities`,
            `familiar`, which is False for an out-of-distribution image, `label_set`, which classes
            are in the set of labels, and `abstain`; each of the last three is None if the model
            was exported without it. A model for several labels an image has `selected`, which
            labels the image has.

        Raises:
            ImageError: An image cannot be read; the message has its path or its index.
            InputError: `images` or `batch_size` is not as described.

        Example:
            >>> for prediction in model.predict(["a.jpg", some_bytes, pil_image, array]):
            ...     print(prediction.label, prediction.confidence)
        """
        return list(self.predict_iter(images, batch_size))

    @overload
    def predict_iter(
        self,
        images: ImageInput | Iterable[ImageInput],
        batch_size: int = 32,
        *,
        errors: Literal["raise"] = "raise",
    ) -> Iterator[Prediction]: ...
    @overload
    def predict_iter(
        self,
        images: ImageInput | Iterable[ImageInput],
        batch_size: int = 32,
        *,
        errors: Literal["return"],
    ) -> Iterator[Prediction | ImageError]: ...
    def predict_iter(
        self,
        images: ImageInput | Iterable[ImageInput],
        batch_size: int = 32,
        *,
        errors: Literal["raise", "return"] = "raise",
    ) -> Iterator[Prediction | ImageError]:
        """Predict images one batch after the other, in bounded memory.

        Args:
            images: As for `predict`; a generator of any length is read as predictions are taken.
            batch_size: Images that the model computes together.
            errors: `raise` stops at the first image that cannot be read; `return` yields its
                error in place of a prediction and continues.

        Yields:
            A prediction, or with `errors="return"` perhaps an `ImageError`, for each image.

        Raises:
            ImageError: An image cannot be read, unless errors are returned.
            InputError: `images`, `batch_size` or `errors` is not as described.

        Example:
            >>> paths = pathlib.Path("images").rglob("*.jpg")
            >>> labels = Counter(p.label for p in model.predict_iter(paths))
        """
        if errors not in ("raise", "return"):
            raise InputError(f"errors: expected 'raise' or 'return', got {errors!r}")
        if batch_size < 1:
            raise InputError(f"batch_size: expected 1 or more, got {batch_size}")
        return self._iterate(iterate_images(images), batch_size, raises=errors == "raise")

    def _iterate(
        self, images: Iterator[ImageInput], batch_size: int, *, raises: bool
    ) -> Iterator[Prediction | ImageError]:
        numbered = enumerate(images)
        batches = iter(lambda: list(islice(numbered, batch_size)), [])
        # The next batch is read while the model computes.
        for batch in prefetch_map(_encode_batch, batches, threads=1):
            for result in self._predict_batch(batch):
                if raises and isinstance(result, ImageError):
                    raise result
                yield result

    def _predict_batch(self, batch: Sequence[Encoded]) -> list[Prediction | ImageError]:
        readable = [(name, data) for name, data in batch if isinstance(data, bytes)]
        predictions = iter(self._predict_readable(readable) if readable else [])
        return [next(predictions) if isinstance(d, bytes) else d for _, d in batch]

    def _predict_readable(
        self, batch: Sequence[tuple[str, bytes]]
    ) -> list[Prediction | ImageError]:
        """Predict a batch, or one image after the other if one of them cannot be decoded."""
        try:
            return [*self._predict([data for _, data in batch])]
        except InputError as error:
            if len(batch) > 1:
                return [result for one in batch for result in self._predict_readable([one])]
            return [ImageError(batch[0][0], str(error))]


def load(path: str | os.PathLike[str], engine: str = "tf") -> Model:
    """Load a model into this process; every byte of it is checked against its digests.

    Args:
        path: One of

            - the folder of a run that was accepted, or a `Run`: the version that it published;
            - a published model, `<destination>/<name>`, as a folder or a URL: its version labeled
              `stable`, otherwise the newest;
            - one version, `<destination>/<name>/<version>`, or any exported model;
            - the folder of a candidate, such as `run.model_dir` of a rejected run. Its confidences
              are not calibrated, and it has no OOD threshold.
        engine: `tf`; `openvino`, for a model that was verified with it; or `auto`, the faster of
            those that it was verified with. A candidate has no other engine than `tf`.

    Returns:
        The model.

    Raises:
        InputError: there is no model, it is damaged, the run was rejected, or the model was not
            verified with the engine.

    Example:
        >>> model = regraft.load("runs/pets")
        >>> model.classes
        ('cat', 'dog')
    """
    with tempfile.TemporaryDirectory(prefix="regraft-load-") as work:
        folder = find_model_folder(path, Path(work))
        # TensorFlow is loaded only if there is a model.
        from regraft.predictors import load_candidate, load_exported

        if (folder / ModelManifest.file_name).is_file():
            if engine not in ("auto", "tf"):
                raise InputError(f"serving-engine: expected tf for a candidate, got {engine}")
            found = load_candidate(folder)
        else:
            found = load_exported(folder, engine)
    return Model(
        path=os.fspath(path),
        classes=tuple(found.classes),
        image_px=found.image_px,
        metrics=found.metrics,
        _predict=found.predict,
    )


def _encode_batch(batch: Sequence[tuple[int, ImageInput]]) -> list[Encoded]:
    encoded: list[Encoded] = []
    for index, image in batch:
        name = name_image(image, index)
        try:
            encoded.append((name, encode_image(image)))
        except ValueError as error:
            encoded.append((name, ImageError(name, str(error))))
    return encoded

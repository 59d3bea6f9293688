"""Predictions for image files and folders of images, with several requests in flight."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .clients import AsyncClient
from .errors import (
    BadRequestError,
    ConnectionFailedError,
    InvalidImageError,
    InvalidInputError,
    ModelNotFoundError,
    NotFoundError,
    RegraftClientError,
    UnavailableError,
    UnsupportedError,
)
from .grpc import AsyncGrpcClient, Tls
from .image_files import is_image_file, is_system_path, to_served
from .pace import Pace
from .rest import AsyncRestClient
from .results import ClassScore, Prediction
from .retries import Retries

MAX_FILE_BYTES = 64 << 20
# A busy server is left to `Pace`, which also sends less; it is retried for at least 10 s.
_RETRIES = Retries(errors=(UnavailableError, ConnectionFailedError))
_BUSY_RETRIES = Retries(attempts=16)
_ASSERTION = re.compile(r"assertion failed: \[(?:image \d+: )?(?P<reason>[^\[\]]+)\]")


@dataclass(frozen=True)
class FilePrediction:
    """The prediction for one file, or the reason why there is none."""

    path: str
    prediction: Prediction | None
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class PredictOptions:
    """How files are sent: images per request, most requests in flight, seconds per attempt."""

    batch_size: int = 1
    concurrency: int = 16
    timeout_s: float = 60.0
    version: int | None = None
    label: str | None = None
    tls: Tls | None = None


def find_images(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the given image files and those in the given folders, sorted by name per folder.

    Raises:
        InvalidInputError: a path does not exist, or there is no image.
    """
    found: list[Path] = []
    for source in map(Path, sources):
        if source.is_file():
            found.append(source)
        elif source.is_dir():
            below = source.rglob("*")
            inside = (path for path in below if not is_system_path(path.relative_to(source)))
            found.extend(sorted(filter(is_image_file, inside)))
        else:
            raise InvalidInputError(f"expected an image or a folder, got {source}")
    if not found:
        folders = ", ".join(map(str, sources))
        raise InvalidInputError(f"found no image in {folders}")
    return found


def make_client(server: str, model: str, options: PredictOptions) -> AsyncClient:
    """Return the asyncio client for a server's URL: grpc://, http:// or https://.

    Raises:
        InvalidInputError: the URL has none of these schemes.
    """
    version, label = options.version, options.label
    if server.startswith("grpc://"):
        return AsyncGrpcClient(
            server, model, options.timeout_s, version=version, label=label, retries=_RETRIES,
            tls=options.tls,
        )  # fmt: skip
    if server.startswith(("http://", "https://")):
        return AsyncRestClient(
            server, model, options.timeout_s, version=version, label=label, retries=_RETRIES
        )
    raise InvalidInputError(
        f"server: expected grpc://host:port or http://host:port, got {server!r}"
    )


def predict_files(
    sources: Sequence[str | os.PathLike[str]],
    server: str,
    model: str,
    options: PredictOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[FilePrediction]:
    """Predict image files and folders of them; return the results in the order of the files.

    An image that the model rejects has an `error` and no prediction. The number of requests in
    flight adapts to what the server accepts.

    Args:
        sources: files and folders.
        server: "grpc://host:port", "http://host:port" or "https://host:port".
        model: the model's name.
        options: batch size, concurrency and version.
        progress: called with the number of files done and in total.

    Raises:
        InvalidInputError: no image, or a URL of another scheme.
        RegraftClientError: the server cannot be reached or does not serve the model.
    """
    options = options or PredictOptions()
    paths = find_images(sources)
    return asyncio.run(_predict_all(paths, server, model, options, progress))


def read_class_names(
    server: str, model: str, options: PredictOptions, results: Sequence[FilePrediction]
) -> tuple[str, ...]:
    """Return the model's classes in the order of the probabilities; () if they are not known.

    The Classify API returns them with the scores of an image, the first one that was predicted.
    """
    path = next((one.path for one in results if one.prediction is not None), None)
    if path is None:
        return ()

    async def ask(path: str) -> list[ClassScore]:
        async with make_client(server, model, options) as client:
            (scores,) = await client.classify([_read(Path(path))])
            return scores

    try:
        return tuple(one.label for one in asyncio.run(ask(path)))
    except RegraftClientError:  # a model without this signature
        return ()


class _TargetCheck:
    """Checks once, at the first refused request, that what the requests are for is served."""

    def __init__(self, server: str, model: str, options: PredictOptions) -> None:
        self._server = server
        self._model = model
        self._options = options
        self._checking: asyncio.Future[None] | None = None

    async def check(self) -> None:
        """Wait for the check.

        Raises:
            NotFoundError: the model, or its version or label, is not served.
        """
        if self._checking is None:
            self._checking = asyncio.ensure_future(self._check())
        await asyncio.shield(self._checking)

    async def _check(self) -> None:
        options = self._options
        try:
            async with make_client(self._server, self._model, options) as client:
                await client.metadata()
        except UnsupportedError:
            pass  # a server without this method
        except (BadRequestError, NotFoundError) as error:
            every = replace(options, version=None, label=None)
            async with make_client(self._server, self._model, every) as client:
                try:
                    await client.metadata()
                except NotFoundError as unknown:
                    raise ModelNotFoundError(unknown.code, unknown.message) from error
                found = [one.version for one in await client.status() if one.state == "AVAILABLE"]
            versions = ", ".join(map(str, found)) or "none"
            text = f"{error.message}; available versions: {versions}"
            raise NotFoundError(error.code, text) from error


async def _predict_all(
    paths: Sequence[Path],
    server: str,
    model: str,
    options: PredictOptions,
    progress: Callable[[int, int], None] | None,
) -> list[FilePrediction]:
    target = _TargetCheck(server, model, options)
    results: dict[int, FilePrediction] = {}
    batches = _batches(len(paths), options.batch_size)
    pace = Pace(options.concurrency, _BUSY_RETRIES)

    async def work(client: AsyncClient) -> None:
        for numbers in batches:  # shared: each worker takes the next one
            batch = [paths[number] for number in numbers]
            done = await _predict_batch(client, pace, target, batch)
            results.update(zip(numbers, done, strict=True))
            if progress is not None:
                progress(len(results), len(paths))

    async with make_client(server, model, options) as client:
        workers = min(max(options.concurrency, 1), len(paths))
        tasks = [asyncio.ensure_future(work(client)) for _ in range(workers)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
    return [results[number] for number in range(len(paths))]


def _batches(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, max(size, 1)):
        yield range(start, min(start + max(size, 1), count))


async def _predict_batch(
    client: AsyncClient, pace: Pace, target: _TargetCheck, paths: Sequence[Path]
) -> list[FilePrediction]:
    contents = [await asyncio.to_thread(_read, path) for path in paths]
    readable = [(path, data) for path, data in zip(paths, contents, strict=True) if data]
    done = dict(await _send(client, pace, target, readable)) if readable else {}
    return [
        done.get(path) or FilePrediction(str(path), None, "cannot be read or is too large")
        for path in paths
    ]


async def _send(
    client: AsyncClient, pace: Pace, target: _TargetCheck, batch: Sequence[tuple[Path, bytes]]
) -> list[tuple[Path, FilePrediction]]:
    start = time.perf_counter()
    reasons: Mapping[int, str] = {}
    predictions: Sequence[Prediction | None]

    async def request() -> list[Prediction]:
        nonlocal start
        start = time.perf_counter()
        return await client.predict([data for _, data in batch])

    try:
        predictions = await pace.send(request)
    except InvalidImageError as error:
        predictions, reasons = error.results, error.reasons
    except NotFoundError:
        await target.check()  # the error may have more to say
        raise
    except BadRequestError as error:
        await target.check()
        # A model without the output `error` fails for the whole batch.
        if len(batch) > 1:
            return [pair for one in batch for pair in await _send(client, pace, target, [one])]
        predictions, reasons = [None], {0: reason_of(error.message)}
    seconds = time.perf_counter() - start
    return [
        (path, FilePrediction(str(path), prediction, reasons.get(index, ""), seconds))
        for index, ((path, _), prediction) in enumerate(zip(batch, predictions, strict=True))
    ]


def reason_of(message: str) -> str:
    """Return why an exported model rejected an image, from the whole error message."""
    found = _ASSERTION.search(message)
    return found["reason"] if found else message


def _read(path: Path) -> bytes:
    try:
        return to_served(path.read_bytes()) if path.stat().st_size <= MAX_FILE_BYTES else b""
    except OSError:
        return b""


def as_json(results: Sequence[FilePrediction], classes: Sequence[str] = ()) -> str:
    """Return the results as a JSON list.

    `familiar` is null if the model does not report it, `classes` if they are not known; those are
    in the order of `probabilities`. `selected`, `label_set` and `abstain` are absent if the model
    does not report them.
    """
    rows = []
    for result in results:
        row: dict[str, object] = {"path": result.path}
        if result.prediction is None:
            row["error"] = result.error
        else:
            row |= {
                "label": result.prediction.label,
                "confidence": result.prediction.confidence,
                "classes": list(classes) or None,
                "probabilities": list(result.prediction.probabilities),
                "familiar": result.prediction.familiar,
            }
            if result.prediction.selected is not None:
                row["selected"] = result.prediction.selected_names(classes)
            if result.prediction.label_set is not None:
                row["label_set"] = result.prediction.names_in_set(classes)
            if result.prediction.abstain is not None:
                row["abstain"] = result.prediction.abstain
        rows.append(row)
    text = json.dumps(rows, indent=2, ensure_ascii=False)
    # A terminal could interpret control characters in the names of files.
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def as_csv(results: Sequence[FilePrediction], classes: Sequence[str] = ()) -> str:
    """Return the results as CSV; `familiar` is empty if the model does not report it.

    The columns `selected`, `label_set` and `abstain` are absent if it does not report them. Lists
    of names are JSON, because a name may contain a comma.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    more = decision_columns(results)
    writer.writerow(["path", "label", "confidence", "familiar", *more, "error"])
    for result in results:
        found = result.prediction
        columns = [""] * (3 + len(more))
        if found:
            flag = format_flag(found.familiar, "true", "false")
            columns = [found.label, f"{found.confidence:.6f}", flag]
            columns += _json_decisions(found, more, classes)
        writer.writerow(map(_cell, [result.path, *columns, result.error]))
    return text.getvalue()


def decision_columns(results: Sequence[FilePrediction]) -> list[str]:
    """Return which of `selected`, `label_set` and `abstain` the model of these results reports."""
    found = [result.prediction for result in results if result.prediction]
    names = ("selected", "label_set", "abstain")
    return [name for name in names if any(getattr(one, name) is not None for one in found)]


def format_decisions(
    found: Prediction, columns: Sequence[str], classes: Sequence[str]
) -> list[str]:
    """Return what a person reads of the columns of `decision_columns`: names, and a flag."""
    texts = {
        "selected": ", ".join(found.selected_names(classes)),
        "label_set": ", ".join(found.names_in_set(classes)),
        "abstain": format_flag(found.abstain),
    }
    return [texts[name] for name in columns]


def _json_decisions(found: Prediction, columns: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Return what a program reads of these columns: JSON lists of names, and a flag."""
    texts = {
        "selected": json.dumps(found.selected_names(classes), ensure_ascii=False),
        "label_set": json.dumps(found.names_in_set(classes), ensure_ascii=False),
        "abstain": format_flag(found.abstain, "true", "false"),
    }
    return [texts[name] for name in columns]


def _cell(text: str) -> str:
    """Return a text for CSV, which is no formula of a spreadsheet and no sequence of a terminal."""
    shown = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    return f"'{shown}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else shown


def format_flag(flag: bool | None, yes: str = "yes", no: str = "no") -> str:
    """Return the text of a flag; it is empty if the model does not report one."""
    return "" if flag is None else yes if flag else no

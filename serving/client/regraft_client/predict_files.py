"""`regraft predict`: images and folders of images, several requests at a time."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from regraft_client.errors import BadRequestError
from regraft_client.grpc import AsyncGrpcClient, Tls
from regraft_client.rest import AsyncRestClient
from regraft_client.results import Prediction
from regraft_core.runtime.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")
MAX_FILE_BYTES = 64 << 20
_ASSERTED = re.compile(r"assertion failed: \[(?:image \d+: )?(?P<reason>[^\[\]]+)\]")
AsyncClient = AsyncRestClient | AsyncGrpcClient


@dataclass(frozen=True)
class FilePrediction:
    """What came of one file: a prediction, or the reason why there is none."""

    path: str
    prediction: Prediction | None
    error: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class PredictOptions:
    """How files are sent: images a request, requests at a time, seconds for each attempt."""

    batch: int = 1
    concurrency: int = 16
    timeout_s: float = 60.0
    version: int | None = None
    label: str | None = None
    tls: Tls | None = None


def find_images(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the image files given or below the folders given, in order of their names.

    Raises:
        InputError: a path does not exist, or there is no image at all.
    """
    found: list[Path] = []
    for source in map(Path, sources):
        if source.is_file():
            found.append(source)
        elif source.is_dir():
            inside = (p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES)
            found.extend(sorted(p for p in inside if p.is_file() and not p.name.startswith(".")))
        else:
            raise InputError(f"expected an image or a folder, got {source}")
    if not found:
        where = ", ".join(map(str, sources))
        raise InputError(f"found no image ({', '.join(SUFFIXES)}) in {where}")
    return found


def make_client(server: str, model: str, options: PredictOptions) -> AsyncClient:
    """Return the asyncio client for an address: grpc://, http:// or https://.

    Raises:
        InputError: the address begins with none of them.
    """
    version, label = options.version, options.label
    if server.startswith("grpc://"):
        return AsyncGrpcClient(
            server, model, options.timeout_s, version=version, label=label, tls=options.tls
        )
    if server.startswith(("http://", "https://")):
        return AsyncRestClient(server, model, options.timeout_s, version=version, label=label)
    raise InputError(f"expected --server grpc://host:port or http://host:port, got {server!r}")


def predict_files(
    sources: Sequence[str | os.PathLike[str]],
    server: str,
    model: str,
    options: PredictOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[FilePrediction]:
    """Predict image files and folders of them; the results are in the order of the files.

    An image that the model refuses has an `error` and no prediction; the others of its request
    are sent again one by one.

    Args:
        sources: files and folders.
        server: "grpc://host:port", "http://host:port" or "https://host:port".
        model: the model's name.
        options: batching and concurrency.
        progress: called with the number of files done and of all.

    Raises:
        InputError: no image, or an address of another kind.
        ServingClientError: the server cannot be reached or does not know the model.
    """
    options = options or PredictOptions()
    paths = find_images(sources)
    return asyncio.run(_predict_all(paths, server, model, options, progress))


async def _predict_all(
    paths: Sequence[Path],
    server: str,
    model: str,
    options: PredictOptions,
    progress: Callable[[int, int], None] | None,
) -> list[FilePrediction]:
    results: dict[int, FilePrediction] = {}
    batches = iter(list(_batches(len(paths), options.batch)))

    async def work(client: AsyncClient) -> None:
        for numbers in batches:  # shared: each worker takes the next one
            for number, result in zip(
                numbers, await _one_batch(client, [paths[n] for n in numbers]), strict=True
            ):
                results[number] = result
            if progress is not None:
                progress(len(results), len(paths))

    async with make_client(server, model, options) as client:
        tasks = [
            asyncio.ensure_future(work(client))
            for _ in range(min(max(options.concurrency, 1), len(paths)))
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
    return [results[number] for number in range(len(paths))]


def _batches(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, max(size, 1)):
        yield range(start, min(start + max(size, 1), count))


async def _one_batch(client: AsyncClient, paths: Sequence[Path]) -> list[FilePrediction]:
    contents = [await asyncio.to_thread(_read, path) for path in paths]
    readable = [(path, data) for path, data in zip(paths, contents, strict=True) if data]
    answered = dict(await _ask(client, readable)) if readable else {}
    return [
        answered.get(path) or FilePrediction(str(path), None, "cannot be read or is too large")
        for path in paths
    ]


async def _ask(
    client: AsyncClient, batch: Sequence[tuple[Path, bytes]]
) -> list[tuple[Path, FilePrediction]]:
    start = time.perf_counter()
    try:
        found = await client.predict([data for _, data in batch])
    except BadRequestError as error:
        if len(batch) > 1:
            return [pair for one in batch for pair in await _ask(client, [one])]
        path = batch[0][0]
        return [(path, FilePrediction(str(path), None, reason_of(error.message)))]
    seconds = time.perf_counter() - start
    return [
        (path, FilePrediction(str(path), prediction, "", seconds))
        for (path, _), prediction in zip(batch, found, strict=True)
    ]


def reason_of(message: str) -> str:
    """Return what an exported model says of an image, without TensorFlow's words around it."""
    found = _ASSERTED.search(message)
    return found["reason"] if found else message


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes() if path.stat().st_size <= MAX_FILE_BYTES else b""
    except OSError:
        return b""


def as_json(results: Sequence[FilePrediction]) -> str:
    """Return the results as a JSON list; `familiar` is null where the model does not say."""
    rows = []
    for result in results:
        row: dict[str, object] = {"path": result.path}
        if result.prediction is None:
            row["error"] = result.error
        else:
            row |= {
                "label": result.prediction.label,
                "confidence": result.prediction.confidence,
                "probabilities": list(result.prediction.probabilities),
                "familiar": result.prediction.familiar,
            }
        rows.append(row)
    return json.dumps(rows, indent=2, ensure_ascii=False)


def as_csv(results: Sequence[FilePrediction]) -> str:
    """Return the results as CSV; `familiar` is empty where the model does not say."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "confidence", "familiar", "error"])
    for result in results:
        found = result.prediction
        answer = (
            (found.label, f"{found.confidence:.6f}", format_flag(found.familiar, "true", "false"))
            if found
            else ("", "", "")
        )
        writer.writerow([result.path, *answer, result.error])
    return text.getvalue()


def format_flag(familiar: bool | None, yes: str = "yes", no: str = "no") -> str:
    """Return what a model says of an image's familiarity; nothing where it says nothing."""
    return "" if familiar is None else yes if familiar else no

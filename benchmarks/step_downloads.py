"""The bytes that each step of a run on a cluster downloads, relative to the files that it reads.

A local S3 server stores the artifacts and the content store, and counts. As Kubeflow's launcher
does, this module downloads all input artifacts of a step before the step starts in a process of
its own. The step itself then downloads what it needs of the content store. What it reads are the
input files that its process opens.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
BUCKET = "cluster"
# Input artifacts by parameter, as (step, output), and the outputs, as in `pipelines/pipeline.py`.
Inputs = dict[str, tuple[str, str]]
DATASET = {"dataset": ("ingest", "dataset")}
MODEL = {"model": ("evaluate", "model"), "evaluation": ("evaluate", "evaluation")}
WIRING: dict[str, tuple[Inputs, tuple[str, ...]]] = {
    "ingest": ({}, ("dataset", "data_card")),
    "extract_features": (DATASET, ("features",)),
    "train_head": ({"features": ("extract_features", "features")}, ("model",)),
    "fine_tune": (
        DATASET | {"features": ("extract_features", "features"), "head": ("train_head", "model")},
        ("candidates",),
    ),
    "evaluate": (
        DATASET | {"candidates": ("fine_tune", "candidates")},
        ("evaluation", "model", "metrics", "classification", "report"),
    ),
    "export": (DATASET | MODEL, ("saved_model",)),
    "verify": (DATASET | MODEL | {"saved_model": ("export", "saved_model")}, ("parity", "table")),
    "publish": (
        {"saved_model": ("export", "saved_model"), "parity": ("verify", "parity")},
        ("published",),
    ),
    "record_verdict": ({"evaluation": ("evaluate", "evaluation")}, ()),
}


@dataclass(frozen=True)
class Downloads:
    """Bytes that a step downloads, and bytes of the input files that it reads."""

    downloaded: int
    read: int

    @property
    def ratio(self) -> float:
        """Downloaded relative to read."""
        return self.downloaded / self.read


class CountingServer:
    """A local S3 server that counts the bytes of the objects that it sends."""

    def __init__(self) -> None:
        self.sent = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[dict[str, str]]:
        """Run the server; yield the environment variables that direct s3fs to it."""
        from tests.object_servers import s3_server

        with s3_server(self._counting) as environment:
            yield environment

    def _counting(self, application: Any) -> Any:
        def counted(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            parts = environ["PATH_INFO"].strip("/").split("/")
            is_object = environ["REQUEST_METHOD"] == "GET" and len(parts) > 1
            for chunk in application(environ, start_response):
                self.sent += len(chunk) if is_object else 0
                yield chunk

        return counted


def measure_downloads(folder: Path, values: Mapping[str, Any]) -> dict[str, Downloads]:
    """Run the steps as on a cluster with a content store in a bucket; return what each downloads.

    Args:
        folder: an empty folder.
        values: options of the recipe; the gate must accept the model.
    """
    server = CountingServer()
    with _cluster(server, folder, values) as (store, options):
        found = {}
        for step in WIRING:
            before = server.sent
            read = _run_pod(store, folder / step, step, options[step])
            found[step] = Downloads(server.sent - before, read)
    return {step: one for step, one in found.items() if one.read}


def measure_worker(folder: Path, values: Mapping[str, Any], workers: int) -> float:
    """Return the bytes that the first worker of an extraction downloads, relative to the dataset.

    The first one has the most shards.

    Args:
        folder: an empty folder.
        values: options of the recipe.
        workers: how many workers share the extraction.
    """
    server = CountingServer()
    with _cluster(server, folder, values, workers) as (store, options):
        _run_pod(store, folder / "ingest", "ingest", options["ingest"])
        sizes = {path: info["size"] for path, info in store.find(BUCKET, detail=True).items()}
        dataset = sum(size for path, size in sizes.items() if path.endswith(".tfrecord"))
        before = server.sent
        _run_pod(store, folder / "worker", "extract_features", options["extract_features"])
    return (server.sent - before) / dataset


@contextlib.contextmanager
def _cluster(
    server: CountingServer, folder: Path, values: Mapping[str, Any], workers: int = 1
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Run a server for the context; yield its files, and the options of each step."""
    import fsspec

    from components.resolve.resolve import resolve_options
    from pipelines.recipes.recipe import make_recipe

    with server.running() as environment, _environment(environment):
        store = fsspec.filesystem("s3")
        store.mkdir(BUCKET)
        recipe = make_recipe(
            work_dir=f"s3://{BUCKET}/work", destination=str(folder / "models"), **values
        )
        yield store, resolve_options(recipe.arguments() | {"workers": workers, "run_id": "run-1"})
        store.rm(BUCKET, recursive=True)  # servers of one process share their buckets


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _run_pod(store: Any, folder: Path, step: str, options: Mapping[str, Any]) -> int:
    """Download the inputs, run a step in a process, upload its outputs.

    Returns the bytes that it read.
    """
    inputs, outputs = WIRING[step]
    for parameter, (producer, output) in inputs.items():
        store.get(f"{BUCKET}/run/{producer}/{output}", str(folder / parameter), recursive=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "options.json").write_text(json.dumps(options), encoding="utf-8")
    subprocess.run([sys.executable, "-m", __name__, step, str(folder)], check=True, cwd=CHECKOUT)
    for output in outputs:
        if (folder / f"{output}.out").exists():
            store.put(str(folder / f"{output}.out"), f"{BUCKET}/run/{step}/{output}",
                      recursive=(folder / f"{output}.out").is_dir())  # fmt: skip
    return int((folder / "read.json").read_text(encoding="utf-8"))


def main() -> None:
    """Run one step in this process, and write how many bytes of its inputs it has read."""
    step, folder = sys.argv[1], Path(sys.argv[2])
    inputs, outputs = WIRING[step]
    opened: set[str] = set()

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            opened.add(os.fsdecode(arguments[0]))

    sys.addaudithook(listen)
    options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    artifacts = {name: _Artifact(folder / name, "") for name in inputs}
    artifacts |= {name: _Artifact(folder / f"{name}.out", f"{step}/{name}") for name in outputs}
    more = {"shard": 0} if step == "extract_features" else {}
    importlib.import_module(f"components.{step}.kfp_step").run(options, **artifacts, **more)
    (folder / "read.json").write_text(str(bytes_read(opened, [folder / name for name in inputs])))


class _Artifact(SimpleNamespace):
    """An artifact as the launcher passes it; what the KFP UI shows is not kept."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path=str(path), uri=f"s3://{BUCKET}/run/{name}", metadata={})

    def log_metric(self, *_: Any) -> None:
        """Do nothing."""

    log_confusion_matrix = log_roc_curve = log_metric


def bytes_read(opened: set[str], folders: list[Path]) -> int:
    """Return the bytes of the opened files that are inputs, or were fetched from the store.

    A file that is being fetched has another name, so it counts only if the step opens it later,
    perhaps by another link.
    """
    from regraft_core.formats.stored_artifacts import fetched_files

    given = [path for folder in folders for path in folder.rglob("*")]
    fetched = fetched_files().glob(f"{'[0-9a-f]' * 64}/*")
    inputs = {path.stat().st_ino for path in (*given, *fetched) if path.is_file()}
    found = [path.stat() for path in map(Path, opened) if path.is_file()]
    return sum({one.st_ino: one.st_size for one in found if one.st_ino in inputs}.values())


if __name__ == "__main__":
    main()

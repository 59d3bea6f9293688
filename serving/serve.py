"""`regraft serve`: every model below a folder, by any engine, until it is told to stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.core.errors import InputError
from serving.publish import FolderStore
from serving.runner import Addresses, ServeOptions, choose_engine, started_server

BATCHING_FILE = Path(__file__).resolve().parent / "config" / "batching.config"


@dataclass(frozen=True)
class FoundModel:
    """A model below a folder: its name, the folder of its versions, its labels."""

    name: str
    path: Path
    labels: dict[str, int]


def batching_flags(file: Path = BATCHING_FILE) -> tuple[str, ...]:
    """Return the flags that switch batching by a file on."""
    return ("--enable_batching=true", f"--batching_parameters_file={file}")


def find_models(base_dir: str | os.PathLike[str]) -> list[FoundModel]:
    """Return the models in `base_dir`: itself if it holds versions, or its subfolders that do.

    Raises:
        InputError: there is none.
    """
    base = Path(base_dir).resolve()
    if not base.is_dir():
        raise InputError(f"expected a folder of models, got {base_dir}")
    folders = [base] if _has_versions(base) else sorted(p for p in base.iterdir() if p.is_dir())
    found = [FoundModel(p.name, p, _labels(p)) for p in folders if _has_versions(p)]
    if not found:
        raise InputError(f"expected <model>/<version>/ below {base}, found no version")
    return found


def models_config(models: Sequence[FoundModel]) -> str:
    """Return TF Serving's models.config: each model's newest version, and those of its labels."""
    lines = ["model_config_list {"]
    for model in models:
        lines += [
            "  config {",
            f"    name: {json.dumps(model.name)}",
            f"    base_path: {json.dumps(str(model.path))}",
            '    model_platform: "tensorflow"',
        ]
        newest = max(int(p.name) for p in model.path.iterdir() if p.name.isdigit())
        if model.labels:
            numbers = sorted({newest, *model.labels.values()})
            versions = " ".join(f"versions: {number}" for number in numbers)
            lines.append(f"    model_version_policy {{ specific {{ {versions} }} }}")
            lines += [
                f"    version_labels {{ key: {json.dumps(label)} value: {number} }}"
                for label, number in sorted(model.labels.items())
            ]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


@contextlib.contextmanager
def serving_folder(
    base_dir: str | os.PathLike[str],
    engine: str = "auto",
    options: ServeOptions | None = None,
    *,
    batching: bool = True,
    page: bool = False,
) -> Iterator[Addresses]:
    """Serve all models below `base_dir` for the block.

    Args:
        base_dir: what `publish` wrote to, or the folder of one model's versions.
        engine: auto, embedded, tensorflow_model_server or docker.
        options: ports, host and further flags of TF Serving.
        batching: join requests that come at the same time.
        page: offer the page to try the models (embedded engine only).

    Raises:
        InputError: no model, no such engine, or a page without the embedded engine.
        RegraftError: the server did not come up.
    """
    chosen = choose_engine(engine)
    if page and chosen != "embedded":
        raise InputError(f"--page needs the embedded engine, got {chosen}")
    models = find_models(base_dir)
    with tempfile.TemporaryDirectory(prefix="regraft-serve-") as folder:
        config = Path(folder) / "models.config"
        config.write_text(models_config(models), encoding="utf-8")
        Path(folder).chmod(0o755)
        flags = [f"--model_name={models[0].name}", f"--model_config_file={config}"]
        if any(model.labels for model in models):
            flags.append("--allow_version_labels_for_unavailable_models=true")
        if batching:
            flags += batching_flags()
        if page:
            flags.append("--page")
        mounts = [*(model.path for model in models), Path(folder), BATCHING_FILE.parent]
        with started_server(flags, chosen, options, mounts) as addresses:
            yield addresses


def serve(
    base_dir: str | os.PathLike[str],
    engine: str = "auto",
    options: ServeOptions | None = None,
    *,
    batching: bool = True,
    page: bool = False,
) -> int:
    """Serve until SIGTERM, SIGINT or the end of the server; print where. Return the exit code.

    The arguments and errors are those of `serving_folder`.
    """
    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: stop.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        with serving_folder(base_dir, engine, options, batching=batching, page=page) as addresses:
            names = ", ".join(model.name for model in find_models(base_dir))
            print(f"engine   {addresses.engine}")
            print(f"models   {names}")
            print(f"gRPC     grpc://{addresses.grpc}")
            print(f"REST     http://{addresses.rest}/v1/models/", flush=True)
            if page:
                print(f"page     http://{addresses.rest}/", flush=True)
            while not stop.wait(0.5):
                if not _alive(addresses.pid):
                    return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _alive(pid: int) -> bool:
    """Tell whether a child still runs (a child that ended is a zombie until it is waited for)."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _has_versions(path: Path) -> bool:
    return any(child.name.isdigit() and child.is_dir() for child in path.iterdir())


def _labels(path: Path) -> dict[str, int]:
    """Return the labels beside the versions, without those whose version is gone."""
    labels = FolderStore(path).labels()
    return {label: number for label, number in labels.items() if (path / str(number)).is_dir()}

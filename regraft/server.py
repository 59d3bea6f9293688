"""`regraft.serve`: the embedded server for the length of a `with` block."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from regraft.model_folder import find_model_folder, models_in, plain_path, published_by, versions_in
from regraft_core.formats.manifests.model import ModelManifest
from regraft_core.formats.version_names import version_number
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.object_stores import is_store_uri

DEFAULT_NAME = "regraft"


@dataclass(frozen=True)
class Server:
    """A running server, from `regraft.serve`.

    Attributes:
        rest: `host:port` of REST.
        grpc: `host:port` of gRPC.
        models: Names of the served models.
    """

    rest: str
    grpc: str
    models: tuple[str, ...]

    @property
    def url(self) -> str:
        """Base URL of REST; a model is at `<url>/v1/models/<name>`."""
        return f"http://{self.rest}"


@contextlib.contextmanager
def serve(
    path: str | os.PathLike[str],
    host: str = "127.0.0.1",
    port: int = 0,
    rest_api_port: int = 0,
    *,
    page: bool = False,
    request_log: str | os.PathLike[str] = "",
    sample: float = 0.01,
    log_images: bool = False,
    log_max_mb: int = 1024,
    shadow_label: str = "",
    mixed_precision: str = "",
    serving_engine: str = "auto",
) -> Iterator[Server]:
    """Serve models by TF Serving's protocol, in a process that ends with the block.

    Args:
        path: The folder of a run that was accepted, or a `Run`: the model that it published; a
            published model, `<destination>/<name>`; a folder of several; or one version or exported
            model alone.
        host: Address to listen on; by default only this machine can connect.
        port: Port of gRPC; 0 is a free one.
        rest_api_port: Port of REST; 0 is a free one.
        page: Serve a page at `/` to try the models in a browser.
        request_log: Folder to log a sample of the requests in; empty logs none.
        sample: Fraction of the requests to log.
        log_images: Log the bytes of the images, too.
        log_max_mb: Maximum MB of the request log; the oldest files are deleted.
        shadow_label: Label of a version that predicts a copy of each logged request; empty: none.
        mixed_precision: `bfloat16`, for models that were verified in it; empty is float32.
        serving_engine: `tf`, `openvino` for models that were verified with it, or `auto`, the
            faster of those that a model was verified with.

    Yields:
        The server, once the models are loaded.

    Raises:
        InputError: there is no published model, a port is taken, an option of the request log is
            out of range, or a model was not verified in the precision or with the engine.
        RegraftError: the server did not start.

    Example:
        >>> with regraft.serve("runs/pets") as server:
        ...     with regraft_client.RestClient(server.rest, "pets") as client:
        ...         [prediction] = client.predict([image_bytes])
    """
    from serving.request_log_options import RequestLogOptions
    from serving.running.runner import ServeOptions
    from serving.running.serve import serving_folder

    recording = RequestLogOptions(
        os.fspath(request_log), sample, log_images, log_max_mb, shadow_label
    )
    with tempfile.TemporaryDirectory(prefix="regraft-serve-") as work:
        base = _served_folder(path, Path(work))
        names = (base.name,) if versions_in(base) else tuple(models_in(base))
        options = ServeOptions(host=host, port=port, rest_api_port=rest_api_port)
        with serving_folder(
            base,
            "embedded",
            options,
            page=page,
            request_log=recording,
            mixed_precision=mixed_precision,
            serving_engine=serving_engine,
        ) as served:
            yield Server(served.addresses.rest, served.addresses.grpc, names)


def _served_folder(path: str | os.PathLike[str], work: Path) -> Path:
    """Return the folder of a published model, or of several, that `path` refers to."""
    source = published_by(path)
    folder = Path(source)
    if not is_store_uri(source):
        if source != plain_path(path):  # a run: all versions of its model
            return folder.parent
        if folder.is_dir() and (versions_in(folder) or models_in(folder)):
            return folder.resolve()
        if (folder / ModelManifest.file_name).is_file():
            raise InputError(f"{folder}: expected an exported model, got a candidate")
    version = find_model_folder(source, work).resolve()
    if is_store_uri(source):
        return version.parent
    # Alone in a folder of versions, as servers expect it.
    is_version = version_number(version.name) is not None
    link = work / (version.parent.name if is_version else DEFAULT_NAME)
    link.mkdir()
    (link / (version.name if is_version else "1")).symlink_to(version, target_is_directory=True)
    return link

"""The connection of a step to a Ray cluster, whose nodes are checked before the work."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tenacity import (
    retry,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from regraft_core.parallel.executor import Executor
from regraft_core.parallel.ray_package import check_ray_package
from regraft_core.runtime.addresses import is_url, redact
from regraft_core.runtime.errors import InputError, UnavailableError
from regraft_core.runtime.object_stores import access_error, open_store_uri
from regraft_core.runtime.printable import one_line
from regraft_core.runtime.quiet_start import quiet_start
from regraft_core.runtime.version import code_digest

CONNECT_S = 10.0
CONNECT_ATTEMPTS = 3
"""A head gives a client's process half a minute to start, which a busy one may exceed."""
_NOT_IN_TIME = "Initialization failure from server"
CHECK_S = 300.0
"""Time for a node to start a worker and check what it needs."""
BUCKET_ATTEMPTS = 3
BUCKET_WAIT_S = 10.0
_MARK = ".regraft-ray-"


def connect(
    address: str, folder: Path | None, used: Sequence[Path], buckets: Sequence[str] = (),
    written: Sequence[Path] = (),
) -> Executor:  # fmt: skip
    """Connect to a cluster and check all of its nodes.

    Args:
        address: HOST:PORT of a cluster that this machine is a node of, `auto` for the one that
            runs on this machine, or `ray://HOST:PORT` of another's client port.
        folder: a folder that all nodes must have, with what is written there; None for none.
        used: folders and files that all nodes must have.
        buckets: URIs of folders and objects that all nodes must be able to read.
        written: folders that all nodes must be able to write to.

    Raises:
        InputError: Ray is not installed, no cluster is at the address, it has another version of
            Ray, Python or Regraft, or a node cannot reach one of the paths and URIs.
        UnavailableError: a bucket fails on a node in all attempts.
    """
    check_ray_package(address)
    if address != "auto":
        _check_port(address)
    import ray

    from regraft_core.parallel.ray_workers import RayWorkers

    for attempt in range(1, CONNECT_ATTEMPTS + 1):
        try:
            with quiet_start(), warnings.catch_warnings():  # the error has the cause, too
                warnings.simplefilter("ignore")
                ray.init(
                    address=address, log_to_driver=False, logging_level="ERROR", namespace="regraft"
                )
            break
        except Exception as error:  # of many classes, and of those of gRPC
            if attempt == CONNECT_ATTEMPTS or _NOT_IN_TIME not in str(error):
                raise _refused(address, error) from error
    try:
        _check_nodes(address, folder, used, buckets, written)
    except BaseException:
        ray.shutdown()
        raise
    return RayWorkers()


def _check_port(address: str) -> None:
    """Check that something listens, because Ray would wait for minutes."""
    parts = urlsplit(address if is_url(address) else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise InputError(f"ray: expected local, auto or ray://HOST:PORT, got {address}")
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        raise InputError(
            f"ray: no Ray cluster responds at {address}: {error.strerror or error}; --ray local "
            "starts one on this machine"
        ) from error


def _refused(address: str, error: Exception) -> InputError:
    text = one_line(error).partition(". ")[0].partition(" Traceback")[0]
    if "ersion" in text:
        import ray

        hint = f"here: Ray {ray.__version__}, Python {sys.version.split()[0]}"
    elif "not find any running" in text:
        hint = "--ray local starts one on this machine"
    else:  # a client is often not told that its token is refused
        hint = (
            "with RAY_AUTH_MODE=token, the cluster's token is read from RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH"
        )
    return InputError(f"ray: cannot use the cluster at {address}: {text[:200]}; {hint}")


def _check_nodes(
    address: str, folder: Path | None, used: Sequence[Path], buckets: Sequence[str],
    written: Sequence[Path],
) -> None:  # fmt: skip
    """Have each node check its version and the paths, one of which has just been written."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from regraft_core.parallel.ray_workers import nodes

    found = nodes()
    if not found:
        raise InputError(f"ray: expected nodes with CPUs in the cluster at {address}, found none")
    paths = [str(path.absolute()) for path in used]
    with contextlib.ExitStack() as opened:
        if folder is not None:
            mark = folder.absolute() / f"{_MARK}{secrets.token_hex(8)}"
            paths.append(str(opened.enter_context(_temporary_file(mark))))
        remote = ray.remote(num_cpus=0, max_retries=2)(check_node)
        needed = [*buckets], [str(path.absolute()) for path in written]
        digest, asked = code_digest(), []
        for node in found:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            reference = remote.options(scheduling_strategy=there).remote(digest, paths, *needed)
            asked.append((node["NodeManagerAddress"], reference))
        lost = 0
        for name, reference in asked:
            try:
                ray.get(reference, timeout=CHECK_S)
            except GetTimeoutError as error:
                raise InputError(
                    f"ray: node {name} did not respond within {CHECK_S:g} s"
                ) from error
            except RayTaskError as error:
                raise _lacking(name, error.cause) from error
            except RayError:  # it has just been lost, and gets no work
                lost += 1
        if lost == len(asked):
            raise InputError(f"ray: all nodes of the cluster at {address} are lost")


def _lacking(name: str, error: Exception) -> InputError:
    """Return the error of a node's check, of the same kind."""
    if isinstance(error, InputError):
        return type(error)(f"ray: node {name} {error}")
    return InputError(f"ray: node {name} cannot run Regraft: {one_line(error)[:200]}")


def check_node(digest: str, paths: list[str], buckets: list[str], written: list[str]) -> None:
    """Check that this node has what it needs.

    Raises:
        InputError: it has another version of Regraft, or lacks one of the paths or URIs.
        UnavailableError: a bucket fails in all attempts.
    """
    if code_digest() != digest:
        raise InputError("has another version of Regraft; use the same on all nodes")
    for path in paths:
        if not os.path.exists(path):  # noqa: PTH110 - not made on this machine
            where = Path(path).parent if _MARK in path else path
            raise InputError(f"cannot reach {where}; use a folder that all nodes share")
    for path in written:
        with _temporary_file(Path(path) / f"{_MARK}{secrets.token_hex(8)}"):
            pass
    for uri in buckets:
        if not any(character in uri for character in "*?[{"):  # a pattern, which no worker reads
            _check_bucket(uri)


@retry(
    retry=retry_if_exception_type(UnavailableError), stop=stop_after_attempt(BUCKET_ATTEMPTS),
    wait=wait_random_exponential(max=BUCKET_WAIT_S), reraise=True,
)  # fmt: skip
def _check_bucket(uri: str) -> None:
    try:
        store, path = open_store_uri(uri)
        store.info(path)
    except InputError:
        raise
    except Exception as error:  # each store raises the errors of its own library
        raise access_error(f"cannot read {redact(uri)}", error) from error


@contextlib.contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    try:
        path.touch(exist_ok=False)
    except OSError as error:
        raise InputError(f"cannot write to {path.parent}: {error.strerror}") from error
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)

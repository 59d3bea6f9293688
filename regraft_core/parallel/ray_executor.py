"""The Ray cluster that a step uses, if its run has one.

The address is a setting of the machine, in an environment variable: no result depends on it, so it
is in no option, digest or cache key.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from regraft_core.parallel.executor import Executor
from regraft_core.runtime.addresses import is_http
from regraft_core.runtime.object_stores import is_store_uri

if TYPE_CHECKING:
    from regraft_core.parallel.ray_group import NodeGroup

RAY_VARIABLE = "REGRAFT_RAY"
"""Address of a Ray cluster: HOST:PORT, `auto` or `ray://HOST:PORT`; empty or missing for none."""


@contextlib.contextmanager
def ray_executor(
    folder: str | Path | None, *used: str | Path, written: Sequence[str | Path] = ()
) -> Iterator[Executor | None]:
    """Connect to the cluster for the context; without one, the executor is None.

    Args:
        folder: all nodes must see what is written to this folder; None without one.
        *used: what the workers read: paths that exist here must exist on all nodes, and buckets
            must be readable there. Others, such as names of samples, are ignored.
        written: the folders that the workers write to.

    Raises:
        InputError: as `ray_connection.connect`.
    """
    address = os.environ.get(RAY_VARIABLE, "")
    if not address:
        yield None
        return
    from regraft_core.parallel.ray_connection import connect

    existing = [Path(path) for path in used if path and Path(path).exists()]
    buckets = [uri for uri in map(str, used) if is_store_uri(uri) and not is_http(uri)]
    results = [Path(one) for one in written if Path(one).exists()]
    seen = Path(folder) if folder else None
    with connect(address, seen, existing, buckets, results) as executor:
        yield executor


@contextlib.contextmanager
def ray_nodes(
    folder: str | Path, *used: str | Path, written: str | Path = ""
) -> Iterator[NodeGroup | None]:
    """Connect to the cluster for the context, for one process on each node; see `ray_executor`.

    Args:
        folder: all nodes must be able to write to it.
        *used: what the processes read.
        written: another folder that they read and write, or a bucket; "" for none.

    Raises:
        InputError: as `ray_connection.connect`.
    """
    results = [folder, written] if written else [folder]
    with ray_executor(folder, *used, written, written=results) as executor:
        if executor is None:
            yield None
            return
        from regraft_core.parallel.ray_group import NodeGroup

        yield NodeGroup()

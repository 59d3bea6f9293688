"""Which version of a published model all workers of a prediction load."""

from __future__ import annotations

import fsspec

from regraft.model_folder import pinned_version


def test_a_version_that_is_published_later_is_not_taken() -> None:
    store = fsspec.filesystem("memory")
    store.pipe_file("/pinned/pets/2/saved_model.pb", b"graph")
    location = pinned_version("memory://pinned/pets")
    store.pipe_file("/pinned/pets/3/saved_model.pb", b"graph")
    assert location.endswith("/pinned/pets/2")
    assert pinned_version(location) == location
    assert pinned_version("memory://pinned/none") == "memory://pinned/none"

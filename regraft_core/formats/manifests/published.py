"""The manifest of a published version, which `publish` writes."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from regraft_core.formats.manifest_storage import Manifest


class PublishedManifest(Manifest):
    """`published.json`: the record of a publish step (kept with the run, not with the version)."""

    file_name: ClassVar[str] = "published.json"

    name: str = Field(description="Name of the model.")
    version: int = Field(description="Number of the version.")
    path: str = Field(description="Folder or URI of the version.")
    saved_model_digest: str = Field(description="Digest of the published folder.")
    parity: dict[str, float] = Field(
        description="Maximum difference by protocol, from `parity.json`."
    )

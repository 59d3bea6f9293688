"""The options of the step `publish`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regraft_core.formats.options.option_types import (
    Options,
)


class PublishOptions(Options):
    """What happens to versions at the destination."""

    version_label: Literal["", "stable", "canary"] = Field(
        default="", description="Label of the new version; empty sets none."
    )
    keep_last: int = Field(
        default=0, ge=0, description="Number of versions to keep; 0 keeps all of them."
    )
    model_registry: str = Field(
        default="",
        pattern="^(https?://.+)?$",
        description="URL of a Kubeflow Model Registry to register the version in; empty skips it.",
    )
    mlflow: str = Field(
        default="",
        pattern="^(https?://.+)?$",
        description="URL of an MLflow tracking server to log the run to; empty skips it.",
    )

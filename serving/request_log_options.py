"""The options of the request log and the shadow, which `regraft serve` passes to the server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from regraft_core.runtime.errors import InputError
from regraft_core.runtime.safe_files import open_private_folder

FOLDER_OPTION = "--request-log"


@dataclass(frozen=True)
class RequestLogOptions:
    """Where a sample of the requests is logged; an empty `request_log` is no log.

    `sample` is a fraction of the requests, `log_max_mb` limits all files together, and
    the version labeled `shadow_label` receives a copy of each logged request.
    """

    request_log: str = ""
    sample: float = 0.01
    log_images: bool = False
    log_max_mb: int = 1024
    shadow_label: str = ""

    def check(self) -> None:
        """Check the values.

        Raises:
            InputError: a value is out of range, or needs a folder.
        """
        if not 0 < self.sample <= 1:
            raise InputError(f"--sample: expected above 0 and at most 1, got {self.sample}")
        if self.log_max_mb < 1:
            raise InputError(f"--log-max-mb: expected 1 or more, got {self.log_max_mb}")
        if not self.request_log and (self.log_images or self.shadow_label):
            option = "--log-images" if self.log_images else "--shadow-label"
            raise InputError(f"{option}: expected {FOLDER_OPTION} DIR with it, got none")

    def check_folder(self) -> None:
        """Create the folder if it does not exist.

        Raises:
            InputError: it cannot be used.
        """
        if self.request_log:
            os.close(open_private_folder(Path(self.request_log), FOLDER_OPTION))

    def flags(self) -> list[str]:
        """Return the flags of the embedded server."""
        if not self.request_log:
            return []
        return [
            f"{FOLDER_OPTION}={Path(self.request_log).absolute()}",
            f"--sample={self.sample}",
            f"--log-images={str(self.log_images).lower()}",
            f"--log-max-mb={self.log_max_mb}",
            f"--shadow-label={self.shadow_label}",
        ]

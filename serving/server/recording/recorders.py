"""The request log and the shadow of one server, as its options set them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from serving.request_log_options import RequestLogOptions
from serving.server.metrics import Metrics
from serving.server.models.catalog import Catalog
from serving.server.models.observation import Recorder
from serving.server.recording.log_files import LogFiles
from serving.server.recording.request_log import RequestLog, VersionRecorder
from serving.server.recording.shadow import Shadow


class Recorders:
    """Makes the recorders of versions, whose samples are written until `close`."""

    def __init__(
        self,
        options: RequestLogOptions,
        catalog: Catalog,
        metrics: Metrics,
        log: Callable[[str], None],
    ) -> None:
        """Start the request log and the shadow, if the options ask for them.

        Raises:
            InputError: the folder of the log cannot be used.
        """
        self._fraction = options.sample
        self._log: RequestLog | None = None
        self._shadow: Shadow | None = None
        if options.request_log:
            files = LogFiles(Path(options.request_log), options.log_max_mb << 20)
            self._log = RequestLog(files, metrics, log, with_images=options.log_images)
            if options.shadow_label:
                self._shadow = Shadow(catalog, options.shadow_label, metrics, self._log.add)

    def make(self, model: str, version: int) -> Recorder | None:
        """Return the recorder of a version, None if there is no request log."""
        if self._log is None:
            return None
        add = self._log.add if self._shadow is None else self._shadow.add
        return VersionRecorder(model, version, self._fraction, add)

    def close(self) -> None:
        """Write the samples that wait, and complete the log."""
        for part in (self._shadow, self._log):
            if part is not None:
                part.close()

"""The time of a run up to its candidates: what is used, and what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from regraft_core.formats.manifests.features import FeaturesManifest
from regraft_core.formats.manifests.model import ModelManifest


class Budget:
    """Seconds from the start of extraction to the end of fine-tuning.

    What extraction and head took is read from their manifests, so that cached steps count, too.
    """

    def __init__(
        self, seconds: float, used: float, now: Callable[[], float] = time.perf_counter
    ) -> None:
        """Start with the seconds that are used already."""
        self.seconds, self.used_before, self._now = seconds, used, now
        self._start = now() - used

    @property
    def used(self) -> float:
        """The seconds that are used."""
        return self._now() - self._start

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self.seconds - self.used

    def resume(self, used: float) -> None:
        """Count what an interrupted search used."""
        self._start = min(self._start, self._now() - used)


def used_seconds(features: Sequence[FeaturesManifest], head: ModelManifest) -> float:
    """Return the seconds of extraction, by its slowest worker, and of the head."""
    return max(one.made_by.seconds for one in features) + head.made_by.seconds

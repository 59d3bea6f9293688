"""The decisions of a review as they are made: checked, and saved to the file of fixes at once."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Mapping
from pathlib import Path

from regraft_core.formats.fixes import Fix, make_fix, read_fixes, write_fixes
from regraft_core.runtime.errors import InputError


class Decisions:
    """The file of fixes of a review; several requests may change it at once.

    It contains the fixes that the dataset was made with and those of an earlier review, so that it
    alone is enough for the next run.
    """

    def __init__(
        self, path: Path, labels: Mapping[str, str], classes: list[str], who: str,
        earlier: Mapping[str, Fix],
    ) -> None:  # fmt: skip
        """Continue the file at `path` if it exists.

        Args:
            path: the file of fixes.
            labels: labels of the images to decide on, by SHA-256.
            classes: possible new labels.
            who: the reviewer.
            earlier: fixes that the dataset was made with.

        Raises:
            InputError: the file exists and is not one of fixes, or its folder does not exist.
        """
        self.path, self._labels, self._classes, self._who = path, labels, classes, who
        self._lock = threading.Lock()
        self.fixes: dict[str, Fix] = dict(earlier)
        if not path.absolute().parent.is_dir():
            raise InputError(f"--fixes: expected a folder at {path.absolute().parent}, found none")
        if path.exists():
            self.fixes |= read_fixes(path).fixes

    def decide(self, sha256: str, action: str, new_label: str = "") -> int:
        """Save a decision about an image; without an action, the image is undecided again.

        Returns:
            The number of decisions in the file.

        Raises:
            InputError: the image is not part of the review, or the action or label is unknown.
        """
        if sha256 not in self._labels:
            raise InputError(f"expected an image of this review, got {sha256[:80]!r}")
        if new_label and new_label not in self._classes:
            raise InputError(f"expected a class as new label, got {new_label[:80]!r}")
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._lock:
            changed = {key: fix for key, fix in self.fixes.items() if key != sha256}
            if action:
                label = self._labels[sha256]
                changed[sha256] = make_fix(sha256, action, label, new_label, self._who, now)
            write_fixes(self.path, changed.values())
            self.fixes = changed
            return len(changed)

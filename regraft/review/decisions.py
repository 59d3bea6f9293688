"""The decisions of a review as they are made: checked, and saved to the file of fixes at once."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from regraft_core.formats.fixes import Fix, check_text, make_fix, read_fixes, write_fixes
from regraft_core.runtime.errors import InputError


class Decisions:
    """The file of fixes of a review; several requests may change it at once.

    It contains the fixes that the dataset was made with and those of an earlier review, so that it
    alone is enough for the next run. It is read again before each change, in which other processes
    wait, so that reviews with one file keep each other's decisions. Without a decision there is no
    file.
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
            InputError: the file exists and is not one of fixes, its folder does not exist, or the
                reviewer's name has control characters.
        """
        try:
            check_text(who)
        except InputError as error:
            raise InputError(f"--who: {error}") from None
        self.path, self._labels, self._classes, self._who = path, labels, classes, who
        self._lock = threading.Lock()
        self._earlier = dict(earlier)
        self.fixes = dict(earlier)
        if not path.absolute().parent.is_dir():
            raise InputError(f"--fixes: expected a folder at {path.absolute().parent}, found none")
        self.fixes = self._present()

    def decide(self, sha256: str, action: str, new_label: str = "") -> int:
        """Save a decision about an image; without an action, the image is undecided again.

        Returns:
            The number of decisions in the file.

        Raises:
            InputError: the image is not part of the review, the action or label is unknown, or the
                file was changed and is not one of fixes any more.
        """
        if sha256 not in self._labels:
            raise InputError(f"expected an image of this review, got {sha256[:80]!r}")
        if new_label and new_label not in self._classes:
            raise InputError(f"expected a class as new label, got {new_label[:80]!r}")
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._lock, _locked(self.path.absolute().parent):
            changed = {key: fix for key, fix in self._present().items() if key != sha256}
            if action:
                label = self._labels[sha256]
                changed[sha256] = make_fix(sha256, action, label, new_label, self._who, now)
            if changed:
                write_fixes(self.path, changed.values())
            else:
                self.path.unlink(missing_ok=True)
            self._earlier.pop(sha256, None)
            self.fixes = changed
            return len(changed)

    def _present(self) -> dict[str, Fix]:
        """Return the fixes of the file and the earlier ones; without a file, those so far."""
        if not self.path.exists():
            return self.fixes
        return {**self._earlier, **read_fixes(self.path).fixes}


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make other processes wait that lock the folder; some file systems have no locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

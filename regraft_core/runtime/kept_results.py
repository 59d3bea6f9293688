"""Results of measurements, kept in a file of this user by the kind of machine.

What is faster on a machine, a step measures. The next run on a machine of the same kind reads the
result, so that it decides the same without measuring.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regraft_core.runtime.machine import available_cores, machine_kind
from regraft_core.runtime.safe_files import replaced_file


@dataclass(frozen=True)
class KeptResults:
    """The results in one file; `~` in its path is the user's home.

    A key says what was measured. The kind of machine and the number of cores are always part of it.
    """

    path: Path

    def find(self, key: Sequence[Any]) -> Any:
        """Return the result with this key, None if there is none or the file is damaged."""
        return self._read().get(_digest(key))

    def keep(self, key: Sequence[Any], result: Any) -> None:
        """Write a result; a machine without a writable home measures again."""
        path = self.path.expanduser()
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            kept = self._read() | {_digest(key): result}
            with replaced_file(path) as file:
                file.write(json.dumps(kept, indent=2).encode())

    def _read(self) -> dict[str, Any]:
        try:
            kept = json.loads(self.path.expanduser().read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return kept if isinstance(kept, dict) else {}


def _digest(key: Sequence[Any]) -> str:
    parts = [*key, machine_kind(), available_cores(), os.cpu_count()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

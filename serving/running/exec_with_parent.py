"""Runs a command that is stopped when the process that started it ends, however that ends.

`python exec_with_parent.py PARENT_PID COMMAND...` becomes the command, so its process ID and its
signals are the command's. A server that outlived the program that started it would keep its ports.
Linux only; elsewhere the command runs as it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Replace this process by `command`."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library has no prctl
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has ended before
            sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606 (the arguments are a list)
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

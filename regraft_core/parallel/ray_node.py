"""One Ray node of this machine as a process: it ends, with its session folder, with its parent.

Ray's own command leaves its node running when the process that started it is killed. This one reads
its standard input, which the system closes then, and stops the node. Arguments: those of
`ray start`; `--temp-dir` names the folder that is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

STOP_S = 10.0
"""Time that a node has to stop."""


def main(arguments: list[str]) -> int:
    """Run the node until standard input ends or the node does; return its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes of a run
    ray = Path(sys.executable).with_name("ray")
    node = subprocess.Popen(
        [ray, "start", "--block", *arguments], stdin=subprocess.DEVNULL, start_new_session=True
    )
    threading.Thread(target=_stop_with_input, args=(node,), daemon=True).start()
    code = node.wait()
    _kill(node)
    shutil.rmtree(arguments[arguments.index("--temp-dir") + 1], ignore_errors=True)
    return code


def _stop_with_input(node: subprocess.Popen[bytes]) -> None:
    sys.stdin.read()
    node.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        node.wait(STOP_S)
    _kill(node)


def _kill(node: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the node's processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

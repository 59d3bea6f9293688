"""Publishers that are really killed, at every point at which they access the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from regraft_core.formats.fingerprint import check_fingerprint
from serving.publishing.publish import open_store

ROOT = Path(__file__).resolve().parents[3]
# Kills itself at the n-th event (open, rename, mkdir, ...) with a path of the destination.
KILLED = """
import os, signal, sys

exported, models, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
from regraft_core.formats.fingerprint import check_fingerprint
from serving.publishing.publish import open_store

count = 0


def hook(event, arguments):
    global count
    if event.startswith(("open", "os.", "shutil.")) and any(models in str(a) for a in arguments):
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(hook)
folder = __import__("pathlib").Path(exported)
print(open_store(models, "m").add(folder, check_fingerprint, lambda: None))
"""
# Another publisher's version 1 appears just before this publisher's rename to 1.
OVERTAKEN = """
import sys
from pathlib import Path

exported, models = sys.argv[1], sys.argv[2]
from regraft_core.formats.fingerprint import check_fingerprint
from serving.publishing.publish import open_store

other = Path(models, "m", "1")


def hook(event, arguments):
    if event == "os.rename" and Path(arguments[1]) == other:
        other.mkdir()
        (other / "foreign.txt").write_text("keep")


sys.addaudithook(hook)
print(open_store(models, "m").add(Path(exported), check_fingerprint, lambda: None))
"""
PUBLISHING = """
import sys
from pathlib import Path
from regraft_core.formats.fingerprint import check_fingerprint
from serving.publishing.publish import open_store

sys.stdin.read()
for _ in range(5):
    print(open_store(sys.argv[2], "m").add(Path(sys.argv[1]), check_fingerprint, lambda: None))
"""


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_a_killed_publisher_leaves_no_incomplete_version(exported: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    killed, kill_at = 0, 1
    while True:
        child = run(KILLED, str(exported), str(models), str(kill_at))
        out, _ = child.communicate(timeout=60)
        for number in open_store(str(models), "m").versions():
            check_fingerprint(models / "m" / str(number))
        visible = [p.name for p in (models / "m").glob("[!.]*")] if models.exists() else []
        assert sorted(visible) == [str(n) for n in open_store(str(models), "m").versions()]
        if child.returncode == 0:
            break
        assert child.returncode == -9
        killed += 1
        kill_at += 4
    assert killed > 10
    # The publisher that was not killed deleted the folders of the killed ones.
    assert not list((models / "m").glob(".publishing-*"))
    check_fingerprint(models / "m" / out.strip())


def test_an_overtaken_publisher_takes_the_next_number(exported: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    child = run(OVERTAKEN, str(exported), str(models))
    out, _ = child.communicate(timeout=60)
    assert (child.returncode, out.strip()) == (0, "2")
    assert (models / "m" / "1" / "foreign.txt").read_text() == "keep"
    check_fingerprint(models / "m" / "2")


def test_concurrent_publishers_get_distinct_versions(exported: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    children = [run(PUBLISHING, str(exported), str(models)) for _ in range(3)]
    outputs = [child.communicate("go", timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    numbers = [int(line) for out in outputs for line in out.split()]
    assert sorted(numbers) == list(range(1, 16))
    for number in numbers:
        check_fingerprint(models / "m" / str(number))
    assert not list((models / "m").glob(".publishing-*"))

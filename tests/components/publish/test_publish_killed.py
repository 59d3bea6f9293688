"""Steps are killed in each phase of publishing, also two at once; each model is published once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regraft_core.formats.manifests.saved_model import SavedModelManifest
from tests.components.publish.test_publish_step import write_parity

ROOT = Path(__file__).resolve().parents[3]
# Each attempt is a forked process, and the model is not loaded, which would take most of the time.
# It kills itself at the n-th kind of change of the destination or the output: a new folder or file,
# or a rename. All changes inside one folder are of one kind.
ATTEMPTS = """
import json, os, re, signal, sys
from pathlib import Path

import serving.publishing.publish
from components.publish.publish import Compared, publish
from regraft_core.formats.fingerprint import check_fingerprint
from regraft_core.formats.manifests.saved_model import SavedModelManifest
from regraft_core.formats.options.publish import PublishOptions
from regraft_core.formats.run_outcome import read_last_publication
from serving.publishing.publish import open_store, read_labels

serving.publishing.publish.probe = lambda folder: None
root, *models = map(Path, sys.argv[1:])  # and folders with `exported` and `parity`
alone = len(set(models)) == 1
options = PublishOptions(version_label="canary", keep_last=int(alone))


def start(folder, model, number, kill_at):
    "Start to publish in a process of its own, which waits for a byte."
    go, waiting = os.pipe()
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(go)
        os.close(write)
        return child, read, waiting
    os.close(waiting)
    sys.stdout = open(os.devnull, "w")
    kinds = set()

    def hook(event, arguments):
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        changes = opened or event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove")
        path = str(arguments[0]).partition(str(folder))[2] if changes else ""
        kind = event, re.sub("[0-9a-f]{16}", "", "/".join(path.split("/")[:5]))
        if path and kind not in kinds:
            kinds.add(kind)
            if len(kinds) == kill_at:
                os.write(write, " ".join(kind).encode())
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    os.read(go, 1)
    try:
        publish(model / "exported", model / "parity", folder / f"out{number}{not kill_at}",
                str(folder / "models"), "m", options, f"run-{number}",
                Compared("inputs", str(folder / "models" / "m") if alone else "", ""))
    except BaseException as error:
        os.write(write, repr(error).encode())
        os._exit(1)
    os._exit(0)


def attempt(folder, kill_at):
    "Publish all models at once; return exit status and the event that killed it of each."
    started = []
    for number, model in enumerate(models):
        started.append(start(folder, model, number, kill_at))
    for _, _, waiting in started:
        os.write(waiting, b".")
        os.close(waiting)
    found = []
    for child, read, _ in started:
        with open(read) as told:
            event = told.read()
        found.append((os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), event))
    return found


def versions(folder):
    "The digests of all versions, which are complete."
    store = open_store(str(folder / "models"), "m")
    paths = [Path(store.path(number)) for number in store.versions()]
    for path in paths:
        check_fingerprint(path)
    return [SavedModelManifest.read(path).digest[:8] for path in paths]


kill_at = 0
while True:
    kill_at += 1
    folder = root / str(kill_at)
    killed = attempt(folder, kill_at)
    before = versions(folder)
    recorded = read_last_publication(str(folder / "models"), "m") is not None
    again = attempt(folder, 0)
    print(json.dumps([killed, before, recorded, again, versions(folder),
                      read_labels(str(folder / "models"), "m"),
                      sorted(p.name for p in (folder / "models" / "m").iterdir())]), flush=True)
    if all(code == 0 for code, _ in killed):
        break
"""


def publish_and_kill(root: Path, *models: Path) -> list[Any]:
    """Return what the attempts to publish the models at once have left, by the kind of change."""
    ended = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, root, *models],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/serving/client"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.fixture
def verified(exported: Path, tmp_path: Path) -> Path:
    """A folder with an exported model, and the parity report of it."""
    write_parity(tmp_path / "parity", SavedModelManifest.read(exported).digest)
    return tmp_path


def test_a_killed_step_publishes_once(verified: Path, tmp_path: Path) -> None:
    attempts = publish_and_kill(tmp_path / "runs", verified)
    digest = SavedModelManifest.read(verified / "exported").digest[:8]
    assert [killed[0][0] for killed, *_ in attempts] == [-9] * (len(attempts) - 1) + [0]
    for killed, before, recorded, again, after, labels, names in attempts:
        where = f"killed at {killed}"
        assert again == [[0, ""]], where
        assert before in ([], [digest]), where
        assert recorded or not before, where
        assert after == [digest], where
        assert labels == {"canary": 1}, where
        assert names == [".lock", ".runs", "1", "labels.json"], where
    phases = {killed[0][1].split()[0] for killed, *_ in attempts[:-1]}
    assert {"open", "os.rename", "os.mkdir"} <= phases
    assert [before for _, before, *_ in attempts].count([digest]) > 3


def test_two_attempts_at_once_publish_once(verified: Path, tmp_path: Path) -> None:
    """Both publish the same model, are killed at the same kind of change, and publish again."""
    attempts = publish_and_kill(tmp_path / "runs", verified, verified)
    digest = SavedModelManifest.read(verified / "exported").digest[:8]
    assert len(attempts) > 10
    for killed, before, _, again, after, labels, names in attempts:
        where = f"killed at {killed}"
        assert {code for code, _ in killed} <= {0, -9}, where
        assert again == [[0, ""]] * 2, where
        assert before in ([], [digest]), where
        assert after == [digest], where
        assert labels == {"canary": 1}, where
        assert names == [".lock", ".runs", "1", "labels.json"], where


def test_two_runs_at_once_publish_one_version_each(
    verified: Path, tmp_path: Path, reseal: Callable[[Path], SavedModelManifest]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(verified / "exported", other / "exported")
    (other / "exported" / "labels.txt").write_text("another model")
    write_parity(other / "parity", reseal(other / "exported").digest)
    digests = {
        SavedModelManifest.read(model / "exported").digest[:8] for model in (verified, other)
    }
    attempts = publish_and_kill(tmp_path / "runs", verified, other)
    assert len(attempts) > 10
    for killed, before, _, again, after, _, names in attempts:
        where = f"killed at {killed}"
        assert {code for code, _ in killed} <= {0, -9}, where
        assert again == [[0, ""]] * 2, where
        assert set(before) <= digests and len(before) == len(set(before)), where
        assert sorted(after) == sorted(digests), where
        assert names == [".lock", ".runs", "1", "2", "labels.json"], where

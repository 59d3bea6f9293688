"""The step is killed in each phase of publishing; after another attempt there is one version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from regraft_core.formats.manifests import SavedModelManifest
from tests.components.publish.test_publish_step import write_parity

ROOT = Path(__file__).resolve().parents[3]
# Each attempt is a forked process, and the model is not loaded, which would take most of the time.
# It kills itself at the n-th kind of change of the destination or the output: a new folder or file,
# or a rename. All changes inside one folder are of one kind.
ATTEMPTS = """
import json, os, re, shutil, signal, sys
from pathlib import Path

import serving.publishing.publish
from components.publish.publish import Compared, publish
from regraft_core.formats.options import PublishOptions
from regraft_core.formats.run_outcome import read_last_publication
from serving.publishing.publish import open_store, read_labels

serving.publishing.publish.probe = lambda folder: None
exported, parity, root = map(Path, sys.argv[1:])
options = PublishOptions(version_label="canary", keep_last=1)


def attempt(folder, kill_at):
    "Publish in a process of its own; return its exit status and the event that killed it."
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        with open(read) as told:
            event = told.read()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), event
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
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    try:
        publish(exported, parity, out, str(folder / "models"), "m", options, "run-1",
                Compared("inputs", str(folder / "models" / "m"), ""))
    except BaseException as error:
        os.write(write, repr(error).encode())
        os._exit(1)
    os._exit(0)


kill_at = 0
while True:
    kill_at += 1
    folder = root / str(kill_at)
    code, event = attempt(folder, kill_at)
    before = open_store(str(folder / "models"), "m").versions()
    recorded = read_last_publication(str(folder / "models"), "m") is not None
    again = attempt(folder, 0) if code else (0, "")
    models = str(folder / "models")
    print(json.dumps([code, event, before, recorded, again, open_store(models, "m").versions(),
                      read_labels(models, "m"),
                      sorted(p.name for p in (folder / "models" / "m").iterdir())]), flush=True)
    if code != -9:
        break
"""


def test_a_killed_step_publishes_once(exported: Path, tmp_path: Path) -> None:
    parity = write_parity(tmp_path / "parity", SavedModelManifest.read(exported).digest)
    ended = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, exported, parity, tmp_path / "runs"],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/serving/client"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    printed = ended.stdout.splitlines()
    attempts = [json.loads(line) for line in printed if not line.startswith("[regraft]")]
    assert [code for code, *_ in attempts] == [-9] * (len(attempts) - 1) + [0]
    for code, event, before, recorded, again, after, labels, names in attempts:
        where = f"killed at {event}"
        assert again == [0, ""], where
        assert before in ([], [1]), where
        assert recorded or not before, where
        assert after == [1], where
        assert labels == {"canary": 1}, where
        hidden = ".labels.json.", ".last_publication"  # temporary files of the killed attempt
        names = [name for name in names if not name.startswith(hidden)]
        assert names == [".lock", ".runs", "1", "labels.json"], where
        assert code in (-9, 0)
    phases = {event.split()[0] for _, event, *_ in attempts[:-1]}
    assert {"open", "os.rename", "os.mkdir"} <= phases
    assert [before for _, _, before, *_ in attempts].count([1]) > 3

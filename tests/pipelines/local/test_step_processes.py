"""Steps in forks of one process: exit codes, output, environment, and kfp's use of it."""

import contextlib
import json
import os
import signal
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kfp import dsl
from kfp.local import subprocess_task_handler

from pipelines.local import step_processes
from pipelines.local.step_processes import EXECUTOR, StepProcesses, steps_by_forks
from regraft_core.runtime.container_image import IMAGE


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StepProcesses]:
    log = tmp_path_factory.mktemp("forks") / "run.log"
    with open(log, "w") as file, contextlib.closing(StepProcesses(file)) as started:
        yield started


def command(body: str, folder: Path) -> list[str]:
    """A command as kfp makes it, of a component with that body and a name without TensorFlow."""
    code = f"import os, signal, sys\n\ndef resolve():\n{textwrap.indent(body, '    ')}\n"
    executor_input = {"inputs": {}, "outputs": {"outputFile": str(folder / "output.json")}}
    arguments = ["--executor_input", json.dumps(executor_input), "--function_to_execute", "resolve"]
    return ["sh", "-ec", f"python3 -m {EXECUTOR} ...", code, *arguments]


@pytest.mark.parametrize(
    ("body", "code", "output"),
    [
        ("print('ä\\ttext')", 0, "ä\ttext\n"),
        ("os.write(1, b'half \\xff')", 0, "half \\xff"),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('a reason')", 1, "a reason\n"),
        ("raise ValueError('no image')", 1, "ValueError: no image\n"),
        ("print('before')\nos.kill(os.getpid(), signal.SIGKILL)", -9, "before\n"),
        ("print(sys.stdin is None, __name__)", 0, "False ephemeral_component\n"),
        ("print(os.environ['A_NAME'])", 0, "a value\n"),
        ("print('tensorflow' in sys.modules)", 0, "False\n"),
    ],
)
def test_a_step_ends_as_in_a_process_of_its_own(
    processes: StepProcesses,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    body: str,
    code: int,
    output: str,
) -> None:
    assert processes.run(command(body, tmp_path), {"A_NAME": "a value"}) == code
    assert output in capsys.readouterr().out


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_temporary_files_of_a_step_do_not_remain(
    processes: StepProcesses, tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str
) -> None:
    body = "import subprocess, tempfile\nprint(tempfile.mkdtemp())\n"
    body += f"print(subprocess.check_output(['mktemp', '-d'], text=True))\n{end}"
    processes.run(command(body, tmp_path))
    left = [Path(line) for line in capsys.readouterr().out.splitlines() if line.startswith("/")]
    assert len(left) == 2
    assert not any(folder.exists() for folder in left)


def test_steps_run_at_the_same_time(processes: StepProcesses, tmp_path: Path) -> None:
    """Each waits for a file that the other makes."""
    bodies = (
        f"open({str(tmp_path / one)!r}, 'w').close()\n"
        f"while not os.path.exists({str(tmp_path / other)!r}): pass"
        for one, other in (("a", "b"), ("b", "a"))
    )
    codes: list[int] = []
    threads = [
        threading.Thread(
            target=lambda body=body: codes.append(processes.run(command(body, tmp_path)))
        )
        for body in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert codes == [0, 0]


def test_a_step_after_the_end_of_the_forked_process_has_failed(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w") as log, contextlib.closing(StepProcesses(log)) as started:
        os.kill(started.pid, signal.SIGKILL)
        assert started.run(command("pass", tmp_path)) == 1


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def resolve() -> str:
    """Return the id of the process that this one is a fork of."""
    import os

    return str(os.getppid())


def test_kfp_executes_its_steps_in_forks_of_one_process(
    runner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_processes, "DEVICE_FILES", ())
    before = subprocess_task_handler.run_local_subprocess
    with open(runner / "log", "w") as log, steps_by_forks(log):
        assert len({resolve().output, resolve().output}) == 1
    assert subprocess_task_handler.run_local_subprocess is before


def test_with_a_gpu_each_step_is_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_processes, "DEVICE_FILES", (str(tmp_path),))
    new_process = subprocess_task_handler.run_local_subprocess
    with open(tmp_path / "log", "w") as log, steps_by_forks(log):
        assert subprocess_task_handler.run_local_subprocess is new_process

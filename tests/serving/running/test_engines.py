"""Each engine in the runner and in `regraft serve`, with stand-ins for programs not installed.

The stand-ins are real programs on PATH: they store their arguments, and start the embedded server
with the flags of TF Serving among them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from regraft_client.grpc import GrpcClient
from regraft_client.rest import RestClient
from regraft_core.runtime.errors import InputError, RegraftError
from serving.batching_file import BATCHING_FILE
from serving.running.runner import (
    Addresses,
    ServeOptions,
    check_interfaces,
    choose_engine,
    memory_flags,
    serving_image,
)
from serving.running.serve import explain_auto, serving_folder
from serving.server.flags import parse_flags
from tests.regraft_core.runtime.nvidia import install, report
from tests.serving.raw import Stubs, predict_request, until

ROOT = Path(__file__).resolve().parents[3]
STAND_IN = f"""#!{sys.executable}
import json, os, pathlib, sys
pathlib.Path(__file__ + ".json").write_text(json.dumps(sys.argv[1:]))
known = [a for a in sys.argv[1:] if a.startswith("--") and not a.startswith(
    ("--rm", "--init", "--volume", "--publish", "--env", "--entrypoint"))]
os.execv(sys.executable, [sys.executable, "-P", "-m", "serving.server", *known])
"""


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, first on PATH, with a `tensorflow_model_server` and a `docker`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("tensorflow_model_server", "docker"):
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def arguments_of(stand_in: Path) -> list[str]:
    """Return the arguments of the last start of a stand-in."""
    return [str(part) for part in json.loads(Path(f"{stand_in}.json").read_text())]


@pytest.fixture
def labeled(exports: dict[str, Path], tmp_path: Path) -> Path:
    """Two versions of `tiny` and one of `other`; the first of `tiny` is stable."""
    base = tmp_path / "models"
    for version, mark in (("tiny/1", "odd"), ("tiny/2", "even"), ("other/7", "odd")):
        shutil.copytree(exports[mark], base / version)
    (base / "tiny" / "labels.json").write_text('{"stable": 1}')
    return base


def test_auto_uses_the_real_server_if_it_may_listen_on_all_interfaces(
    stand_ins: Path, labeled: Path, images: list[bytes]
) -> None:
    with serving_folder(labeled, "auto", ServeOptions(host="0.0.0.0")) as served:
        at = served.addresses
        assert at.engine == "tensorflow_model_server"
        flags = arguments_of(stand_ins / "tensorflow_model_server")
        assert flags[:2] == [f"--port={at.grpc.split(':')[1]}",
                             f"--rest_api_port={at.rest.split(':')[1]}"]  # fmt: skip
        assert "--allow_version_labels_for_unavailable_models=true" in flags
        assert f"--batching_parameters_file={BATCHING_FILE}" in flags
        assert "--grpc_max_threads=128" in flags
        for version, label, mark in ((None, "stable", "odd"), (2, None, "even")):
            with GrpcClient(at.grpc, "tiny", version=version, label=label) as client:
                assert client.predict(images[:1])[0].label.startswith(mark)
        with RestClient(at.rest, "other") as client:
            assert [s.version for s in client.status()] == [7]
        # A new version becomes the canary, then a canary becomes the stable one.
        shutil.copytree(labeled / "other" / "7", labeled / "tiny" / ".3")
        (labeled / "tiny" / ".3").rename(labeled / "tiny" / "3")
        for labels in ({"stable": 1, "canary": 3}, {"stable": 3, "canary": 3}):
            (labeled / "tiny" / "labels.json").write_text(json.dumps(labels))

            def in_effect(expected: dict[str, int] = labels) -> bool:
                served.poll()
                return labels_of(at.grpc, images) == expected

            until(in_effect)


def labels_of(address: str, images: list[bytes]) -> dict[str, int]:
    """Return the versions that respond to the labels of `tiny`."""
    stubs = Stubs(address)
    found = {}
    for label in ("stable", "canary"):
        request = predict_request("", image_bytes=np.array(images[:1], object))
        request.model_spec.version_label = label
        with contextlib.suppress(grpc.RpcError):
            response = stubs.prediction.Predict(request, timeout=60)
            found[label] = response.model_spec.version.value
    stubs.channel.close()
    return found


@contextlib.contextmanager
def serve_command(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Start `regraft serve`; yield its process and the addresses that it prints."""
    command = [sys.executable, "-m", "regraft.cli.main", "serve", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        printed: dict[str, str] = {}
        for line in process.stdout:
            name, _, value = line.strip().partition(" ")
            printed[name] = value.strip()
            if name == "REST":
                break
        try:
            yield process, printed
        finally:
            process.terminate()


def test_serve_starts_and_stops_the_container(
    stand_ins: Path, labeled: Path, images: list[bytes]
) -> None:
    ports = ("--port=0", "--rest-api-port=0")
    with serve_command(str(labeled), "--engine", "docker", *ports) as (process, printed):
        assert printed["models"] == "other, tiny"
        command = arguments_of(stand_ins / "docker")
        assert command[:3] == ["run", "--rm", "--init"]
        for folder in (labeled / "tiny", labeled / "other", BATCHING_FILE.parent):
            assert f"--volume={folder}:{folder}:ro" in command
        port = printed["gRPC"].rsplit(":", 1)[1]
        assert f"--publish=127.0.0.1:{port}:{port}" in command
        assert {"--env=NVIDIA_TF32_OVERRIDE=0", "--env=TF_FORCE_GPU_ALLOW_GROWTH=true"} <= {
            *command
        }
        entry = command.index("--entrypoint")
        assert command[entry : entry + 3] == [
            "--entrypoint", "tensorflow_model_server", serving_image()
        ]  # fmt: skip
        with GrpcClient(printed["gRPC"], "tiny", label="stable") as client:
            assert client.predict(images[:1])[0].label.startswith("odd")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_an_engine_that_is_not_installed_is_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose_engine("auto") == "embedded"
    for engine in ("docker", "tensorflow_model_server"):
        with pytest.raises(InputError, match="not installed"):
            choose_engine(engine)
    with pytest.raises(InputError, match="engine"):
        choose_engine("tfserving")


def test_an_engine_that_listens_on_all_interfaces_must_be_allowed_to(
    stand_ins: Path, labeled: Path
) -> None:
    assert choose_engine("auto", "0.0.0.0") == "tensorflow_model_server"
    for host in ("127.0.0.1", "192.0.2.7"):
        assert choose_engine("auto", host) == "embedded"
        server = serving_folder(labeled, "tensorflow_model_server", ServeOptions(host=host))
        message = f"--bind: expected 0.0.0.0, .* got {host}; add --bind 0.0.0.0, or use --engine"
        with pytest.raises(InputError, match=message), server:
            pytest.fail("it must not start")
    check_interfaces("docker", "127.0.0.1")  # its ports are published there only


def test_auto_says_why_it_uses_the_embedded_engine(stand_ins: Path) -> None:
    reason = "because tensorflow_model_server listens on all network interfaces; --bind 0.0.0.0"
    assert reason in explain_auto("auto", "embedded")
    assert explain_auto("auto", "tensorflow_model_server") == ""
    assert explain_auto("embedded", "embedded") == ""
    (stand_ins / "tensorflow_model_server").unlink()
    assert explain_auto("auto", "embedded") == ""


def test_a_limit_of_the_memory_in_the_form_of_each_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert memory_flags("tensorflow_model_server", 0) == []
    assert memory_flags("embedded", 3000) == ["--gpu_memory_mb=3000"]
    assert parse_flags(["--gpu_memory_mb=3000", "--model_base_path=/m"]).gpu_memory_mb == 3000
    install(monkeypatch, tmp_path, report())
    flag = "--per_process_gpu_memory_fraction=0.2500"
    assert memory_flags("tensorflow_model_server", 20390) == [flag]
    with pytest.raises(InputError, match="gpu-memory-mb: expected at most 81559, the memory of"):
        memory_flags("tensorflow_model_server", 90_000)
    install(monkeypatch, tmp_path, "")
    with pytest.raises(InputError, match="gpu-memory-mb: expected a GPU for engine docker"):
        memory_flags("docker", 20390)


def test_a_page_needs_the_embedded_engine(stand_ins: Path, labeled: Path) -> None:
    server = serving_folder(labeled, "docker", page=True)
    with pytest.raises(InputError, match="--page needs the embedded engine"), server:
        pytest.fail("it must not start")


@pytest.mark.parametrize("option", ["port", "rest_api_port"])
def test_a_port_in_use_is_reported_before_models_are_loaded(labeled: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = ServeOptions(**{option: port})  # type: ignore[arg-type]
        server = serving_folder(labeled, "embedded", options)
        flag = "--" + option.replace("_", "-")
        with pytest.raises(InputError, match=f"{flag}: 127.0.0.1:{port} is in use"), server:
            pytest.fail("it must not start")


def test_a_host_of_another_machine_is_bad_input(labeled: Path) -> None:
    server = serving_folder(labeled, "embedded", ServeOptions(host="203.0.113.9", port=8500))
    with pytest.raises(InputError, match=r"--port: cannot listen on 203.0.113.9:8500: ."), server:
        pytest.fail("it must not start")


def test_a_server_that_is_late_and_has_to_be_killed_is_reported_as_late(
    stand_ins: Path, labeled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stand_ins / "docker").write_text("#!/bin/sh\ntrap '' TERM\necho loading\nexec sleep 60\n")
    monkeypatch.setattr("serving.running.runner._FAILED_STOP_S", 0.2)
    server = serving_folder(labeled, "docker", ServeOptions(deadline_s=1))
    with pytest.raises(RegraftError, match=r"^the server was not ready within 1 s$"), server:
        pytest.fail("it must not start")


def test_an_engine_that_exits_at_once_is_reported(stand_ins: Path, labeled: Path) -> None:
    (stand_ins / "docker").write_text(
        "#!/bin/sh\necho cannot pull the image; echo; echo \"Run 'docker run --help' for more\"\n"
        "exit 125\n"
    )
    server = serving_folder(labeled, "docker", ServeOptions(deadline_s=60))
    with pytest.raises(RegraftError, match="exit code 125: cannot pull the image"), server:
        pytest.fail("it must not start")


@pytest.mark.long
def test_the_conformance_suite_runs_against_an_external_server(server: Addresses) -> None:
    folder = "tests/serving/server"
    files = [f"{folder}/test_conformance_{protocol}.py" for protocol in ("rest", "grpc")]
    options = [f"--serving-address={server.grpc}", f"--serving-rest-address={server.rest}"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout

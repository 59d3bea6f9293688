"""`regraft submit` with a local server of the KFP API: runs, waiting, credentials, faults."""

from __future__ import annotations

import functools
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.cluster.kfp_api import Client, Connection, NoResponseError, check_connection
from pipelines.cluster.node_presets import PRESETS
from pipelines.cluster.submit import Settings, Submission, SubmittedRun, prepare, send
from pipelines.recipes.recipe_file import with_recipe
from regraft_core.runtime.errors import InputError, RegraftError
from tests.command_line import Ended, Regraft
from tests.components.ingest.web import certificates
from tests.pipelines.cluster.kfp_server import (
    Fault,
    KfpServer,
    failed,
    frozen,
    kfp_server,
    ran,
    task,
)

TOKEN = "abc.def-ghi_123"
DESTINATION = "s3://bucket/models"
# As KFP 2.17.0 responds, shortened.
NOT_CHECKED = ("Failed to authorize with API: Unauthenticated: Failed to check authorization. User "
               "identity is empty in the request header: [Unauthenticated: Request header error: "
               "there is no user identity header., Authentication failure: Unauthenticated: "
               "Request header error: Failed to review the token provided: Post: dial tcp "
               "10.0.0.1:443: connect: connection refused]")  # fmt: skip


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    monkeypatch.setattr("pipelines.cluster.kfp_api.MAX_WAIT_S", 0.01)
    with kfp_server() as running:
        yield running


@pytest.fixture(scope="module")
def prepared() -> Callable[..., Submission]:
    """Return submissions of the recipe digits, each compiled once."""

    @functools.cache
    def make(schedule: str = "", hardware: str = "") -> Submission:
        settings = Settings(schedule=schedule, hardware=PRESETS[hardware] if hardware else None)
        return prepare(with_recipe("digits", {"destination": DESTINATION}), settings)

    return make


@pytest.fixture
def submit_now(
    server: KfpServer, prepared: Callable[..., Submission]
) -> Callable[..., SubmittedRun]:
    """Send a prepared submission, without the command around it."""

    def run(**values: str) -> SubmittedRun:
        connection = Connection(server.address, token=TOKEN, backoff_s=0.0)
        return send(Client(connection), connection, prepared(**values))

    return run


@pytest.fixture
def submit(server: KfpServer, regraft: Regraft) -> Regraft:
    """Submit the digits to the local server."""

    def run(*arguments: str | Path | int) -> Ended:
        return regraft("submit", "digits", "--host", server.address, "--poll-s", "0.01",
                       "--destination", DESTINATION, *arguments)  # fmt: skip

    return run


def one_line(ended: Ended) -> str:
    """Return the error, which is one line and never the token."""
    (line,) = ended.err.strip().splitlines()
    assert "Traceback" not in line
    assert TOKEN not in ended.err + ended.out
    return line


def test_a_run_has_an_uploaded_version_and_the_recipe_as_parameters(
    server: KfpServer, submit: Regraft
) -> None:
    ended = submit("--experiment", "mine", "--run-name", "first", "--service-account", "runner",
                   "--pipeline-root", "s3://bucket/runs", "--seed", 5)  # fmt: skip
    assert ended.code == 0, ended.err
    (run,) = server.runs.values()
    (experiment,) = server.experiments.values()
    assert f"{server.address}/#/runs/details/{run.run_id}" in ended.out
    assert (run.display_name, run.service_account) == ("first", "runner")
    assert run.experiment_id == experiment.experiment_id
    assert experiment.display_name == "mine"
    parameters = run.runtime_config.parameters
    assert parameters["sources"] == ["sample:digits"]
    assert (parameters["image_px"], parameters["seed"]) == ("64", 5)
    assert parameters["destination"] == DESTINATION
    assert run.runtime_config.pipeline_root == "s3://bucket/runs"


def test_the_same_pipeline_is_uploaded_once(server: KfpServer, submit: Regraft) -> None:
    names = [json.loads(submit("--json").out)["version"] for _ in range(3)]
    assert len(set(names)) == 1
    assert len(server.runs) == 3
    assert len({run.display_name for run in server.runs.values()}) == 3
    assert len(server.pipelines) == 1
    assert len(server.versions) <= 2
    uploads = server.count("POST .*/upload")
    assert submit("--hardware", "nvidia").code == 0
    assert server.count("POST .*/upload") == uploads + 1


@pytest.mark.parametrize(
    ("version", "code"),
    [("2.15.2", 2), ("1.8.22", 2), ("2.16.0", 0), ("v2.17.0", 0), ("3.0.0", 0), ("unknown", 0)],
)
def test_a_server_before_2_16_is_refused(
    server: KfpServer, submit: Regraft, version: str, code: int
) -> None:
    server.version = version
    ended = submit()
    assert ended.code == code, ended.err
    if code:
        assert f"expected Kubeflow Pipelines 2.16 or later, got {version}" in one_line(ended)
        assert not server.runs and not server.count("POST")


def test_workers_share_the_extraction_in_a_loop(server: KfpServer, submit: Regraft) -> None:
    assert submit("--workers", 2).code == 0
    (run,) = server.runs.values()
    assert run.runtime_config.parameters["workers"] == 2
    assert run.runtime_config.parameters["shards"] == [0, 1]


@pytest.mark.parametrize(
    ("accepted", "code", "verdict"), [(True, 0, "accepted"), (False, 3, "rejected")]
)
def test_waiting_shows_each_step_and_exits_with_the_verdict(
    server: KfpServer, submit: Regraft, accepted: bool, code: int, verdict: str
) -> None:
    server.script = ran(accepted=accepted)
    ended = submit("--wait")
    assert ended.code == code
    assert ended.out.splitlines()[-1] == verdict
    lines = ended.err.splitlines()
    assert "ingest: RUNNING" in lines
    assert "ingest: SUCCEEDED 7 s" in lines
    assert ("publish: SUCCEEDED 7 s" in lines) == accepted
    assert not any("driver" in line for line in lines)
    assert accepted or not any(line.startswith("publish") for line in lines)
    assert ("the gate rejected the model" in lines[-1]) != accepted


def test_a_failed_step_ends_with_1_and_its_message(server: KfpServer, submit: Regraft) -> None:
    server.script = failed("train-head", "loss is not a number")
    ended = submit("--wait")
    assert ended.code == 1
    last = ended.err.splitlines()[-1]
    assert "the run ended as FAILED: train-head: loss is not a number" in last


@pytest.mark.parametrize("name", ["export", "verify", "publish"])
@pytest.mark.parametrize("driver", ["", "-driver"])
def test_a_failure_after_the_gate_is_said_to_be_accepted(
    server: KfpServer, submit: Regraft, name: str, driver: str
) -> None:
    server.script = failed(f"{name}{driver}", "no space")
    ended = submit("--wait")
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith(
        f"regraft: error: the gate accepted the model, but {name} failed: the run ended as FAILED:"
    )


@pytest.mark.parametrize("name", ["train-head", "publish"])
def test_a_run_that_succeeds_after_a_failed_step_has_failed(
    server: KfpServer, submit: Regraft, name: str
) -> None:
    """The last step also runs after a failure, and the server may report its success only."""
    *_, (_, tasks) = ran(accepted=True)
    tasks = [task(name, "FAILED", error="out of memory") if one.display_name == name else one
             for one in tasks]  # fmt: skip
    if name != "publish":
        tasks = [one for one in tasks if one.display_name not in ("export", "verify", "publish")]
    server.script = [("SUCCEEDED", [*tasks, task("conclude", "SUCCEEDED")])]
    ended = submit("--wait")
    assert ended.code == 1
    assert f"the run ended as FAILED: {name}: out of memory" in ended.err.splitlines()[-1]


def test_a_success_without_steps_is_no_verdict(
    server: KfpServer, submit: Regraft, s3: None
) -> None:
    server.script = [("SUCCEEDED", None)]
    ended = submit("--wait")
    assert ended.code == 1
    assert "verdict unknown" in one_line(ended)


def test_a_published_run_whose_details_are_frozen_is_not_rejected(
    server: KfpServer, submit: Regraft, s3: None
) -> None:
    server.script = frozen()
    ended = submit("--wait")
    assert ended.code == 1
    assert "verdict unknown" in ended.err.splitlines()[-1]


def test_a_driver_that_failed_is_its_step(server: KfpServer, submit: Regraft) -> None:
    server.script = [("FAILED", [task("ingest", "SUCCEEDED"),
                                 task("extract-features-driver", "FAILED")])]  # fmt: skip
    ended = submit("--wait")
    assert ended.code == 1
    assert "the run ended as FAILED: extract-features" in ended.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("root-driver", "root-driver: KFP's driver failed before the step started"),
        ("ingest-driver", "ingest: KFP's driver failed before the step started"),
        ("resolve", "resolve: usually an invalid option, or no access to a location"),
    ],
)
def test_a_failure_without_a_message_has_its_usual_causes(
    server: KfpServer, submit: Regraft, name: str, cause: str
) -> None:
    """KFP 2.17.0 reports no error of a task: the location may be one without rights."""
    server.script = [("FAILED", [task(name, "FAILED"), task("conclude", "SUCCEEDED")])]
    ended = submit("--wait")
    assert ended.code == 1
    assert f"the run ended as FAILED: {cause}" in ended.err.splitlines()[-1]
    assert "kubectl -n kubeflow logs" in ended.err.splitlines()[-1]


@pytest.mark.parametrize("end", ["CANCELED", "FAILED"])
def test_a_canceled_run_ends_with_1(server: KfpServer, submit: Regraft, end: str) -> None:
    """KFP 2.17.0 ends a canceled run as FAILED; only its history has the cancellation."""
    server.script = [("RUNNING", None), ("CANCELING", None), (end, None)]
    ended = submit("--wait")
    assert ended.code == 1
    assert "the run was canceled" in one_line(ended)


def test_waiting_has_a_deadline(server: KfpServer, submit: Regraft) -> None:
    server.script = [("RUNNING", None)]
    ended = submit("--wait", "--wait-timeout-s", "0")
    assert ended.code == 1
    assert "has not ended within 0 s; it continues" in one_line(ended)


def test_waiting_survives_a_temporary_outage(server: KfpServer, submit: Regraft) -> None:
    server.fail(r"GET .*/runs/run", *[Fault(503)] * 4, *[Fault()] * 4, *[Fault(500)] * 4)
    assert submit("--wait").code == 0


def test_waiting_survives_a_server_that_cannot_check_tokens(
    server: KfpServer, submit: Regraft
) -> None:
    """While Kubernetes is away, a server with several users refuses each token."""
    fault = Fault(401, json.dumps({"code": 16, "message": NOT_CHECKED}).encode())
    server.fail(r"GET .*/runs/run", *[fault] * 8)
    ended = submit("--existing-token", TOKEN, "--wait")
    assert ended.code == 0, ended.err
    assert not server.faults


def test_a_schedule_is_a_recurring_run(server: KfpServer, submit: Regraft) -> None:
    ended = submit("--schedule", "30 3 * * mon-fri")
    assert ended.code == 0, ended.err
    (made,) = server.recurring.values()
    assert made.display_name == "digits"
    assert made.trigger.cron_schedule.cron == "0 30 3 * * mon-fri"
    assert (made.mode, made.max_concurrency, made.no_catchup) == ("ENABLE", "1", True)
    assert made.runtime_config.parameters["model_name"] == "digits"
    assert not server.runs
    again = submit("--schedule", "0 4 * * *")
    assert again.code == 2
    assert "a recurring run 'digits' exists already" in one_line(again)


@pytest.mark.parametrize(
    ("option", "where"), [("--existing-token", "from the command line"), ("--token-file", "")]
)
def test_a_token_is_sent_and_never_shown(
    server: KfpServer, submit: Regraft, tmp_path: Path, option: str, where: str
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    value: str | Path = TOKEN if option == "--existing-token" else file
    server.tokens = {TOKEN}
    assert submit(option, value, "--wait").code == 0
    assert all(f"Bearer {TOKEN}" in headers for _, _, headers in server.requests)
    server.tokens = {"another"}
    ended = submit(option, value)
    assert ended.code == 2
    line = one_line(ended)
    assert "missing, expired or for another server (401)" in line
    assert (where or str(file)) in line
    assert "token *** has expired" in line
    shown = submit(option, value, "--dry-run")
    assert shown.code == 0
    assert TOKEN not in shown.out


def test_debug_shows_no_token_either(server: KfpServer, regraft: Regraft) -> None:
    server.tokens = {"another"}
    ended = regraft("--debug", "submit", "digits", "--host", server.address, "--destination",
                    DESTINATION, "--existing-token", TOKEN)  # fmt: skip
    assert ended.code == 2
    assert TOKEN not in ended.err + ended.out


def test_a_token_that_is_renewed_while_waiting_is_read_again(
    server: KfpServer, submit: Regraft, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    server.tokens = {"old"}

    def renew() -> None:
        file.write_text("new")
        server.tokens = {"new"}

    server.on_get_run = renew
    assert submit("--token-file", file, "--wait").code == 0
    assert any("Bearer new" in headers for _, _, headers in server.requests)


def test_an_error_for_an_expired_token_says_that_the_run_continues(
    server: KfpServer, submit: Regraft
) -> None:
    server.tokens = {TOKEN}
    server.on_get_run = lambda: server.tokens.clear()
    ended = submit("--existing-token", TOKEN, "--wait")
    assert ended.code == 2
    last = ended.err.splitlines()[-1]
    assert "401" in last
    assert "continues" in last


@pytest.mark.parametrize(
    "pattern",
    ["POST .*/upload", "POST .*/upload_version", "POST .*/experiments", "POST .*/runs",
     "GET .*/pipelines$", "GET .*/healthz", "GET .*/runs$"],
)  # fmt: skip
@pytest.mark.parametrize(
    "fault",
    [Fault(503), Fault(500), Fault(), Fault(done=True), Fault(502, b"<html>bad</html>", done=True)],
    ids=["503", "500", "lost before", "lost after", "502 after"],
)
def test_a_temporary_fault_creates_no_second_run(
    server: KfpServer, submit_now: Callable[..., SubmittedRun], pattern: str, fault: Fault
) -> None:
    if pattern.endswith("upload_version"):
        submit_now(hardware="cpu")
        server.runs.clear()
    server.fail(pattern, fault)
    submit_now()
    assert not server.faults
    assert len(server.runs) == 1
    assert len(server.pipelines) == 1
    assert len(server.experiments) == 1


def test_a_lost_response_creates_no_second_recurring_run(
    server: KfpServer, submit_now: Callable[..., SubmittedRun]
) -> None:
    server.fail("POST .*/recurringruns", Fault(done=True))
    assert submit_now(schedule="@daily").recurring
    assert len(server.recurring) == 1


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (Fault(503), 1, "the server failed (503): failed on purpose"),
        (Fault(), 1, "the connection broke: Remote end closed connection"),
        (Fault(401, json.dumps({"code": 16, "message": NOT_CHECKED}).encode()), 1,
         "the server could not check the token (401): Failed to authorize"),
        (Fault(403), 2, "no permission (403), namespace: not set: failed on purpose"),
        (Fault(400), 2, "the server refused the request (400): failed on purpose"),
        (Fault(302, headers=(("Location", "/dex/auth"),)), 2,
         "expected the API, got a redirect (302)"),
        (Fault(200, b"<html>Log in</html>", headers=(("Content-Type", "text/html"),)), 2,
         "expected the API of Kubeflow Pipelines, got text/html"),
        (Fault(500, b"x" * 5000), 1, "xxx..."),
        (Fault(400, f"no user has Bearer {TOKEN} or {TOKEN}".encode()), 2, "has *** or ***"),
    ],
)  # fmt: skip
def test_retries_of_a_lasting_fault_are_bounded_and_the_error_is_one_line(
    server: KfpServer,
    submit_now: Callable[..., SubmittedRun],
    fault: Fault,
    code: int,
    message: str,
) -> None:
    server.fail("GET .*/healthz", *[fault] * 9)
    with pytest.raises(RegraftError) as caught:
        submit_now()
    assert caught.value.exit_code == code
    line = str(caught.value)
    assert message in line
    assert server.address in line
    assert "\n" not in line
    assert TOKEN not in line
    assert len(line) < 600
    assert server.count("GET .*/healthz") <= 5
    assert not server.runs


def test_a_silent_server_times_out(server: KfpServer, prepared: Callable[..., Submission]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        connection = Connection(address, timeout_s=0.05, attempts=2, backoff_s=0.0)
        with pytest.raises(NoResponseError, match=r"no response within 0\.05 s"):
            send(Client(connection), connection, prepared())


def test_an_unreachable_server(regraft: Regraft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cluster.kfp_api.MAX_WAIT_S", 0.01)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ended = regraft("submit", "digits", "--host", f"http://127.0.0.1:{port}", "--destination",
                    DESTINATION)  # fmt: skip
    assert ended.code == 1
    assert "cannot be reached" in one_line(ended)
    assert "refused" in one_line(ended)


def test_tls_requires_the_certificate_authority(
    regraft: Regraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.cluster.kfp_api.MAX_WAIT_S", 0.01)
    authority, own = certificates(tmp_path, ["localhost"])
    with kfp_server(own) as server:
        given = ["submit", "digits", "--host", server.address, "--destination", DESTINATION]
        assert regraft(*given, "--ca-cert", authority).code == 0
        ended = regraft(*given)
    assert ended.code == 2
    assert "no TLS connection" in one_line(ended)
    assert "--ca-cert" in one_line(ended)


def test_a_multi_user_server_requires_a_namespace(server: KfpServer, submit: Regraft) -> None:
    server.multi_user = True
    ended = submit()
    assert ended.code == 2
    assert "namespace: expected --namespace" in one_line(ended)
    assert submit("--namespace", "team").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--folds", "1"), "folds: expected greater than or equal to 2"),
        (("--backbone", "vgg61"), "did you mean"),
        (("--hardware", "nvdia"), "did you mean nvidia"),
        (("--schedule", "61 * * * *"), "schedule: expected a value of 0 to 59 as minute, got '61'"),
        (("--schedule", "0 3 * * *", "--wait"), "--wait and --schedule"),
        (("--source", "./images"), "cannot read this machine; got './images'"),
        (("--destination", ""), "destination: expected a bucket URI"),
        (("--destination", "/models"), "destination: expected a URI, or a path in a mounted --pvc"),
        (("--work-dir", "work"), "work_dir: expected a URI"),
        (("--pipeline-root", "runs"), "pipeline_root: expected a URI"),
        (("--pipeline-root", "az://box/runs"), "pipeline_root: expected a URI such as s3://"),
        (("--pipeline-root", "s3://"), "pipeline_root: expected a URI such as s3://"),
        (("--secret-env", "hunter2"), "secret-env: expected SECRET:KEY=VARIABLE"),
        (("--secret-volume", "s3"), "secret-volume: expected NAME=/absolute/path"),
        (("--pvc", "team/models=/x"), "pvc: expected a name in the namespace of the run"),
        (("--pvc", "a=/x", "--pvc", "b=/x"), "expected each path once, got /x twice"),
        (("--image", "my image"), "image: expected a reference"),
        (("--token-file", "no/such/file"), "token-file: cannot read no/such/file"),
        (("--existing-token", "Bearer x"), "expected the bare token"),
        (("--existing-token", "a\nb: c"), "expected the bare token"),
        (("--existing-token", "a", "--token-file", "b"), "got both"),
        (("--ca-cert", "ca.pem"), "expected an https host"),
        (("--run-name", "x" * 129), "run_name: expected at most 128 characters"),
        (("--wait-timeout-s", "soon"), "wait-timeout-s"),
        (("--wait", "--wait-timeout-s", "-1"), "wait_timeout_s: expected 0 or more"),
        (("--wait", "--poll-s", "0"), "poll_s: expected 0.01 or more"),
        (("--claim", "a=/x"), "did you mean --pvc?"),
        (("--wait-s", "3"), "did you mean --wait-timeout-s?"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(
    server: KfpServer, submit: Regraft, arguments: tuple[str, ...], message: str
) -> None:
    ended = submit(*arguments)
    assert ended.code == 2
    assert message in one_line(ended)
    assert "hunter2" not in ended.err
    assert not server.requests


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("kubeflow.example.com", "such as https://kubeflow.example.com"),
        ("ftp://a", "host: expected http"),
        ("https://", "host: expected http"),
        ("https://user:hunter2@a", "without user, password"),
        ("user:hunter2@a", "host: expected"),
        ("https://a/?token=hunter2", "without user, password, query"),
    ],
)
def test_a_host_without_secrets_is_expected(host: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_connection(Connection(host))
    assert "hunter2" not in str(caught.value)


def test_a_dry_run_sends_nothing_and_needs_no_host(server: KfpServer, regraft: Regraft) -> None:
    ended = regraft("submit", "digits", "--dry-run", "--json", "--destination", "/data/models",
                    "--pvc", "work=/data", "--secret-env", "s3:key=AWS_SECRET_ACCESS_KEY",
                    "--hardware", "gke", "--image", "ghcr.io/me/regraft-python:1")  # fmt: skip
    assert ended.code == 0, ended.err
    shown = ended.json
    assert shown["parameters"]["image_px"] == "64"
    assert shown["parameters"]["require_gpu"] is True
    assert shown["secrets"] == ["s3:key as AWS_SECRET_ACCESS_KEY"]
    assert shown["image"] == "ghcr.io/me/regraft-python:1"
    assert not server.requests

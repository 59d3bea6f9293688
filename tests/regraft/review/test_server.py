"""Who may use the server of a review, and what it saves."""

from __future__ import annotations

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from regraft.review.decisions import Decisions
from regraft.review.server import MAX_BODY_BYTES, TOKEN_HEADER, ReviewServer
from regraft_core.curation.suspects import Suspect
from regraft_core.formats.fixes import Fix, read_fixes
from regraft_core.runtime.errors import InputError

WHEN = "2026-11-27T21:50:00Z"


def send(
    server: ReviewServer, method: str, path: str, body: object = None, **headers: str
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    text = body if isinstance(body, str) else json.dumps(body)
    connection.request(method, path, text if body is not None else None, headers)
    response = connection.getresponse()
    found = response.status, response.read().decode()
    connection.close()
    return found


def post(server: ReviewServer, body: object, **headers: str) -> tuple[int, dict[str, object]]:
    status, text = send(
        server, "POST", "/decisions", body, **{TOKEN_HEADER: server.token, **headers}
    )
    return status, json.loads(text)


def test_the_page_needs_the_token_and_a_page_of_this_machine(server: ReviewServer) -> None:
    status, text = send(server, "GET", f"/?token={server.token}")
    assert status == 200 and "<title>Review of a dataset</title>" in text
    for path in ("/", "/?token=", f"/?token={server.token}x"):
        assert send(server, "GET", path)[0] == 403
    assert send(server, "GET", f"/other?token={server.token}")[0] == 404
    status, text = send(server, "GET", f"/?token={server.token}", Host="attacker.example")
    assert status == 403 and "expected a loopback address" in text
    status, _ = send(server, "POST", "/decisions", {}, **{TOKEN_HEADER: "x"})
    assert status == 403
    status, text = send(server, "POST", "/decisions", {}, Origin="https://attacker.example",
                        **{TOKEN_HEADER: server.token})  # fmt: skip
    assert status == 403 and "expected a page of this server" in text


def test_clients_that_leave_or_send_nonsense_print_no_traceback(
    server: ReviewServer, capfd: pytest.CaptureFixture[str]
) -> None:
    head = f"POST /decisions HTTP/1.1\r\nHost: localhost\r\n{TOKEN_HEADER}: {server.token}\r\n"
    for request in ("GET http://[ HTTP/1.1\r\n\r\n", f"{head}Content-Length: {'9' * 5000}\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.server_port), 30) as client:
            client.sendall(request.encode())
            while client.recv(4096):
                pass
    assert send(server, "GET", f"/?token={server.token}")[0] == 200
    assert capfd.readouterr().err == ""


def test_decisions_are_saved_changed_and_undone(
    server: ReviewServer, suspects: list[Suspect], tmp_path: Path
) -> None:
    first, second = suspects[0], suspects[1]
    one, other = first.image.sha256, second.image.sha256
    relabel = {"sha256": one, "action": "relabel", "new_label": first.better}
    assert post(server, relabel) == (200, {"saved": 1, "file": str(tmp_path / "fixes.csv")})
    assert post(server, {"sha256": other, "action": "drop"})[1]["saved"] == 2
    saved = read_fixes(tmp_path / "fixes.csv").fixes
    assert (saved[one].old_label, saved[one].new_label) == (first.image.label, first.better)
    assert {fix.who for fix in saved.values()} == {"ann"}
    assert post(server, {"sha256": one, "action": "keep"})[1]["saved"] == 2
    assert post(server, {"sha256": other, "action": ""})[1]["saved"] == 1
    assert [fix.action for fix in read_fixes(tmp_path / "fixes.csv").fixes.values()] == ["keep"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"sha256": "ab", "action": "keep"}, "expected an image of this review"),
        ({"action": "relabel", "new_label": "pink"}, "expected a class as new label"),
        ({"action": "relabel"}, "expected an old and a new label to relabel"),
        ({"action": "delete"}, "expected one of the actions"),
        ({"action": 1}, "expected texts"),
        ([], "expected a JSON object"),
        ("{", "expected a JSON object"),
        ("x" * (MAX_BODY_BYTES + 1), "expected a body of at most"),
    ],
)
def test_invalid_requests_change_nothing(
    server: ReviewServer, suspects: list[Suspect], tmp_path: Path, body: object, message: str
) -> None:
    if isinstance(body, dict):
        body = {"sha256": suspects[0].image.sha256} | body
    status, value = post(server, body)
    assert status == 400 and str(value["error"]).startswith(message)
    assert not (tmp_path / "fixes.csv").exists()


def test_a_review_continues_its_file_and_the_fixes_of_the_dataset(tmp_path: Path) -> None:
    path, ids = tmp_path / "fixes.csv", [f"{k:064x}" for k in range(3)]
    labels = dict.fromkeys(ids, "cat")
    before = {ids[2]: Fix(ids[2], "relabel", "dog", "cat", "bob", WHEN)}
    Decisions(path, labels, ["cat", "dog"], "ann", before).decide(ids[0], "drop")
    Decisions(path, labels, ["cat", "dog"], "eve", {}).decide(ids[1], "relabel", "dog")
    found = read_fixes(path).fixes
    assert found[ids[2]] == before[ids[2]]
    assert [(found[one].action, found[one].who) for one in ids[:2]] == [
        ("drop", "ann"), ("relabel", "eve"),
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"--fixes: expected a folder at .*none, found none"):
        Decisions(tmp_path / "none" / "fixes.csv", labels, ["cat", "dog"], "ann", {})
    path.write_text("another file")
    with pytest.raises(InputError, match="expected the columns"):
        Decisions(path, labels, ["cat", "dog"], "ann", {})


def test_two_reviews_with_one_file_keep_each_others_decisions(tmp_path: Path) -> None:
    path, ids = tmp_path / "fixes.csv", [f"{k:064x}" for k in range(3)]
    labels, classes = dict.fromkeys(ids, "cat"), ["cat", "dog"]
    before = {ids[2]: Fix(ids[2], "unsure", "cat", "", "bob", WHEN)}
    ann = Decisions(path, labels, classes, "ann", before)
    eve = Decisions(path, labels, classes, "eve", before)
    assert ann.decide(ids[0], "drop") == 2
    assert eve.decide(ids[1], "keep") == 3
    assert ann.decide(ids[2], "") == 2
    assert ann.decide(ids[0], "keep") == 2
    found = read_fixes(path).fixes
    assert {key: (fix.action, fix.who) for key, fix in found.items()} == {
        ids[0]: ("keep", "ann"), ids[1]: ("keep", "eve"),
    }  # fmt: skip
    path.write_text("changed by hand")
    with pytest.raises(InputError, match="expected the columns"):
        ann.decide(ids[0], "drop")
    assert path.read_text() == "changed by hand"


def test_reviews_that_save_at_the_same_time_lose_no_decision(tmp_path: Path) -> None:
    path, ids = tmp_path / "fixes.csv", [f"{k:064x}" for k in range(60)]
    labels = dict.fromkeys(ids, "cat")
    reviews = [Decisions(path, labels, ["cat", "dog"], who, {}) for who in ("ann", "eve", "bob")]

    def decide_some(number: int) -> None:
        for one in ids[number::3]:
            reviews[number].decide(one, "drop")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(decide_some, range(3)))
    assert set(read_fixes(path).fixes) == set(ids)


def test_a_review_continues_after_its_only_decision_was_undone(tmp_path: Path) -> None:
    path, one = tmp_path / "fixes.csv", "0" * 64
    for _ in range(2):
        decisions = Decisions(path, {one: "cat"}, ["cat", "dog"], "ann", {})
        assert decisions.decide(one, "drop") == 1
        assert decisions.decide(one, "") == 0
        assert not path.exists()


@pytest.mark.parametrize("who", ["a\rb", "a\nb", "\udcff", "a" * 2000])
def test_a_name_that_the_file_could_not_hold(tmp_path: Path, who: str) -> None:
    with pytest.raises(InputError, match="--who: expected at most 1000 characters without control"):
        Decisions(tmp_path / "fixes.csv", {}, [], who, {})


def test_a_port_that_is_taken(server: ReviewServer) -> None:
    with pytest.raises(InputError, match=r"--port \d+: cannot listen: Address already in use"):
        ReviewServer(server.server_port, server.page, server.decisions)

"""`regraft predict` against a running server: its table, and its output for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.cli.main import main
from regraft_client.predict_files import reason_of
from serving.running.runner import Addresses, free_port

Ended = tuple[int, str, str]


@pytest.fixture
def predict(
    server: Addresses, images: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Return a function that predicts a bright and a dark image: exit code, output, errors."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, image in (("bright", images[0]), ("dark", images[3])):
        (folder / f"{name}.png").write_bytes(image)

    def run(*options: str, model: str = "tiny", path: Path = folder, address: str = "") -> Ended:
        address = address or f"grpc://{server.grpc}"
        with pytest.raises(SystemExit) as ended:
            main(["predict", str(path), "--server", address, "--model", model, *options])
        written = capsys.readouterr()
        return int(ended.value.code or 0), written.out, written.err

    return run


def cells(table: str, name: str) -> list[str]:
    [line] = [line for line in table.splitlines() if name in line]
    return [cell.strip() for cell in line.strip("│┃").split("│")]


def test_a_table_shows_whether_images_are_familiar(predict: Callable[..., Ended]) -> None:
    code, out, _ = predict("--version", "2")
    assert code == 0
    assert "familiar" in out
    assert cells(out, "bright.png")[3] == "yes"
    assert cells(out, "dark.png")[3] == "no"
    # Next to it are the names in the set, and abstention.
    assert cells(out, "bright.png")[4].startswith("even-")
    assert cells(out, "bright.png")[5] == "yes"


def test_a_model_without_a_threshold_has_no_such_column(predict: Callable[..., Ended]) -> None:
    _, out, _ = predict("--version", "1")
    assert "familiar" not in out
    assert len(cells(out, "bright.png")) == 3


def test_programs_read_json_and_csv(predict: Callable[..., Ended]) -> None:
    flags = [row["familiar"] for row in json.loads(predict("--version", "2", "--json")[1])]
    assert flags == [True, False]
    flags = [row["familiar"] for row in json.loads(predict("--version", "1", "--json")[1])]
    assert flags == [None, None]
    for version, expected in (("2", ["true", "false"]), ("1", ["", ""])):
        _, out, _ = predict("--version", version, "--csv")
        assert [line.split(",")[3] for line in out.splitlines()[1:]] == expected


def test_json_has_the_names_of_the_probabilities(predict: Callable[..., Ended]) -> None:
    rows = json.loads(predict("--version-label", "canary", "--json")[1])
    for row in rows:
        assert row["classes"] == ["even-circle", "even-cross", "even-square"]
        best = max(range(3), key=row["probabilities"].__getitem__)
        assert row["classes"][best] == row["label"]


def test_an_unknown_version_or_label_is_told_once(
    predict: Callable[..., Ended], server: Addresses
) -> None:
    for address in (f"grpc://{server.grpc}", f"http://{server.rest}/v1/models/"):
        for option, value in (("--version-label", "none"), ("--version", "9")):
            code, out, err = predict(option, value, address=address)
            assert (code, out) == (2, "")
            assert err.startswith(f"regraft: error: {option} {value}: not found on the server: ")
            assert "available versions: 2, 1" in err
            assert err.count("\n") == 1


@pytest.mark.parametrize("options", [(), ("--version", "7"), ("--version-label", "none")])
def test_an_unknown_model_is_reported_once_with_those_that_exist(
    predict: Callable[..., Ended], server: Addresses, options: tuple[str, ...]
) -> None:
    for address in (f"grpc://{server.grpc}", f"http://{server.rest}"):
        code, out, err = predict(*options, model="regraft", address=address)
        assert (code, out) == (2, "")
        assert err.startswith("regraft: error: --model regraft: not found on the server: Servable")
        assert err.endswith("; available models: tiny\n")
        assert err.count("\n") == 1


def test_bad_input_ends_with_exit_code_2_in_one_line(
    predict: Callable[..., Ended], tmp_path: Path
) -> None:
    unknown_model = predict(model="regraft")
    missing = predict(path=tmp_path / "missing")
    bad_url = predict(address="ftp://host")
    assert [code for code, _, _ in (unknown_model, missing, bad_url)] == [2, 2, 2]
    assert unknown_model[2].startswith("regraft: error: --model regraft: ")
    assert missing[2].startswith("regraft: error: expected an image or a folder, got ")
    assert bad_url[2].startswith("regraft: error: server: expected grpc://host:port or ")
    assert [err.count("\n") for _, _, err in (missing, bad_url)] == [1, 1]


def test_a_server_that_is_not_running_ends_with_exit_code_1_in_one_line(
    predict: Callable[..., Ended],
) -> None:
    address = f"127.0.0.1:{free_port()}"
    for url in (f"http://{address}", f"grpc://{address}"):
        code, out, err = predict(address=url)
        assert (code, out) == (1, "")
        assert f"regraft: error: cannot reach {url.removeprefix('grpc://')}: " in err
        assert "(--debug shows the traceback)" not in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "Graph execution error: assertion failed: [image 0: expected an image as JPEG, PNG, "
            "GIF, BMP or WebP, got other bytes] [[{{node cond/Assert}}]] [[PartitionedCall]]",
            "expected an image as JPEG, PNG, GIF, BMP or WebP, got other bytes",
        ),
        ("Expects arg[0] to be string", "Expects arg[0] to be string"),
    ],
)
def test_a_rejection_is_shown_without_the_graphs_words(message: str, reason: str) -> None:
    assert reason_of(message) == reason

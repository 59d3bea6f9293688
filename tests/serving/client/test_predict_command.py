"""`regraft predict` against a running server: what a person and what a program reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from regraft.cli.main import main
from regraft_client.predict_files import reason_of
from serving.running.runner import Addresses

Told = tuple[int, str, str]


@pytest.fixture
def predict(
    server: Addresses, images: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Told]:
    """Return a function that asks about a bright and a dark image: exit code, output, errors."""
    for name, image in (("bright", images[0]), ("dark", images[3])):
        (tmp_path / f"{name}.png").write_bytes(image)

    def ask(*options: str, model: str = "tiny") -> Told:
        address = f"grpc://{server.grpc}"
        with pytest.raises(SystemExit) as ended:
            main(["predict", str(tmp_path), "--server", address, "--model", model, *options])
        written = capsys.readouterr()
        return int(ended.value.code or 0), written.out, written.err

    return ask


def cells(table: str, name: str) -> list[str]:
    [line] = [line for line in table.splitlines() if name in line]
    return [cell.strip() for cell in line.strip("│┃").split("│")]


def test_a_table_tells_whether_images_are_familiar(predict: Callable[..., Told]) -> None:
    code, out, _ = predict("--version", "2")
    assert code == 0
    assert "familiar" in out
    assert cells(out, "bright.png")[-1] == "yes"
    assert cells(out, "dark.png")[-1] == "no"


def test_where_the_model_does_not_say_there_is_no_such_column(predict: Callable[..., Told]) -> None:
    _, out, _ = predict("--version", "1")
    assert "familiar" not in out
    assert len(cells(out, "bright.png")) == 3


def test_programs_read_it_as_json_and_csv(predict: Callable[..., Told]) -> None:
    said = [row["familiar"] for row in json.loads(predict("--version", "2", "--json")[1])]
    assert said == [True, False]
    said = [row["familiar"] for row in json.loads(predict("--version", "1", "--json")[1])]
    assert said == [None, None]
    for version, expected in (("2", ["true", "false"]), ("1", ["", ""])):
        _, out, _ = predict("--version", version, "--csv")
        assert [line.split(",")[3] for line in out.splitlines()[1:]] == expected


def test_a_model_that_the_server_does_not_know_is_bad_input(predict: Callable[..., Told]) -> None:
    code, _, err = predict(model="regraft")
    assert code == 2
    assert err.startswith("regraft: error: --model regraft: the server knows none: ")


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
def test_a_refusal_is_told_without_the_graphs_words(message: str, reason: str) -> None:
    assert reason_of(message) == reason

"""The champion of a run is the one at its start, or the run is refused."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest

from regraft_core.formats.compared_champion import compared_version
from regraft_core.formats.run_outcome import LastPublication, write_last_publication
from regraft_core.runtime.errors import InputError


@pytest.fixture(params=["folder", "bucket"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "models")
    request.getfixturevalue("s3")
    name = f"champions-{abs(hash(str(tmp_path))) % 10**9}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}/models"


def add_version(destination: str, number: int) -> str:
    """Write the files of a published version that are read here; return its digest."""
    files, root = fsspec.core.url_to_fs(f"{destination}/pets/{number}")
    files.makedirs(root, exist_ok=True)
    files.pipe_file(f"{root}/saved_model.pb", b"")
    files.pipe_file(f"{root}/regraft.json", json.dumps({"digest": str(number) * 64}).encode())
    return str(number) * 64


def test_the_version_that_the_run_found_is_compared(destination: str) -> None:
    champion = f"{destination}/pets"
    assert compared_version("", "", "inputs") == ""
    assert compared_version(champion, "", "inputs") == ""
    digest = add_version(destination, 1)
    assert compared_version(champion, digest, "inputs") == f"{champion}/1"


def test_a_champion_that_has_changed_since_the_start_is_refused(destination: str) -> None:
    champion, first = f"{destination}/pets", add_version(destination, 1)
    other = LastPublication(inputs="others", champion_digest=first, saved_model_digest="2" * 64)
    write_last_publication(destination, "pets", other)
    add_version(destination, 2)
    with pytest.raises(InputError) as error:
        compared_version(champion, first, "inputs")
    message = str(error.value)
    assert message.startswith(f"champion: expected {'1' * 12}, as at the start of the run, got ")
    assert f"{'2' * 12} at {champion}/2" in message
    assert "repeat or resume" in message
    with pytest.raises(InputError, match="expected none, as at the start"):
        compared_version(champion, "", "inputs")


def test_a_run_that_repeats_the_last_publication_is_compared_with_it(destination: str) -> None:
    """Its expected champion is the one before; see `resolve`."""
    champion, second = f"{destination}/pets", add_version(destination, 2)
    last = LastPublication(inputs="inputs", champion_digest="", saved_model_digest=second)
    write_last_publication(destination, "pets", last)
    assert compared_version(champion, "", "inputs") == f"{champion}/2"

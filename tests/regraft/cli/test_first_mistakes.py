"""What a new user may get wrong is told in one line, before anything is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import Regraft


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "run --out OUT",
            "sources: expected a recipe or --source, got neither; `regraft init FOLDER`",
        ),
        ("run mine.yaml --out OUT", "found no file mine.yaml"),
        ("run --source x --backbone tiny --out FILE", "out: cannot write to the folder FILE: File"),
        ("run --source x --backbone tiny --out FILE/run", "FILE/run: Not a directory"),
        ("run --source x --destination shop://models --out OUT", "cannot open shop://"),
        ("serve OUT --port 99999", "Invalid value for '--port': "),
    ],
)
def test_it_is_one_line_and_bad_input(
    regraft: Regraft, tmp_path: Path, words: str, told: str
) -> None:
    places = {"OUT": tmp_path / "out", "FILE": tmp_path / "file"}
    places["FILE"].touch()
    for name, place in places.items():
        words, told = words.replace(name, str(place)), told.replace(name, str(place))
    ended = regraft(*words.split())
    assert ended.code == 2
    assert told in ended.err
    assert ended.err.count("\n") == 1
    assert not places["OUT"].exists()


def test_a_path_with_a_space_is_quoted_where_it_is_to_be_typed(
    regraft: Regraft, shapes: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "my recipe.yaml"
    ended = regraft("init", shapes, "-o", recipe)
    assert f"next: regraft run '{recipe}' --out" in ended.out


def test_ingest_tells_its_progress_beside_its_result(
    regraft: Regraft, shapes: Path, tmp_path: Path
) -> None:
    ended = regraft("ingest", shapes, "--out", tmp_path / "dataset", "--processes", 1)
    assert ended.code == 0
    assert ended.out.startswith(f"{tmp_path / 'dataset'}: 3 classes, ")
    assert ended.err.startswith("ingest: 3 classes; ")

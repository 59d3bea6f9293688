"""The code blocks of the pages, on which the other tests of the pages depend."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import (
    CONSOLE,
    MARKERS,
    PYTHON,
    SHELL,
    TEXT,
    all_blocks,
    blocks_of,
    simple_commands,
)

PAGE = """
# A page

<!-- test: run -->
```console
$ regraft inspect tiny
layers  9

cut points  2
$ regraft run --source ./images \\
>     --out runs/mine
```

```sh
make demo   # a note
A=1 regraft serve models & sleep 1
```

    from pathlib import Path

<!-- test: unchecked, needs a cluster -->
```sh
kubectl get pods
```
"""


def page(folder: Path, text: str = PAGE) -> Path:
    path = folder / "page.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_blocks_have_language_line_and_marker(tmp_path: Path) -> None:
    found = blocks_of(page(tmp_path))
    assert [(b.language, b.line, b.marker) for b in found] == [
        ("console", 5, "run"),
        ("sh", 14, ""),
        ("python", 19, ""),
        ("sh", 22, "unchecked, needs a cluster"),
    ]


def test_a_console_block_is_commands_with_their_output(tmp_path: Path) -> None:
    first, *_ = blocks_of(page(tmp_path))
    assert first.exchanges == [
        ("regraft inspect tiny", "layers  9\n\ncut points  2"),
        ("regraft run --source ./images \\\n    --out runs/mine", ""),
    ]


def test_commands_are_cut_at_operators_and_comments(tmp_path: Path) -> None:
    found = list(simple_commands(blocks_of(page(tmp_path))[1].commands))
    assert found == [["make", "demo"], ["regraft", "serve", "models"], ["sleep", "1"]]


def test_every_block_has_a_known_language() -> None:
    known = {*SHELL, *PYTHON, *CONSOLE, *TEXT}
    assert [b.location for b in all_blocks() if b.language not in known] == []


def test_blocks_of_plain_text_contain_no_commands() -> None:
    starts = ("regraft ", "make ", "curl ", "python ", "$ ", "pip ")
    hidden = [b.location for b in all_blocks() if b.language in TEXT
              and any(line.startswith(starts) for line in b.text.splitlines())]  # fmt: skip
    assert hidden == []


def test_every_marker_is_documented() -> None:
    unknown = [f"{b.location}: {b.marker}" for b in all_blocks() if b.marker
               and b.marker not in MARKERS and not b.marker.startswith("unchecked, ")]  # fmt: skip
    assert unknown == []


@pytest.mark.parametrize("text", ["", "# Only words\n"])
def test_a_page_without_blocks_has_none(tmp_path: Path, text: str) -> None:
    assert blocks_of(page(tmp_path, text)) == []

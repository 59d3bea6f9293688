"""One line of printable characters, whatever a name contains."""

from __future__ import annotations

import pytest

from regraft_core.runtime.printable import one_line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain  text\t", "plain text"),
        ("two\nlines\r\n", "two lines"),
        ("\x1b[2J\x1b]0;title\x07red", "[2J ]0;title red"),
        ("a\u2028b\u202ec\x85d", "a b c d"),
        ("caf\u00e9 \U0001f408", "caf\u00e9 \U0001f408"),
        ("bytes\udcff", "bytes"),
        (ValueError("first\nsecond"), "first second"),
    ],
)
def test_control_characters_become_spaces(text: object, expected: str) -> None:
    assert one_line(text) == expected

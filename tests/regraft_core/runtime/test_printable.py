"""One line of printable characters, whatever a name contains."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest

from regraft_core.runtime.printable import hide_secret, one_line


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


def test_a_line_has_no_signature_and_no_password() -> None:
    text = "s: https://u:p@host/a.zip?X-Amz-Signature=abc\nand more"
    assert one_line(text) == "s: https://host/a.zip?... and more"


SECRET = "s3cret/T0ken+with=signs.and-length"


@pytest.mark.parametrize(
    "echo",
    [
        SECRET,
        SECRET[:12],
        SECRET[9:],
        quote(SECRET, safe=""),
        quote(SECRET, safe="").lower(),
        quote(SECRET)[3:20],
        SECRET.encode().hex(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.b64encode(f"Bearer {SECRET}".encode()).decode()[12:],
        base64.b64encode(f"user:{SECRET}".encode()).decode()[8:],
        base64.urlsafe_b64encode(f"u:{SECRET}".encode()).decode()[4:],
    ],
)
def test_a_secret_is_hidden_in_every_form(echo: str) -> None:
    hidden = hide_secret(f"the token '{echo}' has expired", SECRET)
    assert hidden.startswith("the token '") and hidden.endswith("' has expired")
    assert "***" in hidden
    assert not any(echo[k : k + 8] in hidden for k in range(len(echo) - 7))


def test_a_text_without_the_secret_stays() -> None:
    assert hide_secret("the token has expired", SECRET) == "the token has expired"
    assert hide_secret("anything", "") == "anything"
    assert hide_secret("short abc", "abc") == "short ***"

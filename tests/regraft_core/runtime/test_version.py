"""The digest of the code."""

from __future__ import annotations

from regraft_core.runtime.version import code_digest


def test_the_code_has_one_digest() -> None:
    assert code_digest() == code_digest()
    assert len(code_digest()) == 64

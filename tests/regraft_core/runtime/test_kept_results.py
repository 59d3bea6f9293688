"""Results of measurements that are kept by the kind of machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft_core.runtime import kept_results
from regraft_core.runtime.kept_results import KeptResults


@pytest.fixture
def kept(tmp_path: Path) -> KeptResults:
    return KeptResults(tmp_path / "cache" / "results.json")


def test_a_result_is_found_by_its_key(kept: KeptResults) -> None:
    assert kept.find(["a", 1]) is None
    kept.keep(["a", 1], {"float32_s": 0.25})
    kept.keep(["a", 2], "bfloat16")
    assert KeptResults(kept.path).find(["a", 1]) == {"float32_s": 0.25}
    assert kept.find(["a", 2]) == "bfloat16"
    assert kept.find(["a", 3]) is None


@pytest.mark.parametrize("name", ["machine_kind", "available_cores"])
def test_another_kind_of_machine_has_its_own_results(
    kept: KeptResults, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kept.keep(["a"], 1)
    monkeypatch.setattr(kept_results, name, lambda: "another")
    assert kept.find(["a"]) is None
    kept.keep(["a"], 2)
    monkeypatch.undo()
    assert kept.find(["a"]) == 1


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 100_000, b"[1]", b'"a"'])
def test_a_damaged_file_is_replaced(kept: KeptResults, content: bytes) -> None:
    kept.path.parent.mkdir()
    kept.path.write_bytes(content)
    assert kept.find(["a"]) is None
    kept.keep(["a"], 1)
    assert kept.find(["a"]) == 1


def test_a_home_that_cannot_be_written_keeps_nothing(kept: KeptResults) -> None:
    kept.path.parent.write_text("not a folder")
    kept.keep(["a"], 1)
    assert kept.find(["a"]) is None

"""Saved states of trainings in a content store."""

from __future__ import annotations

import os
from pathlib import Path

from regraft_core.training.checkpoint import saved_states, write_state


def test_saved_states_change_with_each_checkpoint(tmp_path: Path) -> None:
    store = str(tmp_path)
    assert saved_states("", "fine_tune-top") == {}
    assert saved_states(store, "fine_tune-top") == {}
    for name in ("fine_tune-top-1", "fine_tune-full-1"):
        write_state(tmp_path / name, "fingerprint", 1, {}, {})
    before = saved_states(store, "fine_tune-top")
    assert list(before) == ["fine_tune-top-1"]
    write_state(tmp_path / "fine_tune-top-1", "fingerprint", 2, {}, {})
    os.utime(tmp_path / "fine_tune-top-1" / "checkpoint.json", (9e9, 9e9))
    assert saved_states(store, "fine_tune-top") == {"fine_tune-top-1": 9e9} != before

"""What the driver reports about its cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from regraft_core.runtime.nvidia_smi import Holder, read_driver
from tests.regraft_core.runtime.nvidia import install, report


def test_the_driver_its_card_and_who_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, report(free_mb=1200, held_mb=79000))
    driver = read_driver()
    assert driver is not None
    assert (driver.version, driver.cuda) == ("580.95.05", (13, 0))
    (card,) = driver.cards
    assert (card.name, card.total_mb, card.free_mb) == ("NVIDIA H100 80GB HBM3", 81559, 1200)
    assert card.holders == (Holder(417, "python3", 79000),)
    assert card.describe() == (
        "NVIDIA H100 80GB HBM3, 1200 of 81559 MB free, held by process 417 (python3) 79000 MB"
    )


def test_the_slices_of_a_card_have_their_own_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, report(slices=2))
    driver = read_driver()
    assert driver is not None
    assert [card.total_mb for card in driver.cards] == [9856, 9856]
    assert all(card.is_slice for card in driver.cards)


@pytest.mark.parametrize(
    ("chosen", "uuids"),
    [
        (None, ["GPU-0a", "GPU-1a"]), ("", []), ("-1", []), ("1", ["GPU-1a"]),
        ("GPU-1a,0", ["GPU-1a", "GPU-0a"]), ("0,7,1", ["GPU-0a"]),
    ],
)  # fmt: skip
def test_the_environment_chooses_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str | None, uuids: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    install(monkeypatch, tmp_path, report(cards=2))
    driver = read_driver()
    assert driver is not None
    assert [card.uuid for card in driver.visible_cards(chosen)] == uuids


@pytest.mark.parametrize("text", ["", "Failed to initialize NVML: Driver/library version mismatch"])
def test_without_a_report_there_is_no_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    install(monkeypatch, tmp_path, text)
    assert read_driver() is None
    assert read_driver("no-such-program") is None

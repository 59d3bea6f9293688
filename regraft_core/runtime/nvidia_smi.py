"""What `nvidia-smi` reports: the driver, the cards, their memory and the processes that hold it."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import PurePath
from xml.etree import ElementTree

PROGRAM = "nvidia-smi"
TIMEOUT_S = 15.0


@dataclass(frozen=True)
class Holder:
    """A process that holds memory of a card; a container may not see the names of others."""

    pid: int
    name: str
    memory_mb: int


@dataclass(frozen=True)
class Card:
    """One card, or one MIG slice of a card, with its memory in MiB."""

    name: str
    uuid: str
    total_mb: int
    free_mb: int
    holders: tuple[Holder, ...] = ()
    is_slice: bool = False

    def describe(self) -> str:
        """Return name, memory and holders as one text."""
        text = f"{self.name}, {self.free_mb} of {self.total_mb} MB free"
        if self.holders:
            text += ", held by " + ", ".join(
                f"process {one.pid} ({one.name}) {one.memory_mb} MB" for one in self.holders
            )
        return text


@dataclass(frozen=True)
class Driver:
    """The driver, the newest CUDA version that it supports, and its cards."""

    version: str
    cuda: tuple[int, int]
    cards: tuple[Card, ...]

    def visible_cards(self, chosen: str | None = None) -> tuple[Card, ...]:
        """Return the cards that a process may use.

        Args:
            chosen: the value of CUDA_VISIBLE_DEVICES; None reads it.
        """
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES") if chosen is None else chosen
        if chosen is None:
            return self.cards
        found = []
        for name in filter(None, map(str.strip, chosen.split(","))):
            matching = [card for number, card in enumerate(self.cards)
                        if name == str(number) or card.uuid.startswith(name)]  # fmt: skip
            if not matching:  # CUDA ignores an unknown device and all that follow
                break
            found += matching[:1]
        return tuple(found)


def read_driver(program: str = PROGRAM) -> Driver | None:
    """Return the state of the driver and its cards; None if the program does not report it."""
    try:
        done = subprocess.run(
            [program, "-q", "-x"], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
        return _parse(ElementTree.fromstring(done.stdout))  # noqa: S314 - as above
    except (OSError, subprocess.SubprocessError, ElementTree.ParseError):
        return None


def _parse(root: ElementTree.Element) -> Driver:
    cards: list[Card] = []
    for gpu in root.iter("gpu"):
        whole = Card(
            name=gpu.findtext("product_name", "GPU"),
            uuid=gpu.findtext("uuid", ""),
            total_mb=_number(gpu, "fb_memory_usage/total"),
            free_mb=_number(gpu, "fb_memory_usage/free"),
            holders=_holders(gpu),
        )
        slices = [
            Card(f"MIG slice of {whole.name}", whole.uuid, _number(one, "fb_memory_usage/total"),
                 _number(one, "fb_memory_usage/free"), whole.holders, is_slice=True)
            for one in gpu.iter("mig_device")
        ]  # fmt: skip
        cards += slices or [whole]
    cuda = re.match(r"(\d+)\.(\d+)", root.findtext("cuda_version", ""))
    supported = (int(cuda[1]), int(cuda[2])) if cuda else (0, 0)
    return Driver(root.findtext("driver_version", ""), supported, tuple(cards))


def _holders(gpu: ElementTree.Element) -> tuple[Holder, ...]:
    return tuple(
        Holder(
            pid=_number(one, "pid"),
            name=PurePath(one.findtext("process_name", "").split(" ")[0]).name or "?",
            memory_mb=_number(one, "used_memory"),
        )
        for one in gpu.iter("process_info")
    )


def _number(element: ElementTree.Element, path: str) -> int:
    """Return the number of a text such as `81559 MiB`; 0 if it is not available."""
    found = re.match(r"\d+", element.findtext(path, "").strip())
    return int(found[0]) if found else 0

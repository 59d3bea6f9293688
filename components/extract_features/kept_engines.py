"""The engines that earlier races on this machine have chosen, in the user's cache."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from components.extract_features.engines import Engine
from regraft_core.runtime.kept_results import KeptResults
from regraft_core.runtime.machine import machine_kind
from regraft_core.training.mixed_precision import gpu_names

KEPT = KeptResults(Path("~/.cache/regraft/engines.json"))


@dataclass(frozen=True)
class Work:
    """The forward passes of a step: the network, by what decides its speed, and what to compute.

    Args:
        network: the backbone, the digest of its weights, and the shapes of its outputs.
        images: number of images, counted once for each view.
        image_px: their size.
        batch_size: images of a batch.
    """

    network: tuple[Any, ...]
    images: int
    image_px: int
    batch_size: int


@dataclass(frozen=True)
class Kept:
    """The result of a race: the engine, and all rates in a sentence."""

    engine: Engine
    sentence: str


def engine_versions(engines: list[Engine]) -> list[str]:
    """Return what decides speed and bits: the kind of machine, its GPUs, the engines' versions."""
    others = sorted({engine.runtime for engine in engines} - {"tf"})
    versions = (f"{name} {metadata.version(name)}" for name in others)
    return [machine_kind(), *gpu_names(), *versions]


def read_kept(work: Work, engines: list[Engine]) -> Kept | None:
    """Return the result of a race of these engines for the same work; none if there was none."""
    kept = KEPT.find(_key(work, engines))
    if not isinstance(kept, dict):
        return None
    for engine in engines:
        if kept.get("engine") == str(engine):
            return Kept(engine, str(kept.get("sentence", "")))
    return None


def keep(work: Work, engines: list[Engine], kept: Kept) -> None:
    """Write the result of a race; a machine without a writable home races again."""
    value = {"engine": str(kept.engine), "network": str(work.network[0]), "sentence": kept.sentence}
    KEPT.keep(_key(work, engines), value)


def _key(work: Work, engines: list[Engine]) -> list[Any]:
    return [
        work.network, work.image_px, work.batch_size, engine_versions(engines),
        list(map(str, engines)),
    ]  # fmt: skip

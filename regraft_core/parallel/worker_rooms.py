"""What a worker takes of its node, and how many workers the nodes have room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """What a worker takes of its node."""

    cpus: float
    gpus: float = 0


def large_rooms(resources: Sequence[Mapping[str, float]]) -> tuple[Room, int]:
    """Return the room of workers that use a whole node or GPU, and their number.

    With GPUs, each worker has one of them and its part of the CPUs of its node, which decode its
    images. Otherwise each has the CPUs of the smallest node.

    Args:
        resources: CPUs and GPUs of each node.
    """
    with_gpus = [one for one in resources if one.get("GPU", 0) >= 1]
    if with_gpus:
        cpus = min(int(one["CPU"] // int(one["GPU"])) for one in with_gpus)
        return Room(max(cpus, 1), 1), sum(int(one["GPU"]) for one in with_gpus)
    cpus = max(min(int(one["CPU"]) for one in resources), 1)
    return Room(cpus), max(sum(int(one["CPU"]) // cpus for one in resources), 1)

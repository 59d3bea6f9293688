"""The rooms of workers on nodes with and without GPUs."""

from __future__ import annotations

import pytest

from regraft_core.parallel.worker_rooms import Room, large_rooms


@pytest.mark.parametrize(
    ("resources", "room"),
    [
        ([{"CPU": 4}], (Room(4), 1)),
        ([{"CPU": 1}, {"CPU": 4}], (Room(1), 5)),
        ([{"CPU": 4}, {"CPU": 8}, {"CPU": 6}], (Room(4), 4)),
        ([{"CPU": 16, "GPU": 1}], (Room(16, 1), 1)),
        ([{"CPU": 8, "GPU": 4}, {"CPU": 16, "GPU": 1}, {"CPU": 64}], (Room(2, 1), 5)),
        ([{"CPU": 1, "GPU": 2}], (Room(1, 1), 2)),
    ],
)
def test_rooms_of_whole_nodes_and_gpus(
    resources: list[dict[str, float]], room: tuple[Room, int]
) -> None:
    assert large_rooms(resources) == room

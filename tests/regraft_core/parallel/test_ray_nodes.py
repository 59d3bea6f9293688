"""The cores of the nodes of a cluster on this machine."""

from __future__ import annotations

import os

from regraft_core.parallel.ray_nodes import Cores


def test_each_node_has_cores_of_its_own_as_long_as_there_are_enough() -> None:
    every = sorted(os.sched_getaffinity(0))
    cores = Cores(every)
    for core in every:
        with cores.given(1):
            assert os.sched_getaffinity(0) == {core}
        assert sorted(os.sched_getaffinity(0)) == every
    with cores.given(1):
        assert sorted(os.sched_getaffinity(0)) == every
    cores.take_back()
    cores.take_back()
    with cores.given(1):
        assert os.sched_getaffinity(0) == {every[-1]}
    with Cores(every).given(len(every) + 1):
        assert sorted(os.sched_getaffinity(0)) == every

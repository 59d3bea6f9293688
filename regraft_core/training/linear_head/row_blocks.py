"""Blocks of rows, and functions of each of them, whose results come in the order of the rows.

Threads of this process compute them or, for rows on disk, the workers of an executor. Blocks and
order are the same for both, so sums of the results have the same bits, whichever worker is first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from regraft_core.parallel.executor import Executor, find_function, name_of
from regraft_core.runtime.machine import available_cores
from regraft_core.training.linear_head.linear_classifier import Scaling
from regraft_core.training.stored_part import StoredPart

Floats = NDArray[np.float64]
Rows = NDArray[Any] | StoredPart
"""Rows [m, width] in memory, or in a file."""
Result = TypeVar("Result")
BLOCK_VALUES = 1 << 24
"""Values of rows that are converted to float32 at a time."""


@dataclass(frozen=True)
class Block:
    """Some rows, as stored, and their place among all."""

    place: slice
    rows: Rows


@dataclass(frozen=True)
class RowBlocks:
    """Rows in parts of [m, width], their targets [n, k] and weights [n].

    With `scaling`, rows are stored features, scaled block by block, so that they need not fit in
    memory as float32. With `executor`, its workers read the rows and compute with them.
    """

    parts: Sequence[Rows]
    targets: Floats
    weights: Floats
    scaling: Scaling | None = None
    executor: Executor | None = None

    def map(self, function: Callable[..., Result], *arguments: Any) -> Iterator[Result]:
        """Yield `function(rows, targets, weights, *arguments)` of each block, in their order.

        Args:
            function: a function of a module. It takes the rows of a block, float32 [m, width],
                their targets [m, k] and their weights [m]. It may change rows that were scaled.
            *arguments: the same for all blocks.
        """
        blocks = split_blocks(self.parts)
        if self.executor is not None:
            name = name_of(function)
            tasks = (self._task(name, block, arguments) for block in blocks)
            yield from self.executor.map(compute_block, tasks, "train_head", _bytes_of)
            return

        def compute(block: Block) -> Result:
            targets, weights = self.targets[block.place], self.weights[block.place]
            return function(_scaled(block.rows, self.scaling), targets, weights, *arguments)

        if len(blocks) == 1:
            yield compute(blocks[0])
            return
        cores = available_cores()
        pending: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(cores) as threads:
            for block in blocks:
                if len(pending) > cores:
                    yield pending.popleft().result()
                pending.append(threads.submit(compute, block))
            while pending:
                yield pending.popleft().result()

    def _task(self, function: str, block: Block, arguments: tuple[Any, ...]) -> BlockTask:
        targets = TwoValues.pack(self.targets[block.place])
        weights = self.weights[block.place]
        return BlockTask(function, block.rows, self.scaling, targets, weights, arguments)


@dataclass(frozen=True)
class TwoValues:
    """An array of at most two values, such as targets: 64 times smaller, with the same bits."""

    low: float
    high: float
    places: NDArray[np.uint8]
    shape: tuple[int, ...]

    @classmethod
    def pack(cls, values: Floats) -> TwoValues:
        """Return an array, not empty, with one bit per value.

        Raises:
            ValueError: it has more than two values.
        """
        low, high = float(values.min()), float(values.max())
        above = values == high
        if not (above | (values == low)).all():
            raise ValueError("expected targets of two values, got more")
        return cls(low, high, np.packbits(above), values.shape)

    def unpack(self) -> Floats:
        """Return the array."""
        count = int(np.prod(self.shape))
        above = np.unpackbits(self.places, count=count).reshape(self.shape).astype(bool)
        return np.where(above, self.high, self.low)


@dataclass(frozen=True)
class BlockTask:
    """What a worker needs for one block: the name of the function, and its arguments."""

    function: str
    rows: Rows
    scaling: Scaling | None
    targets: TwoValues
    weights: Floats
    arguments: tuple[Any, ...]


def compute_block(task: BlockTask) -> Any:
    """Return what the function of a task returns, computed by one thread as on one machine."""
    function = find_function(task.function)
    with threadpool_limits(1, "blas"):
        rows = _scaled(task.rows, task.scaling)
        return function(rows, task.targets.unpack(), task.weights, *task.arguments)


def split_blocks(parts: Sequence[Rows]) -> list[Block]:
    """Return the blocks of all parts, with their place; rows in a file are not read."""
    found, done = [], 0
    for part in parts:
        size = max(BLOCK_VALUES // max(part.shape[1], 1), 1)
        for first in range(0, len(part), size):
            rows = part[first : first + size]
            found.append(Block(slice(done + first, done + first + len(rows)), rows))
        done += len(part)
    return found


def _scaled(rows: Any, scaling: Scaling | None) -> Any:
    return rows if scaling is None else scaling.apply(rows)


def _bytes_of(task: BlockTask) -> int:
    arrays = [one for one in (task.rows, *task.arguments) if isinstance(one, np.ndarray)]
    return task.targets.places.nbytes + task.weights.nbytes + sum(one.nbytes for one in arrays)

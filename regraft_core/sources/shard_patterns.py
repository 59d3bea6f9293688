"""Patterns that name many shards, such as `train-{000000..000009}.tar`."""

from __future__ import annotations

import re

from regraft_core.runtime.errors import InputError

MAX_SHARDS = 100_000
# Not ${NAME}, the name of a variable in a URL.
_RANGE = re.compile(r"(?<!\$)\{(\d{1,9})\.\.(\d{1,9})\}")


def shards_of(source: str) -> list[str]:
    """Return the shards that a pattern names, in order; none if the source is no pattern.

    Raises:
        InputError: a range is empty, or there are more than `MAX_SHARDS`.
    """
    if not _RANGE.search(source):
        return []
    shards = [source]
    while found := _RANGE.search(shards[0]):
        first, last = int(found[1]), int(found[2])
        if last < first or len(shards) * (last - first + 1) > MAX_SHARDS:
            raise InputError(
                f"source: expected a range of 1 to {MAX_SHARDS} shards, got {found[0]} in {source}"
            )
        digits = len(found[1])
        numbers = [f"{number:0{digits}}" for number in range(first, last + 1)]
        shards = [_RANGE.sub(number, shard, count=1) for shard in shards for number in numbers]
    return shards

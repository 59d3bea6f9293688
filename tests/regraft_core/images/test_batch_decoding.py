"""Batches of stored images: in order, and the image that cannot be decoded is named."""

from __future__ import annotations

from itertools import chain

import pytest

from regraft_core.formats.records import ImageRecord
from regraft_core.images.batch_decoding import decode_batches, make_decoder, split_evenly
from regraft_core.runtime.errors import DataError


def test_batches_are_in_order(samples: dict[str, bytes]) -> None:
    records = [ImageRecord(samples["png"], n, str(n), f"{n}.png") for n in range(5)]
    batches = list(decode_batches(records, 2, make_decoder(8)))
    assert [len(pixels) for _, pixels in batches] == [2, 2, 1]
    assert list(chain.from_iterable(batch for batch, _ in batches)) == records


@pytest.mark.parametrize(
    ("stored", "sizes"),
    [(0, []), (1, [1]), (32, [32]), (33, [17, 16]), (70, [24, 23, 23]), (64, [32, 32])],
)
def test_batches_of_a_shard_are_of_one_size(stored: int, sizes: list[int]) -> None:
    records = [ImageRecord(b"", n, str(n), f"{n}.png") for n in range(stored)]
    batches = list(split_evenly(records, stored, 32))
    assert [len(batch) for batch in batches] == sizes
    assert list(chain.from_iterable(batches)) == records


@pytest.mark.parametrize(("stored", "sizes"), [(40, [17, 16, 7]), (20, [17, 3])])
def test_batches_of_a_shard_are_all_that_is_stored(stored: int, sizes: list[int]) -> None:
    records = [ImageRecord(b"", n, str(n), f"{n}.png") for n in range(stored)]
    batches = list(split_evenly(records, 33, 32))
    assert [len(batch) for batch in batches] == sizes
    assert list(chain.from_iterable(batches)) == records


@pytest.mark.parametrize("kind", ["gif", "bmp", "jpeg"])
def test_an_image_that_cannot_be_decoded_is_named(samples: dict[str, bytes], kind: str) -> None:
    records = [ImageRecord(samples["png"], n, str(n), f"cat/{n}.png") for n in range(5)]
    records[3] = records[3]._replace(encoded=samples[kind][:-60], path="cat/cut")
    with pytest.raises(
        DataError, match=r"^cat/cut: the model cannot decode this image \(.+\); exc"
    ):
        list(decode_batches(records, 4, make_decoder(8)))

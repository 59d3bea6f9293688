"""Batches of stored images: in order, and the image that cannot be decoded is named."""

from __future__ import annotations

from itertools import chain

import pytest

from regraft_core.formats.records import ImageRecord
from regraft_core.images.batch_decoding import decode_batches, make_decoder
from regraft_core.runtime.errors import DataError


def test_batches_are_in_order(samples: dict[str, bytes]) -> None:
    records = [ImageRecord(samples["png"], n, str(n), f"{n}.png") for n in range(5)]
    batches = list(decode_batches(records, 2, make_decoder(8)))
    assert [len(pixels) for _, pixels in batches] == [2, 2, 1]
    assert list(chain.from_iterable(batch for batch, _ in batches)) == records


@pytest.mark.parametrize("kind", ["gif", "bmp", "jpeg"])
def test_an_image_that_cannot_be_decoded_is_named(samples: dict[str, bytes], kind: str) -> None:
    records = [ImageRecord(samples["png"], n, str(n), f"cat/{n}.png") for n in range(5)]
    records[3] = records[3]._replace(encoded=samples[kind][:-60], path="cat/cut")
    with pytest.raises(
        DataError, match=r"^cat/cut: the model cannot decode this image \(.+\); exc"
    ):
        list(decode_batches(records, 4, make_decoder(8)))

"""Compares the two readers of images: what ingest stores, the served graph must decode.

`python -m tests.components.ingest.two_readers --seconds 600` searches with mutated files of every
format. It ends with 1 if ingest stores an image that the graph refuses, if either reader crashes,
or if a file of a few kilobytes takes more than `MEMORY_MIB`.
"""

from __future__ import annotations

import argparse
import io
import resource
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from components.ingest.checks.image_validation import validate_image
from components.ingest.checks.invalid_image import InvalidImageError
from serving.server.protocol.image_sizes import declared_size

MEMORY_MIB = 1024
"""Limit of what either reader takes in addition to its start, for images of `MAX_PIXELS`."""
MAX_PIXELS = 10**6
DECODED, REFUSED = b"+", b"-"
_GRAPH = """
import os, resource, struct, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "4"
import tensorflow as tf
from regraft_core.images.preprocess import load_images
spec = tf.TensorSpec([None], tf.string)
load = tf.function(lambda encoded: load_images(encoded, 32), input_signature=[spec])
taken, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
while head := taken.read(4):
    data = taken.read(struct.unpack("<I", head)[0])
    try:
        load(tf.constant([data]))
        found = b"+"
    except tf.errors.OpError:
        found = b"-"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answers.write(found + struct.pack("<I", peak >> 10))
    answers.flush()
"""


class Graph:
    """The served graph, in a process of its own, because a crash ends the process."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-c", _GRAPH]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.read(encode(Image.new("RGB", (1000, 1000)), "PNG"))
        self.start_mib = self.peak_mib
        return self

    @property
    def grown_mib(self) -> int:
        """What the process took at most in addition to its start."""
        return self.peak_mib - self.start_mib

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def read(self, data: bytes) -> bytes:
        """Return `DECODED`, `REFUSED`, or nothing if the process ended."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(struct.pack("<I", len(data)) + data)
        self._process.stdin.flush()
        answer = self._process.stdout.read(5)
        if len(answer) < 5:
            return b""
        self.peak_mib = struct.unpack("<I", answer[1:])[0]
        return answer[:1]


@dataclass
class Comparison:
    """The number of compared files by format and result, and the failures."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, bytes]] = field(default_factory=list)


def compare(files: Iterator[tuple[str, bytes]], seconds: float, most: int = 10**9) -> Comparison:
    """Give files to both readers until the time is over or `most` files are compared."""
    result, end = Comparison(), time.monotonic() + seconds
    start_mib = _peak_mib()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while time.monotonic() < end and sum(result.counts.values()) < most:
            with Graph() as graph:
                for name, data in files:
                    if failure := _compare_one(graph, name, data, result.counts):
                        result.failures.append((f"{name}: {failure}", data))
                    if graph.grown_mib > MEMORY_MIB or "ended" in failure:
                        break  # the next files get a new process
                    if _peak_mib() - start_mib > MEMORY_MIB:
                        result.failures.append((f"{name}: ingest took {_peak_mib()} MiB", data))
                        start_mib = _peak_mib()
                    if time.monotonic() > end or sum(result.counts.values()) >= most:
                        break
    return result


def _compare_one(graph: Graph, name: str, data: bytes, counts: Counter[str]) -> str:
    """Return what is wrong with the readers of one file; empty if nothing is."""
    stored = stored_of(data)
    kind = name.split("-")[0]
    counts[
        f"{kind} " + ("refused" if stored is None else "kept" if stored is data else "again")
    ] += 1
    read = graph.read(data)
    if not read:
        return "the graph's process ended"
    if stored is not None and stored is not data:
        read = graph.read(stored)
    width, height = declared_size(data)
    if graph.grown_mib > MEMORY_MIB and width * height <= MAX_PIXELS:
        return f"the graph took {graph.peak_mib} MiB"
    return "ingest keeps it, the graph refuses it" if stored and read != DECODED else ""


def stored_of(data: bytes) -> bytes | None:
    """Return the bytes that ingest stores of a file; None if it is invalid."""
    try:
        stats = validate_image(data, max_pixels=MAX_PIXELS)
    except InvalidImageError:
        return None
    return data if stats.encoded is None else stats.encoded


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def encode(image: Image.Image, kind: str, **values: Any) -> bytes:
    """Return an image in a format of Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **values)
    return buffer.getvalue()


def whole_files(photo: Image.Image) -> dict[str, bytes]:
    """Return an undamaged file of each format and variant; names start with the format."""
    alpha = photo.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(photo.size))
    gray, palette, turned = photo.convert("L"), photo.quantize(40), photo.rotate(180)
    sixteen = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    moving: dict[str, Any] = {"save_all": True, "append_images": [turned]}
    alpha_moving = moving | {"append_images": [alpha.rotate(90)]}
    return {
        "jpeg": encode(photo, "JPEG"),
        "jpeg-gray": encode(gray, "JPEG"),
        "jpeg-progressive": encode(photo, "JPEG", progressive=True),
        "jpeg-cmyk": encode(photo.convert("CMYK"), "JPEG"),
        "jpeg-exif": encode(photo, "JPEG", exif=exif),
        "jpeg-restarts": encode(photo, "JPEG", restart_marker_blocks=2),
        "png": encode(photo, "PNG"),
        "png-gray": encode(gray, "PNG"),
        "png-alpha": encode(alpha, "PNG"),
        "png-gray-alpha": encode(alpha.convert("LA"), "PNG"),
        "png-palette": encode(palette, "PNG", transparency=bytes(range(0, 240, 10))),
        "png-clear": encode(photo, "PNG", transparency=photo.getpixel((0, 0))),
        "png-one-bit": encode(photo.convert("1"), "PNG"),
        "png-16-bit": encode(sixteen, "PNG"),
        "png-small": encode(photo.resize((14, 9)), "PNG"),
        "png-animated": encode(photo, "PNG", **moving),
        "gif": encode(photo, "GIF"),
        "gif-gray": encode(gray, "GIF"),
        "gif-clear": encode(palette, "GIF", transparency=3),
        "gif-animated": encode(photo, "GIF", **moving),
        "gif-interlaced": encode(palette, "GIF", interlace=True),
        "bmp": encode(photo, "BMP"),
        "bmp-gray": encode(gray, "BMP"),
        "bmp-palette": encode(palette, "BMP"),
        "bmp-one-bit": encode(photo.convert("1"), "BMP"),
        "bmp-alpha": encode(alpha, "BMP"),
        "webp": encode(photo, "WEBP"),
        "webp-lossless": encode(photo, "WEBP", lossless=True),
        "webp-alpha": encode(alpha, "WEBP"),
        "webp-exif": encode(photo, "WEBP", exif=exif, icc_profile=b"x" * 40),
        "webp-animated": encode(photo, "WEBP", **moving),
        "webp-animated-alpha": encode(alpha, "WEBP", **alpha_moving),
        "tiff": encode(photo, "TIFF"),
        "tiff-lzw": encode(photo, "TIFF", compression="tiff_lzw"),
        "tiff-deflate": encode(gray, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-16-bit": encode(sixteen, "TIFF"),
        "tiff-alpha": encode(alpha, "TIFF"),
    }


def mutants(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield damaged files without end, each format and variant in turn."""
    random = np.random.default_rng(seed)
    noise = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    photos = (noise.resize((px, px - 8), Image.Resampling.BICUBIC) for px in (18, 48))
    sources = [whole_files(photo).items() for photo in photos]
    while True:
        for pair in zip(*sources, strict=True):
            name, data = pair[random.integers(len(pair))]
            for _ in range(int(random.integers(1, 4))):
                data = _damaged(data, random)
            # Otherwise most damage of a PNG is found by its checksums.
            if name.startswith("png") and random.integers(4):
                data = _with_checksums(data)
            yield name, data


_INTERESTING = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255)


def _damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Change a file in one of several ways; the start, with its headers, most often."""
    changed = bytearray(data or b"\0")
    # Positions are near the start or the end as often as anywhere.
    spread = max(1, int(len(changed) ** random.uniform(0.2, 1.0)))
    position = min(int(random.integers(spread)), len(changed) - 1)
    if random.integers(8) == 0:
        position = len(changed) - 1 - position
    match random.integers(10):
        case 0:
            del changed[position:]
        case 1:
            changed[position] ^= 1 << int(random.integers(8))
        case 2 | 3:
            changed[position] = _INTERESTING[random.integers(len(_INTERESTING))]
        case 4:
            changed[position] = random.integers(256)
        case 5:
            del changed[position : position + int(random.integers(1, 12))]
        case 6:
            changed[position:position] = bytes(
                random.integers(0, 256, random.integers(1, 12)).astype(np.uint8)
            )
        case 7:
            length = int(random.integers(1, 40))
            changed[position:position] = changed[position : position + length]
        case 8:
            changed += bytes(random.integers(0, 256, random.integers(1, 9)).astype(np.uint8))
        case 9:
            number = int(random.integers(-2, 70_000))
            order = "<i" if random.integers(2) else ">i"
            changed[position : position + 4] = struct.pack(order, number)
    return bytes(changed)


def _with_checksums(data: bytes) -> bytes:
    """Return a PNG with the checksum of each chunk corrected, as far as its chunks can be read."""
    changed, position = bytearray(data), 8
    while position + 12 <= len(changed):
        (length,) = struct.unpack_from(">I", changed, position)
        end = position + 8 + length
        if end + 4 > len(changed):
            break
        struct.pack_into(">I", changed, end, zlib.crc32(changed[position + 4 : end]))
        position = end + 4
    return bytes(changed)


def main() -> int:
    """Search for `--seconds`; write the files of failures to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    values = parser.parse_args()
    result = compare(mutants(values.seed), values.seconds)
    print(
        f"seed {values.seed}: {sum(result.counts.values())} files",
        dict(sorted(result.counts.items())),
    )
    for number, (text, data) in enumerate(result.failures):
        values.out.mkdir(parents=True, exist_ok=True)
        (values.out / f"{values.seed}-{number}").write_bytes(data)
        print(f"{values.out}/{values.seed}-{number}: {text}")
    return bool(result.failures)


if __name__ == "__main__":
    sys.exit(main())

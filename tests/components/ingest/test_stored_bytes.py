"""Stored bytes are decoded by the model to the same pixels; what it cannot decode is invalid."""

from __future__ import annotations

import io
import itertools
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from components.ingest.checks.image_stats import measure_small_images, over_white
from components.ingest.checks.image_validation import upper_bytes, validate_image
from components.ingest.checks.invalid_image import InvalidImageError
from components.ingest.checks.png import unpack_small
from regraft_core.images.preprocess import decode_image
from tests.components.ingest.two_readers import encode, stored_of, whole_files

Photo = Callable[..., Image.Image]


def png_of(color: int, bits: int, width: int, height: int, packed: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    return joined([(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")])


def files(photo: Image.Image) -> dict[str, bytes]:
    """Return files of more variants than the comparison of the readers changes at random."""
    gray = photo.convert("L")
    exif = Image.Exif()
    exif[0x0112] = 6
    arithmetic = bytearray(encode(gray, "JPEG"))
    arithmetic[arithmetic.index(b"\xff\xc0") + 1] = 0xC9
    turned = encode(photo.rotate(90), "TIFF", exif=exif)
    return whole_files(photo) | {
        "jpeg-rgb": encode(photo, "JPEG", keep_rgb=True),
        "jpeg-arithmetic": bytes(arithmetic),
        "webp-once": encode(photo, "WEBP", save_all=True, append_images=[photo, photo]),
        "tiff-turned": turned,
        "avif": encode(photo, "AVIF", quality=90),
    }


def with_scans(scans: int) -> bytes:
    """Return a gray progressive JPEG of 16 x 16 pixels with so many scans, most of them empty."""
    data = b"\xff\xd8\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([1] * 64)
    data += b"\xff\xc2" + struct.pack(">HBHHB", 11, 8, 16, 16, 1) + bytes([1, 0x11, 0])
    # The only code of either table is the bit 0: no difference, or no further values of the block.
    for kind in (0x00, 0x10):
        data += b"\xff\xc4" + struct.pack(">HB", 20, kind) + bytes([1, *[0] * 15, 0])
    for first, last in [(0, 0), *[(1, 63)] * (scans - 1)]:
        data += b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([1, 0, first, last, 0]) + b"\x0f"
    return data + b"\xff\xd9"


def test_a_jpeg_of_so_many_scans_that_decoding_takes_minutes_is_refused(make_photo: Photo) -> None:
    """Scans of 50 megapixels take 10 ms each, and a megabyte has ten thousand of them."""
    assert decode_image(tf.constant(with_scans(100))).shape == (16, 16, 3)
    assert stored_of(with_scans(100)) is not None
    for scans in (101, 5000):
        with pytest.raises(InvalidImageError, match=r"expected at most 1.* scans, found"):
            validate_image(with_scans(scans), max_pixels=10**6)
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"at most 1.* scans, got"):
            decode_image(tf.constant(with_scans(scans)))


def test_bytes_of_a_scan_in_metadata_and_behind_the_image_are_no_scans(make_photo: Photo) -> None:
    photo = encode(make_photo(31), "JPEG")
    comment = b"\xff\xfe\xff\xff" + (b"\xff\xda" + bytes(1022)) * 63 + bytes(1021)
    for data in (photo[:2] + comment + photo[2:], photo + b"\xff\xda".ljust(8192, b"\0") * 300):
        assert stored_of(data) is data
        assert decode_image(tf.constant(data)).shape == (64, 64, 3)


@pytest.mark.parametrize("name", files(Image.new("RGB", (8, 8))))
def test_stored_bytes_are_decoded_to_the_same_pixels(make_photo: Photo, name: str) -> None:
    data = files(make_photo(31, px=120).resize((120, 90)))[name]
    stats = validate_image(data, max_pixels=10**6)
    pixels = decode_image(tf.constant(stats.encoded or data)).numpy()
    assert pixels.shape == (stats.height, stats.width, 3)
    image: Image.Image = Image.open(io.BytesIO(data))
    if name.startswith(("jpeg", "tiff")):  # the orientation of others is ignored
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = upper_bytes(image)
    expected = np.asarray(over_white(image))
    # Decoders of JPEG and lossy WebP may upsample colors in different ways.
    mean = np.abs(pixels.astype(int) - expected).mean()
    assert mean < (3 if name.startswith(("jpeg", "webp")) else 0.6)


def chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def chunks_of(png: bytes) -> list[tuple[bytes, bytes]]:
    found, position = [], 8
    while position < len(png):
        (length,) = struct.unpack_from(">I", png, position)
        content = png[position + 8 : position + 8 + length]
        found.append((png[position + 4 : position + 8], content))
        position += 12 + length
    return found


def joined(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks)


EXTRA_CHUNKS = [
    *((b"tRNS", bytes(length)) for length in (2, 3, 6, 300)),
    *((b"PLTE", bytes(length)) for length in (0, 2, 3, 900)),
    *((name, b"hello") for name in (b"ABCD", b"abCD", b"abcD", b"a1CD", b"tEXt", b"fcTL")),
    *((name, bytes(4)) for name in (b"gAMA", b"cHRM", b"sBIT", b"pHYs", b"acTL", b"iCCP", b"eXIf")),
    (b"IDAT", b""),
    (b"tEXt", bytes(9_000_000)),
]


def png_variants(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield a PNG with a chunk more, one less, two exchanged, or another value in its header."""
    chunks = chunks_of(data)
    for at in range(len(chunks)):
        for extra in [*EXTRA_CHUNKS, chunks[0]]:
            yield (
                f"{extra[0]!r} {len(extra[1])} at {at}",
                joined([*chunks[:at], extra, *chunks[at:]]),
            )
        yield f"without {at}", joined(chunks[:at] + chunks[at + 1 :])
        yield f"{at} first", joined([chunks[at], *chunks[:at], *chunks[at + 1 :]])
    for at, value in itertools.product(range(13), (0, 1, 2, 3, 4, 6, 8, 16, 127, 255)):
        header = bytearray(chunks[0][1])
        header[at] = value
        yield f"header {at} is {value}", joined([(b"IHDR", bytes(header)), *chunks[1:]])


@pytest.mark.parametrize("name", ["png", "png-gray", "png-palette", "png-alpha", "png-small"])
def test_png_of_any_structure_is_served_or_refused(make_photo: Photo, name: str) -> None:
    whole = files(make_photo(30, px=50))[name]
    refused = []
    for variant, data in png_variants(whole):
        stored = stored_of(data)
        if stored is not None:
            assert decode_image(tf.constant(stored)).shape[2] == 3, variant
        else:
            refused.append(variant)
    # Neither metadata nor a transparency that decoders ignore makes an image invalid.
    assert not [variant for variant in refused if variant.startswith(("b'tEXt'", "b'tRNS'"))]
    assert "b'ABCD' 5 at 1" in refused


STREAMS = {
    "no checksum": lambda packed: packed[:-4],
    "half a checksum": lambda packed: packed[:-2],
    "incorrect checksum": lambda packed: packed[:-4] + b"abcd",
}


@pytest.mark.parametrize("px", [8, 200])
@pytest.mark.parametrize(("color", "bits"), [(0, 8), (2, 8), (6, 8), (0, 16)])
@pytest.mark.parametrize("damage", STREAMS)
def test_png_without_its_end_is_damaged(px: int, color: int, bits: int, damage: str) -> None:
    row = px * {0: 1, 2: 3, 6: 4}[color] * bits // 8
    pixels = np.random.default_rng(0).integers(0, 256, (px, row + 1), dtype=np.uint8)
    pixels[:, 0] = 0
    packed = zlib.compress(pixels.tobytes())
    assert stored_of(png_of(color, bits, px, px, packed)) is not None
    data = png_of(color, bits, px, px, STREAMS[damage](packed))
    assert stored_of(data) is None
    assert unpack_small(data, max_side_px=40, max_pixels=10**6) is None
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(data))
    if damage != "incorrect checksum":
        Image.open(io.BytesIO(data)).load()


def test_a_segment_within_the_stream_of_a_jpeg_is_damage(make_photo: Photo) -> None:
    data = bytearray(encode(make_photo(32, px=120), "JPEG"))
    data[-200:-196] = b"\xff\xe1\xff\xf0"
    Image.open(io.BytesIO(data)).load()
    with pytest.raises(InvalidImageError, match="no end marker"):
        validate_image(bytes(data), max_pixels=10**6)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(bytes(data)))


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Cut a file, change some bytes, or put a JPEG marker somewhere."""
    changed = bytearray(data)
    match random.integers(3):
        case 0:
            return bytes(changed[: random.integers(1, len(data))])
        case 1:
            for _ in range(random.integers(1, 6)):
                changed[random.integers(len(data))] = random.integers(256)
        case 2:
            position = random.integers(len(data) - 1)
            changed[position : position + 2] = bytes((0xFF, random.integers(0xC0, 256)))
    return bytes(changed)


def test_a_jpeg_at_small_scale_is_checked_as_in_full_size(make_photo: Photo) -> None:
    random, kept = np.random.default_rng(5), 0
    whole = files(make_photo(34, px=300))
    for name in (name for name in whole if name.startswith("jpeg")):
        for _ in range(30):
            data = damaged(whole[name], random)
            if stored_of(data) is not None:
                Image.open(io.BytesIO(data)).load()
                kept += 1
    assert kept > 10


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_small_images_are_measured_together_as_alone(make_photo: Photo, mode: str) -> None:
    photos = [make_photo(seed, px=px).convert(mode) for seed in range(6) for px in (5, 28, 39)]
    photos.append(Image.new(mode, (28, 28)))
    encoded = [encode(photo, "PNG") for photo in photos]
    unpacked = [unpack_small(data, max_side_px=39, max_pixels=10**6) for data in encoded]
    together = list(measure_small_images([png for png in unpacked if png], with_hash=True))
    assert together == [validate_image(data, max_pixels=10**6) for data in encoded]


@pytest.fixture(scope="module")
def decode() -> Callable[[bytes], tf.Tensor]:
    """The decoding as a graph, because its loops take long outside one."""
    graph = tf.function(decode_image, input_signature=[tf.TensorSpec([], tf.string)])
    return lambda data: graph(tf.constant(data))


def gif_of_blocks(extension: bytes, frame: bytes = b"\x02\x44\x01\0") -> bytes:
    """Return a GIF of 10 x 10 pixels with something before its frame, of one pixel."""
    head = b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0x80, 0, 0) + bytes([*[9] * 3, *[99] * 3])
    return head + extension + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02" + frame + b";"


def webp_of_chunks(count: int) -> bytes:
    """Return an animated WebP without frames, but with other chunks."""
    canvas = b"VP8X" + struct.pack("<IB", 10, 2) + bytes(3) + bytes([9, 0, 0, 9, 0, 0])
    body = b"WEBP" + canvas + (b"junk" + bytes(4)) * count
    return b"RIFF" + struct.pack("<I", len(body)) + body


def png_of_texts(count: int) -> bytes:
    """Return a PNG with compressed texts, each of a thousand times its size."""
    text = (b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000), 9))
    pixels = zlib.compress(bytes(13))
    header = struct.pack(">IIBBBBB", 4, 1, 8, 2, 0, 0, 0)
    return joined([(b"IHDR", header), *[text] * count, (b"IDAT", pixels), (b"IEND", b"")])


@pytest.mark.parametrize(
    ("accepted", "refused", "message"),
    [
        (gif_of_blocks(b"!\xfe\x01a\0" * 16), gif_of_blocks(b"!\xfe\x01a\0" * 17), "a GIF"),
        (gif_of_blocks(b"!\xfe" + b"\x01a" * 4095 + b"\0"),
         gif_of_blocks(b"!\xfe" + b"\x01a" * 5000 + b"\0"), "a GIF"),
        (gif_of_blocks(b""), gif_of_blocks(b"", b"\x01\x44" * 1100 + b"\0"), "a GIF"),
        (png_of_texts(16), png_of_texts(17), "at most 16 compressed texts, got 17"),
        (None, webp_of_chunks(5000), "an animation of at most 4135 chunks"),
    ],
    ids=["GIF of extensions", "GIF of a long extension", "GIF of small blocks", "PNG", "WebP"],
)  # fmt: skip
def test_the_graph_refuses_what_would_keep_it_busy(
    decode: Callable[[bytes], tf.Tensor], accepted: bytes | None, refused: bytes, message: str
) -> None:
    """Each is a small part of a file that takes minutes."""
    if accepted is not None:
        decode(accepted)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"expected {message}"):
        decode(refused)
    stored = stored_of(refused)  # what ingest reads, it encodes again
    assert stored is None or decode(stored).shape[2] == 3


def in_pieces(photo: Image.Image, count: int) -> dict[str, bytes]:
    """Return images in so many pieces in addition to those of the image."""
    jpeg = encode(photo, "JPEG")
    header = struct.pack(">IIBBBBB", 4, 1, 8, 2, 0, 0, 0)
    png = [(b"IHDR", header), *[(b"abCd", b"")] * count, (b"IDAT", zlib.compress(bytes(13)))]
    comment = struct.pack(">HH", 0xFFFE, 2)
    tags = b"".join(struct.pack("<HHII", 256, 3, 1, 1) for _ in range(count // 2))
    return {
        "fill bytes of a JPEG": jpeg[:2] + b"\xff" * count + jpeg[2:],
        "segments of a JPEG": jpeg[:2] + comment * (count // 3) + jpeg[2:],
        "segments at the end of a JPEG": jpeg[:-2] + comment * count + jpeg[-2:],
        "standalone markers of a JPEG": jpeg[:2] + b"\xff\xd8\xff\xff" * (count // 2) + jpeg[2:],
        "blocks of a GIF": gif_of_blocks(b"!\xfe" + b"\x01a" * (count // 2) + b"\0"),
        "chunks of a PNG": joined([*png, (b"IEND", b"")]),
        "tags of a TIFF": b"II*\0" + struct.pack("<IH", 8, min(count // 2, 65535)) + tags,
    }


@pytest.mark.parametrize("name", in_pieces(Image.new("RGB", (8, 8)), 0))
def test_files_of_very_many_small_pieces_are_refused(make_photo: Photo, name: str) -> None:
    """Pillow and the checks take about a microsecond for each: minutes for some 100 MB."""
    if name not in ("standalone markers of a JPEG", "tags of a TIFF"):  # always damage
        assert stored_of(in_pieces(make_photo(33), 15_000)[name]) is not None
    with pytest.raises(InvalidImageError) as caught:
        validate_image(in_pieces(make_photo(33), 200_000)[name], max_pixels=10**6)
    assert caught.value.reason == "damaged"
    assert re.search("too many|more than", caught.value.detail), caught.value.detail


def test_run_lengths_of_noise_are_read(make_photo: Photo) -> None:
    """A BMP of run lengths that contains no runs is read in several pieces per pixel."""
    gray = np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8)
    whole = encode(Image.fromarray(gray), "BMP")
    rows = b"".join(b"".join(b"\x01%c" % level for level in row) + b"\0\0" for row in gray[::-1])
    data = whole[:30] + struct.pack("<II", 1, len(rows)) + whole[38:1078] + rows + b"\0\x01"
    stored = stored_of(data)
    assert stored is not None
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(stored)).convert("L")), gray)

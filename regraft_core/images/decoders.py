"""Decodes an encoded image to RGB by TensorFlow operations, so that an exported graph contains it.

Grayscale, palettes and CMYK become RGB, 16 bits become the upper 8, transparency is composed over
white.
"""

from __future__ import annotations

import functools

import tensorflow as tf

from regraft_core.images.file_types import (
    JPEG_BYTES_PER_SCAN,
    JPEG_SCAN,
    JPEG_SCANS,
    PNG_TEXT,
    PNG_TEXTS,
)
from regraft_core.images.headers import require, window

MAX_PIXELS = 100_000_000
REDUCTIONS = (2, 4, 8)
OPAQUE_WHITE = b"\xff\xff\xff"
# A step of a loop in the graph takes as long as decoding many pixels, and small files can have
# millions of blocks. Usual ones have 255 bytes, and few extensions.
GIF_EXTENSIONS, GIF_EXTENSION_BLOCKS = 16, 4096
GIF_BLOCKS, GIF_BYTES_PER_BLOCK = 1000, 64
WEBP_CHUNKS, WEBP_BYTES_PER_CHUNK = 4096, 1024
ANIMATED_WITH_ALPHA = b"\x12"
"""Flags of an animated WebP. The operation writes 4 bytes per pixel of any animation, but reserves
3 if the alpha flag is not set. The other flags only announce metadata."""


def _over_white(rgba: tf.Tensor) -> tf.Tensor:
    """Compose uint8 `[h, w, 4]` over white, rounded, to uint8 `[h, w, 3]`."""
    wide = tf.cast(rgba, tf.uint16)
    alpha = wide[..., 3:]
    # At most 255 * 255 + 127, which fits in uint16.
    mixed = wide[..., :3] * alpha + (255 - alpha) * 255 + 127
    return tf.cast(mixed // 255, tf.uint8)


def _without_alpha(pixels: tf.Tensor) -> tf.Tensor:
    """Compose pixels over white if they have a fourth channel."""
    has_alpha = tf.shape(pixels)[-1] == 4
    return tf.cond(has_alpha, lambda: _over_white(pixels), lambda: pixels[..., :3])


def _at(encoded: tf.Tensor, start: tf.Tensor | int, length: int) -> tf.Tensor:
    """Return bytes of one string as int32 `[length]`; bytes outside the string are 0."""
    start = tf.reshape(tf.convert_to_tensor(start, tf.int32), [1])
    return window(encoded[tf.newaxis], start, length)[0]


def _little(bytes_: tf.Tensor) -> tf.Tensor:
    """Read bytes, least significant first, as one int32."""
    return tf.reduce_sum(bytes_ * [256**k for k in range(bytes_.shape[0])])


def check_pixels(encoded: tf.Tensor, sides: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Return `encoded`, or fail if its `sides` (int64 `[2]`: width, height) are too large."""
    fits = tf.reduce_prod(tf.minimum(sides, MAX_PIXELS + 1)) <= MAX_PIXELS
    text = f"at most {MAX_PIXELS} pixels, got {{}} x {{}}"
    return require(encoded, fits, index, text, sides[0], sides[1])


def decode_jpeg(encoded: tf.Tensor, index: tf.Tensor, image_px: int = 0) -> tf.Tensor:
    """Decode like Pillow, bit for bit; CMYK and YCCK become RGB without a color profile.

    Args:
        encoded: string `[]`.
        index: the image's index in its batch, for errors.
        image_px: if not 0, the image will be resized to a square of this side. A large image is
            then decoded at a half, a quarter or an eighth of its size, from fewer coefficients of
            its blocks (libjpeg's `scale_denom`), but never smaller than twice the square, so that
            resizing still averages pixels.
    """
    shape = tf.cast(tf.image.extract_jpeg_shape(encoded), tf.int64)
    encoded = check_pixels(encoded, tf.gather(shape, [1, 0]), index)
    encoded = _check_scans(encoded, index)

    def decode(ratio: int = 1) -> tf.Tensor:
        return tf.io.decode_jpeg(encoded, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")

    if not image_px:
        return decode()
    times = tf.reduce_min(shape[:2]) // (2 * image_px)

    def decode_reduced() -> tf.Tensor:
        which = tf.reduce_sum(tf.cast(times >= REDUCTIONS[1:], tf.int32))
        return tf.switch_case(which, [functools.partial(decode, ratio) for ratio in REDUCTIONS])

    return tf.cond(times >= REDUCTIONS[0], decode_reduced, decode)


def _check_scans(encoded: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Return a JPEG, or fail if it has so many scans that decoding could take minutes."""
    scans = _count(encoded, JPEG_SCAN)
    most = JPEG_SCANS + tf.strings.length(encoded) // JPEG_BYTES_PER_SCAN
    return require(encoded, scans <= most, index, "at most {} scans, got {}", most, scans)


def _count(encoded: tf.Tensor, part: bytes) -> tf.Tensor:
    """Return how often some bytes occur in a string, int32 `[]`."""
    split = tf.raw_ops.StringSplitV2(input=encoded[tf.newaxis], sep=part, maxsplit=-1)
    return tf.cast(split.shape[1], tf.int32) - 1


def decode_png(encoded: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Decode any PNG; an alpha channel or a transparent color (tRNS) is composed over white."""
    texts = _count(encoded, PNG_TEXT)
    limit = f"at most {PNG_TEXTS} compressed texts, got {{}}"
    encoded = require(encoded, texts <= PNG_TEXTS, index, limit, texts)
    color_type = _at(encoded, 25, 1)[0]
    transparent = tf.strings.regex_full_match(encoded, r"(?s)\C*tRNS\C*")
    return tf.cond(
        (color_type >= 4) | transparent,
        lambda: _over_white(tf.io.decode_png(encoded, channels=4)),
        lambda: tf.io.decode_png(encoded, channels=3),
    )


def decode_bmp(encoded: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Decode an uncompressed BMP of 24 bits, 32 bits, or 8 bits with a palette."""
    head = _at(encoded, 0, 70)
    header_size, bits, method = _little(head[14:18]), _little(head[28:30]), _little(head[30:34])
    plain = tf.reduce_all(head[54:66] == [0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0])
    supported = (method == 0) | ((method == 3) & plain & (bits == 32))
    supported &= (bits == 8) | (bits == 24) | (bits == 32)
    text = "an uncompressed BMP of 8, 24 or 32 bits, got {} bits and compression {}"
    encoded = require(encoded, supported, index, text, bits, method)
    # Without an alpha mask, the fourth byte has no meaning.
    has_alpha = (method == 3) & (header_size >= 56) & (head[69] == 255)

    def indexed() -> tf.Tensor:
        palette = tf.reshape(_at(encoded, 14 + header_size, 1024), [256, 4])[:, 2::-1]
        pixels = tf.io.decode_bmp(encoded)[..., 0]
        return tf.cast(tf.gather(palette, tf.cast(pixels, tf.int32)), tf.uint8)

    def direct() -> tf.Tensor:
        pixels = tf.io.decode_bmp(encoded)
        return tf.cond(has_alpha, lambda: _over_white(pixels), lambda: pixels[..., :3])

    return tf.cond(bits == 8, indexed, direct)


def decode_webp(encoded: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Decode WebP, and the first frame of an animation."""
    extended = tf.strings.substr(encoded, 12, 4) == b"VP8X"
    flags = tf.where(extended, _at(encoded, 20, 1)[0], 0)
    animated = tf.bitwise.bitwise_and(flags, 2) > 0
    checked = tf.cond(
        animated,
        lambda: _replace(_check_animation(encoded, index), 20, ANIMATED_WITH_ALPHA),
        lambda: encoded,
    )
    return _without_alpha(tf.io.decode_webp(checked)[0])


def _check_animation(encoded: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Return `encoded`, or fail if its frames, all of which are decoded, are together too large."""
    length = tf.strings.length(encoded)

    def step(start: tf.Tensor, frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        chunk = _at(encoded, start, 8)
        # A size with its upper byte set would overflow; it is larger than any file read here.
        size = tf.where(chunk[7] == 0, _little(chunk[4:7]), length)
        is_frame = tf.reduce_all(chunk[:4] == list(b"ANMF"))
        return start + 8 + size + size % 2, frames + tf.cast(is_frame, tf.int64)

    most = WEBP_CHUNKS + length // WEBP_BYTES_PER_CHUNK
    end, frames = tf.while_loop(
        lambda start, _: start < length,
        step,
        (tf.constant(12), tf.constant(0, tf.int64)),
        maximum_iterations=most,
    )
    encoded = require(encoded, end >= length, index, "an animation of at most {} chunks", most)
    canvas = _at(encoded, 24, 6)
    sides = tf.cast(tf.stack([_little(canvas[:3]), _little(canvas[3:])]) + 1, tf.int64)
    return check_pixels(encoded, sides * tf.stack([tf.constant(1, tf.int64), frames]), index)


def decode_gif(encoded: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Decode the first frame of a GIF, with transparency over white; others are not unpacked."""
    return tf.io.decode_gif(_first_frame(encoded, index))[0]


def _first_frame(encoded: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Return a GIF of only the first frame, its transparent color replaced by white.

    The operation unpacks every frame before it returns any, and does not support transparency.
    """
    bytes_ = tf.io.decode_raw(encoded, tf.uint8)
    length = tf.size(bytes_)

    def byte(offset: tf.Tensor) -> tf.Tensor:
        inside = tf.clip_by_value(offset, 0, length - 1)
        return tf.where(offset < length, tf.cast(bytes_[inside], tf.int32), 0)

    def table_size(flags: tf.Tensor) -> tf.Tensor:
        exists = tf.bitwise.bitwise_and(flags, 128) > 0
        return tf.where(exists, 6 * tf.bitwise.left_shift(1, tf.bitwise.bitwise_and(flags, 7)), 0)

    def after_blocks(start: tf.Tensor, most: tf.Tensor | int) -> tf.Tensor:
        """Return the end of the chain of data blocks that begins at `start`.

        If there are more than `most`, the byte before it is not 0.
        """
        (last,) = tf.while_loop(
            lambda offset: (offset < length) & (byte(offset) > 0),
            lambda offset: (offset + 1 + byte(offset),),
            (start,),
            maximum_iterations=most,
        )
        return last + 1

    def skip_extension(offset: tf.Tensor, control: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        control = tf.where(byte(offset + 1) == 0xF9, offset, control)
        end = after_blocks(offset + 2, GIF_EXTENSION_BLOCKS)
        # If it has more blocks, this is no frame, and the last block is not the end.
        return tf.where(byte(end - 1) == 0, end, too_many), control

    too_many = length + 1
    global_size = table_size(byte(tf.constant(10)))
    frame, control = tf.while_loop(
        lambda offset, _: byte(offset) == 0x21,
        skip_extension,
        (13 + global_size, 0),
        maximum_iterations=GIF_EXTENSIONS,
    )
    usual = (frame != too_many) & (byte(frame) != 0x21)
    sides = tf.stack([byte(frame + k) + 256 * byte(frame + k + 1) for k in (5, 7)])
    encoded = check_pixels(encoded, tf.cast(sides, tf.int64), index)
    local_size = table_size(byte(frame + 9))
    after = after_blocks(frame + 11 + local_size, GIF_BLOCKS + length // GIF_BYTES_PER_BLOCK)
    usual &= byte(after - 1) == 0
    encoded = require(encoded, usual, index, "a GIF of fewer extensions and larger blocks")
    end = tf.minimum(after, length)
    single = tf.strings.join([tf.strings.substr(encoded, 0, end), b";"])
    transparent = (control > 0) & (byte(control + 3) % 2 == 1)
    table = tf.where(local_size > 0, frame + 10, 13)
    color = table + 3 * byte(control + 6)
    fits = 3 * byte(control + 6) < tf.where(local_size > 0, local_size, global_size)
    return tf.cond(
        transparent & fits,
        lambda: _replace(_replace(single, color, OPAQUE_WHITE), control + 3, b"\0"),
        lambda: single,
    )


def _replace(text: tf.Tensor, start: tf.Tensor | int, by: bytes) -> tf.Tensor:
    """Return `text` with the bytes from `start` on overwritten."""
    end = start + len(by)
    rest = tf.strings.substr(text, end, tf.strings.length(text) - end)
    return tf.strings.join([tf.strings.substr(text, 0, start), by, rest])

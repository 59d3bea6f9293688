"""From encoded bytes to a backbone's input: the same preprocessing in training and in serving.

It uses TensorFlow operations only, so that it has the same result eagerly, in `tf.data` and in an
exported graph. An image that cannot be decoded is an InvalidArgumentError with its index in the
batch, or, with `load_each_image`, a row with the reason.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from regraft_core.images.decoders import (
    MAX_PIXELS,
    check_pixels,
    decode_bmp,
    decode_gif,
    decode_jpeg,
    decode_png,
    decode_webp,
)
from regraft_core.images.headers import (
    FORMATS,
    JPEG,
    UPRIGHT,
    Headers,
    read_headers,
    read_orientations,
    require,
)
from regraft_core.images.scalings import find_scaling
from regraft_core.images.valid_rows import map_valid_rows

OF_KNOWN_FORMAT = f"an image as {FORMATS}, got other bytes"
UNDECODABLE = (
    f"expected an undamaged image of a supported kind and at most {MAX_PIXELS} pixels, could not "
    "decode it"
)
# EXIF orientations by what they need: first a transposition, then mirroring left to right and top
# to bottom.
TRANSPOSED = (5, 6, 7, 8)
MIRRORED = (2, 3, 6, 7)
UPSIDE_DOWN = (3, 4, 7, 8)
CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
TORCH_MEAN = (0.485, 0.456, 0.406)
TORCH_DEVIATION = (0.229, 0.224, 0.225)


@tf.autograph.experimental.do_not_convert
def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decode one image, upright and as RGB.

    Args:
        encoded: string `[]`, a JPEG, PNG, GIF (first frame), BMP or WebP.

    Returns:
        uint8 `[height, width, 3]`.
    """
    with tf.device("/CPU:0"):
        headers = read_headers(encoded[tf.newaxis])
        batch = _check(encoded[tf.newaxis], headers)
        pixels = _decode(batch[0], headers.format[0], tf.constant(0))
        orientations = read_orientations(batch, headers.format == JPEG)
        return _upright(pixels[tf.newaxis], orientations)[0]


@tf.autograph.experimental.do_not_convert
def load_image(encoded: tf.Tensor, image_px: int) -> tf.Tensor:
    """Return one encoded image (string `[]`) as float32 `[image_px, image_px, 3]` in 0..255."""
    with tf.device("/CPU:0"):
        headers = read_headers(encoded[tf.newaxis])
        batch = _check(encoded[tf.newaxis], headers)
        pixels = _load(batch[0], headers.format[0], tf.constant(0), image_px)[tf.newaxis]
        return _upright(pixels, read_orientations(batch, headers.format == JPEG))[0]


@tf.autograph.experimental.do_not_convert
def load_images(encoded: tf.Tensor, image_px: int) -> tf.Tensor:
    """Decode images of any size and format and resize them to one square size.

    The aspect ratio is not kept. Resizing is bilinear with antialiasing, then images are rotated.
    A large JPEG is decoded at a fraction of its size, see `decode_jpeg`.

    Args:
        encoded: string `[n]`, JPEG, PNG, GIF (first frame), BMP or WebP.
        image_px: side of the square.

    Returns:
        float32 `[n, image_px, image_px, 3]` in 0..255.

    Raises:
        tf.errors.InvalidArgumentError: an image cannot be decoded; the whole batch fails. If the
            headers show it, the message contains "image <index>: expected ..." for the first such
            image, counted from 0.
    """
    with tf.device("/CPU:0"):
        headers = read_headers(encoded)
        encoded = _check(encoded, headers)
        pixels = tf.map_fn(
            lambda row: _load(row[0], row[1], row[2], image_px),
            (encoded, headers.format, tf.range(tf.size(encoded))),
            fn_output_signature=tf.TensorSpec([image_px, image_px, 3], tf.float32),
        )
        return _upright(pixels, read_orientations(encoded, headers.format == JPEG))


@tf.autograph.experimental.do_not_convert
def load_each_image(encoded: tf.Tensor, image_px: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Load images like `load_images`, but without failing for an image that cannot be decoded.

    A server runs the images of several clients in one batch, and a graph that fails for one of
    them fails for all.

    Args:
        encoded: string `[n]`, JPEG, PNG, GIF (first frame), BMP or WebP.
        image_px: side of the square.

    Returns:
        The pixels, float32 `[n, image_px, image_px, 3]` in 0..255, bit for bit those of
        `load_images`, and zeros for an invalid image. The reasons, string `[n]`: "" for a decoded
        image, "expected ..., got ..." for an invalid one.
    """
    with tf.device("/CPU:0"):
        headers = read_headers(encoded)
        encoded, reasons = _set_aside(encoded, headers)
        indices, pixels = _load_valid(encoded, headers.format, image_px)
        count = tf.size(encoded)

        def fill() -> tuple[tf.Tensor, tf.Tensor]:
            at = indices[:, tf.newaxis]
            decoded = tf.scatter_nd(at, tf.ones_like(indices), [count]) > 0
            unexplained = ~decoded & (reasons == "")
            all_pixels = tf.scatter_nd(at, pixels, [count, image_px, image_px, 3])
            return all_pixels, tf.where(unexplained, UNDECODABLE, reasons)

        complete = tf.size(indices) == count
        pixels, reasons = tf.cond(complete, lambda: (pixels, reasons), fill)
        pixels = tf.ensure_shape(pixels, [None, image_px, image_px, 3])
        return _upright(pixels, read_orientations(encoded, headers.format == JPEG)), reasons


@tf.autograph.experimental.do_not_convert
def scale(pixels: tf.Tensor, scaling: str) -> tf.Tensor:
    """Scale pixels to a backbone's input, by the `scaling` of its row in the table.

    Args:
        pixels: float32 `[n, h, w, 3]` in 0..255, RGB.
        scaling: a name that `find_scaling` knows.

    Returns:
        float32 of the same shape; for a Keras model the result of its `preprocess_input`.

    Raises:
        InputError: unknown scaling.
    """
    match find_scaling(scaling):
        case "none":
            return pixels
        case "unit":
            return pixels / 127.5 - 1.0
        case "fraction":
            return pixels / 255.0
        case "lite":
            return (pixels - 127.0) / 128.0
        case "caffe":
            return pixels[..., ::-1] - tf.constant(CAFFE_MEAN_BGR, pixels.dtype)
        case "torch":
            mean = tf.constant(TORCH_MEAN, pixels.dtype)
            return (pixels / 255.0 - mean) / tf.constant(TORCH_DEVIATION, pixels.dtype)
        case (factors, offsets):
            factors, offsets = (tf.constant(one, pixels.dtype) for one in (factors, offsets))
            return pixels * factors + offsets
    raise AssertionError(scaling)


def _are_known(headers: Headers) -> tf.Tensor:
    """Return bool `[n]`: whether the first bytes are those of a supported format."""
    return headers.format >= 0


def _are_large(headers: Headers) -> tf.Tensor:
    """Return bool `[n]`: whether an image declares too many pixels."""
    return tf.reduce_prod(tf.minimum(headers.sides, MAX_PIXELS + 1), axis=1) > MAX_PIXELS


def _check(encoded: tf.Tensor, headers: Headers) -> tf.Tensor:
    """Return `encoded`, or fail at the first image of unknown format or with too many pixels."""
    known = _are_known(headers)
    invalid = ~known | _are_large(headers)

    def fail() -> tf.Tensor:
        first = tf.argmax(tf.cast(invalid, tf.int32))
        supported = require(encoded, known[first], first, OF_KNOWN_FORMAT)
        return check_pixels(supported, headers.sides[first], first)

    return tf.cond(tf.reduce_any(invalid), fail, lambda: encoded)


def _set_aside(encoded: tf.Tensor, headers: Headers) -> tuple[tf.Tensor, tf.Tensor]:
    """Empty the images that `_check` would fail for; return all images and the reasons `[n]`."""
    known, large = _are_known(headers), _are_large(headers)

    def explain() -> tuple[tf.Tensor, tf.Tensor]:
        width, height = tf.unstack(tf.strings.as_string(headers.sides), axis=1)
        sizes = tf.strings.join(
            [f"expected at most {MAX_PIXELS} pixels, got ", width, " x ", height]
        )
        reasons = tf.where(known, tf.where(large, sizes, ""), f"expected {OF_KNOWN_FORMAT}")
        return tf.where(reasons == "", encoded, ""), reasons

    def keep() -> tuple[tf.Tensor, tf.Tensor]:
        return encoded, tf.fill(tf.shape(encoded), "")

    return tf.cond(tf.reduce_any(~known | large), explain, keep)


def _decoders(image_px: int = 0) -> list[Callable[[tf.Tensor, tf.Tensor], tf.Tensor]]:
    """Return the decoders in the order of the formats; `image_px` as for `decode_jpeg`."""
    jpeg = functools.partial(decode_jpeg, image_px=image_px)
    return [jpeg, decode_png, decode_gif, decode_bmp, decode_webp]


def _decode(encoded: tf.Tensor, kind: tf.Tensor, index: tf.Tensor, image_px: int = 0) -> tf.Tensor:
    """Decode one image by its format to uint8 `[height, width, 3]`, without rotating it."""
    decoders = [functools.partial(decoder, encoded, index) for decoder in _decoders(image_px)]
    pixels = tf.switch_case(kind, decoders)
    pixels.set_shape([None, None, 3])
    return pixels


def _load(encoded: tf.Tensor, kind: tf.Tensor, index: tf.Tensor, image_px: int) -> tf.Tensor:
    """Decode and resize one image to float32 `[image_px, image_px, 3]`."""
    return _resize(_decode(encoded, kind, index, image_px), image_px)


def _resize(pixels: tf.Tensor, image_px: int) -> tf.Tensor:
    """Resize uint8 `[height, width, 3]` to float32 `[image_px, image_px, 3]`."""
    return tf.image.resize(
        pixels, [image_px, image_px], tf.image.ResizeMethod.BILINEAR, antialias=True
    )


def _load_valid(encoded: tf.Tensor, kinds: tf.Tensor, image_px: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Load the images that can be decoded; return their indices and their pixels.

    A dataset prepares its function again in each call, and the decoders of all formats take more
    time than decoding a small photograph. So a batch of one format has a dataset with its decoder.
    """
    spec, first = tf.TensorSpec([image_px, image_px, 3], tf.float32), tf.constant(0)

    def load_all(load: Callable[[tuple[tf.Tensor, ...]], tf.Tensor]) -> Callable[[], Any]:
        return lambda: map_valid_rows(load, (encoded, kinds), spec)

    def load_by(decoder: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> Callable[[], Any]:
        return load_all(lambda row: _resize(decoder(row[0], first), image_px))

    mixed = load_all(lambda row: _load(row[0], row[1], first, image_px))
    lowest, highest = tf.reduce_min(kinds), tf.reduce_max(kinds)
    uniform = (lowest == highest) & (lowest >= 0)
    decoders = _decoders(image_px)
    branches = [*(load_by(decoder) for decoder in decoders), mixed]
    return tf.switch_case(tf.where(uniform, lowest, len(decoders)), branches)


def _upright(pixels: tf.Tensor, orientations: tf.Tensor) -> tf.Tensor:
    """Rotate images `[n, h, w, 3]`, square if n is not 1, by their EXIF orientations `[n]`."""
    rotated = tf.reduce_any(orientations != UPRIGHT)
    return tf.cond(rotated, lambda: _rotate(pixels, orientations), lambda: pixels)


def _rotate(pixels: tf.Tensor, orientations: tf.Tensor) -> tf.Tensor:
    """Gather each pixel from its position in the stored image, for all orientations at once.

    Transposing and reversing whole batches takes twice as long as decoding small photographs.
    """

    def needs(listed: tuple[int, ...]) -> tf.Tensor:
        matches = tf.reduce_any(orientations[:, tf.newaxis] == listed, axis=1)
        return matches[:, tf.newaxis, tf.newaxis]

    shape = tf.shape(pixels)
    height, width = shape[1], shape[2]
    transposed = needs(TRANSPOSED)
    rows = tf.where(transposed[0, 0, 0], width, height)
    columns = tf.where(transposed[0, 0, 0], height, width)
    row = tf.range(rows)[tf.newaxis, :, tf.newaxis]
    column = tf.range(columns)[tf.newaxis, tf.newaxis, :]
    row = tf.where(needs(UPSIDE_DOWN), rows - 1 - row, row)
    column = tf.where(needs(MIRRORED), columns - 1 - column, column)
    positions = tf.where(transposed, column * width + row, row * width + column)
    flat = tf.reshape(pixels, [-1, height * width, 3])
    upright = tf.gather(flat, tf.reshape(positions, [-1, rows * columns]), batch_dims=1)
    upright = tf.reshape(upright, [-1, rows, columns, 3])
    square = pixels.shape[1] == pixels.shape[2]
    return tf.ensure_shape(upright, pixels.shape) if square else upright

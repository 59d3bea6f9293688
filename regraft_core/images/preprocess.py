"""From encoded bytes to a backbone's input: the same preprocessing in training and in serving.

It uses TensorFlow operations only, so that it has the same result eagerly, in `tf.data` and in an
exported graph. An image that cannot be decoded is an InvalidArgumentError with its index in the
batch.
"""

from __future__ import annotations

import functools

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
from regraft_core.runtime.errors import unknown_name

DECODERS = (decode_jpeg, decode_png, decode_gif, decode_bmp, decode_webp)
SCALINGS = {
    "vgg16": "caffe",
    "vgg19": "caffe",
    "resnet": "caffe",
    "resnet_v2": "unit",
    "densenet": "torch",
    "inception_v3": "unit",
    "inception_resnet_v2": "unit",
    "xception": "unit",
    "mobilenet": "unit",
    "mobilenet_v2": "unit",
    "mobilenet_v3": "none",
    "nasnet": "unit",
    "efficientnet": "none",
    "efficientnet_v2": "none",
    "convnext": "none",
    "efficientnet_lite0": "lite",
    "tiny": "unit",
}
DECODING_THREADS = 4
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
def load_images(encoded: tf.Tensor, image_px: int, *, name_damaged: bool = False) -> tf.Tensor:
    """Decode images of any size and format and resize them to one square size.

    The aspect ratio is not kept. Resizing is bilinear with antialiasing, then images are rotated.

    Args:
        encoded: string `[n]`, JPEG, PNG, GIF (first frame), BMP or WebP.
        image_px: side of the square.
        name_damaged: report the index of a damaged image even if only its decoder detects the
            damage. The pixels are the same; a call takes a millisecond longer.

    Returns:
        float32 `[n, image_px, image_px, 3]` in 0..255.

    Raises:
        tf.errors.InvalidArgumentError: an image cannot be decoded; the whole batch fails. The
            message contains "image <index>: expected ..." for the first such image, counted
            from 0.
    """
    with tf.device("/CPU:0"):
        headers = read_headers(encoded)
        encoded = _check(encoded, headers)
        orientations = read_orientations(encoded, headers.format == JPEG)

        def decode_all() -> tf.Tensor:
            return tf.map_fn(
                lambda row: _load(row[0], row[1], row[2], image_px),
                (encoded, headers.format, tf.range(tf.size(encoded))),
                fn_output_signature=tf.TensorSpec([image_px, image_px, 3], tf.float32),
            )

        def decode_each() -> tf.Tensor:
            return _load_each(encoded, headers.format, image_px)

        # In a batch of one, the index is known.
        single = tf.size(encoded) < 2
        pixels = tf.cond(single, decode_all, decode_each) if name_damaged else decode_all()
        return _upright(pixels, orientations)


@tf.autograph.experimental.do_not_convert
def scale(pixels: tf.Tensor, scaling: str) -> tf.Tensor:
    """Scale pixels to a backbone's input, by the `scaling` of its row in the table.

    Args:
        pixels: float32 `[n, h, w, 3]` in 0..255, RGB.
        scaling: a key of `SCALINGS`.

    Returns:
        float32 of the same shape; for a Keras model the result of its `preprocess_input`.

    Raises:
        InputError: unknown scaling.
    """
    match SCALINGS.get(scaling):
        case "none":
            return pixels
        case "unit":
            return pixels / 127.5 - 1.0
        case "lite":
            return (pixels - 127.0) / 128.0
        case "caffe":
            return pixels[..., ::-1] - tf.constant(CAFFE_MEAN_BGR, pixels.dtype)
        case "torch":
            mean = tf.constant(TORCH_MEAN, pixels.dtype)
            return (pixels / 255.0 - mean) / tf.constant(TORCH_DEVIATION, pixels.dtype)
    raise unknown_name("scaling", scaling, SCALINGS)


def _check(encoded: tf.Tensor, headers: Headers) -> tf.Tensor:
    """Return `encoded`, or fail at the first image of unknown format or with too many pixels."""
    unknown = headers.format < 0
    large = tf.reduce_prod(tf.minimum(headers.sides, MAX_PIXELS + 1), axis=1) > MAX_PIXELS
    invalid = unknown | large

    def fail() -> tf.Tensor:
        first = tf.argmax(tf.cast(invalid, tf.int32))
        text = f"an image as {FORMATS}, got other bytes"
        known = require(encoded, ~unknown[first], first, text)
        return check_pixels(known, headers.sides[first], first)

    return tf.cond(tf.reduce_any(invalid), fail, lambda: encoded)


def _decode(encoded: tf.Tensor, kind: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Decode one image by its format to uint8 `[height, width, 3]`, without rotating it."""
    decoders = [functools.partial(decoder, encoded, index) for decoder in DECODERS]
    pixels = tf.switch_case(kind, decoders)
    pixels.set_shape([None, None, 3])
    return pixels


def _load(encoded: tf.Tensor, kind: tf.Tensor, index: tf.Tensor, image_px: int) -> tf.Tensor:
    """Decode and resize one image to float32 `[image_px, image_px, 3]`."""
    pixels = _decode(encoded, kind, index)
    return tf.image.resize(
        pixels, [image_px, image_px], tf.image.ResizeMethod.BILINEAR, antialias=True
    )


def _load_each(encoded: tf.Tensor, kinds: tf.Tensor, image_px: int) -> tf.Tensor:
    """Load images like `load_images`, and report the first that cannot be decoded.

    A graph cannot catch the error of an operation, but a dataset can skip elements that fail; the
    indices of the images then show which one is missing.
    """
    count = tf.size(encoded)
    rows = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded, kinds))
    loaded = rows.map(
        lambda index, one, kind: (index, _load(one, kind, index, image_px)),
        num_parallel_calls=DECODING_THREADS,
        deterministic=True,
    )
    # A dataset without elements has no batch, so a first element that always loads is added.
    first = tf.data.Dataset.from_tensors((-1, tf.zeros([image_px, image_px, 3])))
    batches = first.concatenate(loaded.ignore_errors()).batch(tf.cast(count, tf.int64) + 1)
    indices, pixels = batches.with_options(_plain_options()).get_single_element()
    in_order = tf.concat([indices[1:], [count]], axis=0) == tf.range(tf.size(indices))
    missing = tf.argmin(tf.cast(in_order, tf.int32), output_type=tf.int32)
    complete = tf.size(indices) == count + 1
    text = f"an undamaged image of at most {MAX_PIXELS} pixels, could not decode it"
    return require(pixels[1:], complete, missing, text)


def _plain_options() -> tf.data.Options:
    """Return options for a dataset of a single call: without tuning and optimization."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


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

"""Preprocessing: equal to Pillow, equal in all modes, limited, with clear errors."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from regraft_core.backbones.backbone_table import BACKBONES
from regraft_core.images.batch_decoding import make_decoder
from regraft_core.images.preprocess import (
    decode_image,
    load_each_image,
    load_image,
    load_images,
    scale,
)
from regraft_core.images.scalings import KINDS, SCALINGS, affine_scaling, check_scaling
from regraft_core.runtime.errors import InputError

STRINGS = tf.TensorSpec([None], tf.string)
DAMAGED = tf.errors.InvalidArgumentError


@pytest.fixture(scope="module")
def decode() -> Callable[[bytes], tf.Tensor]:
    return tf.function(decode_image, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.fixture(scope="module")
def load() -> Callable[[list[bytes]], tf.Tensor]:
    return tf.function(lambda encoded: load_images(encoded, 24), input_signature=[STRINGS])


@pytest.fixture(scope="module")
def load_each() -> Callable[[list[bytes]], dict[str, tf.Tensor]]:
    """`load_each_image` as a graph: `pixels` and `reasons` by name."""

    @tf.function(input_signature=[STRINGS])
    def graph(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels, reasons = load_each_image(encoded, 24)
        return {"pixels": pixels, "reasons": reasons}

    return graph


def png(width: int, height: int, depth: int, color_type: int, rows: bytes) -> bytes:
    """Return a PNG of raw rows, each with its filter byte."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def reasons_of(load_each: Callable, encoded: list[bytes]) -> list[bytes]:
    return list(load_each(encoded)["reasons"].numpy())


def with_orientation(orientation: int) -> bytes:
    """Return a JPEG that is dark at the left, with an EXIF orientation."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, 30:] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def with_jpeg_sides(jpeg: bytes, width: int, height: int) -> bytes:
    start = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:start] + struct.pack(">HH", height, width) + jpeg[start + 4 :]


def test_pixels_equal_pillow_bit_for_bit(
    sample: bytes, decode: Callable[[bytes], tf.Tensor], pillow: Callable[[bytes], np.ndarray]
) -> None:
    np.testing.assert_array_equal(decode(sample), pillow(sample))


def test_the_graph_is_optimized_without_an_error_in_the_log(
    sample: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    make_decoder(24)(tf.constant([sample, sample]))
    assert "failed" not in capfd.readouterr().err


@pytest.mark.parametrize(("color_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_become_the_upper_eight(
    color_type: int, channels: int, decode: Callable[[bytes], tf.Tensor]
) -> None:
    values = np.random.default_rng(1).integers(0, 65536, (5, 7, channels)).astype(">u2")
    if channels in (2, 4):
        values[..., -1] = 65535
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    colors = (values >> 8)[..., : 3 if channels > 2 else 1]
    np.testing.assert_array_equal(
        decode(png(7, 5, 16, color_type, rows)), np.broadcast_to(colors, (5, 7, 3))
    )


def test_all_modes_give_the_same_pixels(
    samples: dict[str, bytes], load: Callable[[list[bytes]], tf.Tensor], load_each: Callable
) -> None:
    encoded = list(samples.values())
    graph = load(encoded).numpy()
    assert graph.shape == (len(encoded), 24, 24, 3)
    assert graph.dtype == np.float32
    assert graph.min() >= -1e-3 and graph.max() <= 255.001
    np.testing.assert_array_equal(load_images(tf.constant(encoded), 24), graph)
    each = load_each(encoded)
    np.testing.assert_array_equal(each["pixels"], graph)
    assert set(each["reasons"].numpy()) == {b""}
    single = tf.data.Dataset.from_tensor_slices(encoded).map(lambda image: load_image(image, 24))
    np.testing.assert_array_equal(np.stack(list(single.as_numpy_iterator())), graph)
    batched = tf.data.Dataset.from_tensor_slices(encoded).batch(7)
    batched = batched.map(lambda images: load_images(images, 24))
    np.testing.assert_array_equal(np.concatenate(list(batched.as_numpy_iterator())), graph)


def test_loading_is_resized_decoding(samples: dict[str, bytes], load: Callable) -> None:
    loaded = load(list(samples.values()))
    for pixels, encoded in zip(loaded, samples.values(), strict=True):
        decoded = decode_image(tf.constant(encoded))
        resized = tf.image.resize(decoded, (24, 24), antialias=True)
        np.testing.assert_allclose(pixels, resized, atol=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "ratio"),
    [(95, 400, 1), (96, 400, 2), (400, 191, 2), (192, 192, 4), (383, 500, 4), (384, 384, 8),
     (1000, 800, 8)],
)  # fmt: skip
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(
    load: Callable, load_each: Callable, height: int, width: int, ratio: int
) -> None:
    """The graphs load squares of 24 pixels: the shorter side stays at 48 or more."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 10 + 1, width // 10 + 1, 3))
    photo = Image.fromarray(noise.astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=90)
    encoded = buffer.getvalue()

    def resized(ratio: int) -> tf.Tensor:
        reduced = tf.io.decode_jpeg(encoded, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")
        return tf.image.resize(reduced, [24, 24], antialias=True)

    loaded = load([encoded])[0]
    np.testing.assert_array_equal(loaded, resized(ratio))
    np.testing.assert_array_equal(load_each([encoded, encoded])["pixels"][1], loaded)
    assert np.abs(loaded - resized(1)).mean() < 3.0


def test_an_exported_graph_gives_the_same_with_both_loaders(
    samples: dict[str, bytes], load: Callable, load_each: Callable, tmp_path: Path
) -> None:
    encoded = list(samples.values())
    expected = load(encoded).numpy()
    module = tf.Module()
    module.load = load_each
    tf.saved_model.save(module, tmp_path, signatures=load_each)
    served = tf.saved_model.load(tmp_path).signatures["serving_default"]
    np.testing.assert_array_equal(served(tf.constant(encoded))["pixels"], expected)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path))
        signature = graph.signature_def["serving_default"]
        feed = signature.inputs["encoded"].name
        fetch = {name: info.name for name, info in signature.outputs.items()}
        np.testing.assert_array_equal(session.run(fetch, {feed: encoded})["pixels"], expected)
        got = session.run(fetch, {feed: [encoded[0], encoded[0][:-200], encoded[1]]})
        assert [bool(reason) for reason in got["reasons"]] == [False, True, False]
        np.testing.assert_array_equal(got["pixels"][[0, 2]], expected[:2])


def test_a_batch_may_be_empty(load: Callable, load_each: Callable) -> None:
    assert load(tf.constant([], tf.string)).shape == (0, 24, 24, 3)
    each = load_each(tf.constant([], tf.string))
    assert (each["pixels"].shape, each["reasons"].shape) == ((0, 24, 24, 3), (0,))


@pytest.mark.parametrize(
    "other", [b"", b"\xff", b"hello", b"\x89PNG\r\n\x1a\n", b"%PDF-1.7", b"GIF"]
)
def test_other_bytes_are_reported_by_index(
    other: bytes, samples: dict, load: Callable, load_each: Callable
) -> None:
    valid = samples["png"]
    with pytest.raises(DAMAGED, match="image 2: expected an image as JPEG, PNG, GIF, BMP or"):
        load([valid, valid, other, other])
    with pytest.raises(DAMAGED, match="image 0: expected an image"):
        load_image(tf.constant(other), 24)
    reason = b"expected an image as JPEG, PNG, GIF, BMP or WebP, got other bytes"
    assert reasons_of(load_each, [valid, valid, other, other]) == [b"", b"", reason, reason]
    assert reasons_of(load_each, [other]) == [reason]


@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "bmp", "webp", "webp animated"])
def test_damage_blanks_only_its_own_row(
    name: str, samples: dict, load: Callable, load_each: Callable
) -> None:
    whole, jpeg, png_ = samples[name], samples["jpeg"], samples["png"]
    valid = load([jpeg, png_]).numpy()
    for end in (len(whole) // 3, len(whole) * 2 // 3):
        each = load_each([jpeg, whole[:end], whole[:end], png_])
        np.testing.assert_array_equal(each["pixels"].numpy()[[0, 3]], valid)
        assert not each["pixels"].numpy()[1:3].any()
        assert each["reasons"].numpy()[[0, 3]].tolist() == [b"", b""]
        for reason in (*each["reasons"].numpy()[1:3], *reasons_of(load_each, [whole[:end]])):
            assert reason.startswith(b"expected an undamaged image of a supported kind and at most")


def test_a_batch_of_damaged_images(samples: dict, load_each: Callable) -> None:
    each = load_each([samples["png"][:99], b"no image", samples["jpeg"][:99]])
    assert all(each["reasons"].numpy())
    assert not each["pixels"].numpy().any()


def test_damage_does_not_shift_rotations(load_each: Callable, load: Callable) -> None:
    rotated, plain = (with_orientation(value) for value in (6, 1))
    each = load_each([rotated, b"no image", plain, rotated[:-100], rotated])
    np.testing.assert_array_equal(
        each["pixels"].numpy()[[0, 2, 4]], load([rotated, plain, rotated])
    )


def enormous(samples: dict[str, bytes]) -> dict[str, bytes]:
    """Return small files that declare, or unpack to, more pixels than fit in any memory."""
    gif, bmp = samples["gif"], samples["bmp"]
    wide = struct.pack("<HH", 65000, 65000)
    frame = gif.index(b"\x2c\0\0\0\0") + 5
    webp, animated = samples["webp alpha"], samples["webp animated"]
    canvas = b"\xff\x3f\0" * 2
    frames = animated.index(b"ANMF")
    many = animated[:24] + canvas + animated[30:frames] + animated[frames:] * 9
    return {
        "jpeg": with_jpeg_sides(samples["jpeg"], 65000, 65000),
        "png": png(60000, 60000, 8, 2, b""),
        "png overflow": png(2**31 - 1, 2**31 - 1, 8, 2, b""),
        "gif": gif[:6] + wide + gif[10:],
        "gif frame": gif[:frame] + wide + gif[frame + 4 :],
        "bmp": bmp[:18] + struct.pack("<ii", 50000, -50000) + bmp[26:],
        "webp": webp[:24] + b"\xff\xff\0" * 2 + webp[30:],
        "webp animated": many,
    }


@pytest.mark.parametrize(
    "name",
    ["jpeg", "png", "png overflow", "gif", "gif frame", "bmp", "webp", "webp animated"],
)
def test_enormous_images_are_an_error_before_decoding(
    name: str, samples: dict[str, bytes], load: Callable, load_each: Callable
) -> None:
    bomb = enormous(samples)[name]
    valid, invalid = reasons_of(load_each, [samples["png"], bomb])
    assert (valid, b"at most 100000000 pixels" in invalid) == (b"", True)
    with pytest.raises(DAMAGED, match=r"image 1: expected at most 100000000 pixels, got \d+ x"):
        load([samples["png"], bomb])


def test_later_frames_are_never_unpacked(samples: dict[str, bytes], load: Callable) -> None:
    gif = samples["gif animated"]
    second = gif.rindex(b"\x2c")
    damaged = gif[: second + 5] + struct.pack("<HH", 65000, 65000) + gif[second + 9 :]
    np.testing.assert_array_equal(load([damaged]), load([gif]))


@pytest.mark.parametrize("bits", [1, 4, 16])
def test_other_bmp_depths_are_an_error(bits: int, samples: dict, decode: Callable) -> None:
    bmp = samples["bmp"]
    with pytest.raises(DAMAGED, match=f"expected an uncompressed BMP .* got {bits} bits"):
        decode(bmp[:28] + struct.pack("<H", bits) + bmp[30:])


def test_a_bmp_with_rows_from_top_to_bottom(samples: dict[str, bytes], decode: Callable) -> None:
    bmp = samples["bmp"]
    (height,) = struct.unpack("<i", bmp[22:26])
    downward = bmp[:22] + struct.pack("<i", -height) + bmp[26:]
    np.testing.assert_array_equal(decode(downward), decode(bmp)[::-1])


@pytest.mark.parametrize("scaling", sorted(SCALINGS))
def test_scaling_equals_that_of_keras(scaling: str) -> None:
    pixels = np.random.default_rng(2).uniform(0, 255, (2, 5, 4, 3)).astype(np.float32)
    scaled = scale(tf.constant(pixels), scaling)
    module = getattr(keras.applications, scaling, None)
    if module is not None:
        np.testing.assert_allclose(scaled, module.preprocess_input(pixels.copy()), atol=2e-5)
    elif scaling == "efficientnet_lite0":
        np.testing.assert_array_equal(scaled, (pixels - 127) / 128)
    else:
        assert scaling == "tiny"
    assert scaled.dtype == tf.float32


def test_every_backbone_has_a_scaling() -> None:
    assert {row.scaling for row in BACKBONES.values()} == set(SCALINGS)
    with pytest.raises(InputError, match="unknown scaling 'vgg61'"):
        scale(tf.zeros([1, 2, 2, 3]), "vgg61")


def test_a_scaling_by_name_or_by_factors_and_offsets() -> None:
    pixels = tf.constant([[[[0.0, 127.5, 255.0]]]])
    ranges = {"none": (0, 255), "unit": (-1, 1), "fraction": (0, 1)}
    for kind, (low, high) in ranges.items():
        np.testing.assert_allclose(scale(pixels, kind)[0, 0, 0, ::2], [low, high])
    name = affine_scaling([0.1, 0.2, 0.3], [-1])
    np.testing.assert_allclose(scale(pixels, name)[0, 0, 0], [-1, 24.5, 75.5], rtol=1e-6)
    assert {*KINDS, name} == {check_scaling(one) for one in (*KINDS, name)}
    for wrong in ("affine:1:nan", "affine:1,2:0", "affine:1", "unite"):
        with pytest.raises(InputError, match="scaling: unknown scaling"):
            check_scaling(wrong)


def test_the_graph_contains_no_python(samples: dict[str, bytes], load_each: Callable) -> None:
    graph = load_each.get_concrete_function().graph
    functions = graph.as_graph_def().library.function
    operations = {node.op for function in functions for node in function.node_def}
    operations |= {operation.type for operation in graph.get_operations()}
    assert not {op for op in operations if "PyFunc" in op}

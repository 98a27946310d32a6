"""Decoding: equal to Pillow's on good images, one kind of error on all others."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cion_jax.data import images
from sources import Blocks

PIXELS = Blocks(1).pixels(0)
JPEG = images.encode_jpeg(PIXELS)


def encoded(mode: str, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, kind, **options)
    return file.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b""))
    body = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def png_of_16_bits() -> bytes:
    """Colours of 16 bits each, of which Pillow would keep 8 without a word."""
    return png_claiming(4, 4).replace(struct.pack(">IIBB", 4, 4, 8, 2), struct.pack(">IIBB", 4, 4, 16, 2))


def jpeg_claiming(width: int, height: int) -> bytes:
    return JPEG.replace(struct.pack(">HH", 32, 16), struct.pack(">HH", height, width), 1)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_decodes_as_pillow_does(mode: str, progressive: bool) -> None:
    data = encoded(mode, "JPEG", progressive=progressive, quality=95)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(images.decode(data), expected)
    assert images.header(data) == (32, 16)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "LA"])
def test_png_decodes_as_pillow_does(mode: str) -> None:
    data = encoded(mode, "PNG")
    np.testing.assert_array_equal(images.decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert images.header(data) == (32, 16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_images_are_turned_as_their_exif_says(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    data = encoded("RGB", kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert images.header(data) == expected.shape[:2] == ((16, 32) if orientation >= 5 else (32, 16))
    np.testing.assert_array_equal(images.decode(data), expected)
    small = np.empty((8, 4, 3), np.uint8)
    images.decode_into(small, data)
    np.testing.assert_array_equal(small, images.resize(expected, 8, 4))


@pytest.mark.parametrize(
    "exif", [b"", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x09\0"]
)
def test_damaged_exif_turns_nothing(exif: bytes) -> None:
    data = encoded("RGB", "JPEG", exif=b"Exif\0\0" + exif, quality=95)
    assert images.header(data) == (32, 16)
    np.testing.assert_array_equal(images.decode(data), images.decode(encoded("RGB", "JPEG", quality=95)))


def test_what_lies_below_transparent_pixels_is_seen() -> None:
    clear = np.dstack([PIXELS, np.zeros(PIXELS.shape[:2], np.uint8)])
    file = io.BytesIO()
    Image.fromarray(clear, "RGBA").save(file, "PNG")
    np.testing.assert_array_equal(images.decode(file.getvalue()), PIXELS)
    file = io.BytesIO()
    palette = Image.fromarray(PIXELS).quantize(16)
    palette.save(file, "PNG", transparency=0)
    np.testing.assert_array_equal(images.decode(file.getvalue()), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"GIF89a" + bytes(40), "neither JPEG nor PNG"),
        (JPEG[:100], "damaged header"),
        (JPEG[:-40], "does not decode"),
        (JPEG[:-2], "does not decode"),
        (encoded("RGB", "PNG")[:-40], "does not decode"),
        (encoded("RGB", "PNG")[:20], "damaged header"),
        (png_claiming(40_000, 40_000), "claims 40000 x 40000 pixels"),
        (jpeg_claiming(40_000, 40_000), "claims 40000 x 40000 pixels"),
        (png_claiming(0, 10), "claims 0 x 10 pixels"),
        (encoded("I;16", "PNG"), "16 bits"),
        (png_of_16_bits(), "16 bits"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(images.ImageError, match=why):
        images.decode(data)


@given(st.data())
def test_damaged_bytes_decode_or_are_refused(data: st.DataObject) -> None:
    original = bytearray(data.draw(st.sampled_from([JPEG, encoded("RGB", "PNG"), encoded("P", "PNG")])))
    for _ in range(data.draw(st.integers(1, 8))):
        original[data.draw(st.integers(2, len(original) - 1))] = data.draw(st.integers(0, 255))
    try:
        pixels = images.decode(bytes(original[: data.draw(st.integers(8, len(original)))]))
    except images.ImageError:
        return
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3


def test_resize_is_exact_where_nothing_is_to_do_and_averages_when_shrinking() -> None:
    assert images.resize(PIXELS, 32, 16) is PIXELS
    small = images.resize(PIXELS, 4, 2)
    assert small.shape == (4, 2, 3)
    assert abs(small.mean() - PIXELS.mean()) < 3

"""JPEG and PNG bytes to pixels and back; bytes may be hostile, so that headers are checked before anything else."""

import io
import struct

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from cion_jax.config import Kernel

#: Larger claims are refused before a pixel is decoded: an 8K video frame fits, a decompression bomb does not.
MAX_PIXELS = 1 << 25

#: How much of a file `header` wants to see; photographs with embedded previews may need all of it.
HEADER_BYTES = 1 << 16

_JPEG = b"\xff\xd8\xff"
_PNG = b"\x89PNG\r\n\x1a\n"


class ImageError(ValueError):
    """These bytes are not an image that can be used; the message says why."""


def header(data: bytes) -> tuple[int, int]:
    """Height and width that JPEG or PNG bytes claim, refusing every other format and anything too large.

    The first `HEADER_BYTES` of a file are enough unless it carries long metadata in front.
    """
    return _header(data)[:2]


def decode(data: bytes) -> np.ndarray:
    """Pixels, uint8 (height, width, 3), of JPEG or PNG bytes; a damaged or truncated image is an ImageError."""
    height, width, _ = _header(data)
    pixels = np.empty((height, width, 3), np.uint8)
    decode_into(pixels, data)
    return pixels


def decode_into(out: np.ndarray, data: bytes, kernel: Kernel = "bilinear") -> None:
    """Decode JPEG or PNG bytes into an array, resized by a kernel if its height and width are others."""
    height, width, colours = _header(data)
    try:
        if colours in ("PNG", "CMYK", "YCCK"):  # print colours are left to Pillow
            out[:] = resize(_decode_with_pillow(data), out.shape[0], out.shape[1], kernel)
        elif out.shape == (height, width, 3):  # the common case, and the fast one: no copy is made
            simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True, buffer=out)
        else:
            pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
            out[:] = resize(pixels, out.shape[0], out.shape[1], kernel)
    except UnidentifiedImageError:
        raise ImageError("damaged header") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what the decoders raise on damaged bytes
        raise ImageError(f"does not decode: {error}") from None


def _decode_with_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
        if image.mode.startswith("I"):
            raise ValueError("it has 16 bits per channel; convert it to 8 first")
        return np.asarray(image.convert("RGB"))


def _header(data: bytes) -> tuple[int, int, str]:
    """Height, width and colours ("PNG" for that format); claims of no pixels or too many are refused."""
    height, width, colours = _jpeg_header(data) if data.startswith(_JPEG) else _png_header(data)
    if height * width > MAX_PIXELS:
        raise ImageError(f"claims {width} x {height} pixels; at most {MAX_PIXELS:,} are allowed")
    if not height * width:
        raise ImageError(f"claims {width} x {height} pixels")
    return height, width, colours


def _jpeg_header(data: bytes) -> tuple[int, int, str]:
    try:
        return simplejpeg.decode_jpeg_header(data, strict=False)[:3]
    except ValueError as error:
        raise ImageError(f"damaged header: {error}") from None
    except KeyError:  # it has no name for the colours that a damaged header claims
        raise ImageError("damaged header") from None


def _png_header(data: bytes) -> tuple[int, int, str]:
    if not data.startswith(_PNG):
        raise ImageError("neither JPEG nor PNG" if data else "empty")
    if len(data) < 24 or data[12:16] != b"IHDR":
        raise ImageError("damaged header")
    width, height = struct.unpack(">II", data[16:24])
    return height, width, "PNG"


def resize(pixels: np.ndarray, height: int, width: int, kernel: Kernel = "bilinear") -> np.ndarray:
    """Pixels at another size, antialiased; the same array where the size is right already."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling[kernel.upper()]))


def encode_jpeg(pixels: np.ndarray, quality: int = 95) -> bytes:
    """JPEG bytes of uint8 (height, width, 3) pixels, with full colour resolution: person crops are small."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, colorspace="RGB", colorsubsampling="444")

"""JPEG and PNG bytes to pixels and back; bytes may be hostile, so that headers are checked before anything else.

Every image becomes 8-bit RGB, in one way wherever it is read:

    turned (EXIF)   as its orientation says, so that people stand upright; height and width are those that one sees
    grey            three equal channels
    palette         the colours that it names
    transparency    left out; what is stored below transparent pixels is seen
    16 bits         refused: which 8 of them to keep differs from camera to camera
    CMYK, YCCK      by the plain formula, without a colour profile; profiles of others are not applied either
"""

import io
import re
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
_JPEG_EXIF = re.compile(rb"\xff\xe1..Exif\0\0", re.DOTALL)
_PNG_EXIF = re.compile(rb"eXIf")
_ORIENTATION = 0x0112
_PNG = b"\x89PNG\r\n\x1a\n"


#: Formats and colours that simplejpeg does not know.
_BY_PILLOW = ("PNG", "CMYK", "YCCK")
#: Steps through rows and columns by EXIF orientation; from 5 on rows and columns have changed places before.
_FLIPS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}


class ImageError(ValueError):
    """These bytes are not an image that can be used; the message says why."""


def header(data: bytes) -> tuple[int, int]:
    """Height and width, once turned upright, that JPEG or PNG bytes claim; every other format is refused, and anything
    too large.

    The first `HEADER_BYTES` of a file are enough unless it carries long metadata in front.
    """
    height, width, _ = _header(data)
    return (height, width) if _orientation(data) < 5 else (width, height)


def decode(data: bytes) -> np.ndarray:
    """Pixels, uint8 (height, width, 3), of JPEG or PNG bytes; a damaged or truncated image is an ImageError."""
    pixels = np.empty((*header(data), 3), np.uint8)
    decode_into(pixels, data)
    return pixels


def decode_into(out: np.ndarray, data: bytes, kernel: Kernel = "bilinear") -> None:
    """Decode JPEG or PNG bytes into an array, resized by a kernel if its height and width are others."""
    height, width, colours = _header(data)
    turned = _orientation(data)
    try:
        if out.shape == (height, width, 3) and turned == 1 and colours not in _BY_PILLOW:
            simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True, buffer=out)  # the common case: no copy is made
        else:
            pixels = _decode_with_pillow(data) if colours in _BY_PILLOW else _decode_jpeg(data)
            out[:] = resize(upright(pixels, turned), out.shape[0], out.shape[1], kernel)
    except UnidentifiedImageError:
        raise ImageError("damaged header") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what the decoders raise on damaged bytes
        raise ImageError(f"does not decode: {error}") from None


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels turned and mirrored as an EXIF orientation, 1 to 8, says."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    up, left = _FLIPS[orientation]
    return np.ascontiguousarray(pixels[::up, ::left])


def _orientation(data: bytes) -> int:
    """What EXIF in the first bytes of a file says of how to turn it: 1 to 8, and 1, not at all, where it is unclear."""
    pattern = _JPEG_EXIF if data.startswith(_JPEG) else _PNG_EXIF
    found = pattern.search(data, 0, HEADER_BYTES)
    if found is None:
        return 1
    tiff = data[found.end() : HEADER_BYTES]
    order = "<" if tiff.startswith(b"II") else ">"
    try:
        (place,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, place)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, place + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value if value in _FLIPS else 1
    except struct.error:  # it ends early, or points behind its end
        pass
    return 1


def _decode_jpeg(data: bytes) -> np.ndarray:
    return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)


def _decode_with_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
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
    if len(data) < 25 or data[12:16] != b"IHDR":
        raise ImageError("damaged header")
    if data[24] == 16:
        raise ImageError("it has 16 bits per channel; convert it to 8 first")
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

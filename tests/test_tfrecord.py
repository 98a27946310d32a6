"""The framing against its published check value, and against every single damaged byte."""

import struct

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cion_jax.data import tfrecord


def test_crc_is_castagnoli_masked() -> None:
    assert google_crc32c.value(b"123456789") == 0xE3069283  # the check value of CRC-32C
    rotated = ((0xE3069283 >> 15) | (0xE3069283 << 17)) & 0xFFFFFFFF
    assert tfrecord.masked_crc(b"123456789") == (rotated + 0xA282EAD8) % 2**32


@given(st.binary(max_size=300))
def test_frame_is_length_payload_and_checksums(payload: bytes) -> None:
    framed, crc = tfrecord.frame(payload)
    length = struct.pack("<Q", len(payload))
    assert framed[:8] == length and framed[12:-4] == payload
    assert struct.unpack("<I", framed[8:12])[0] == tfrecord.masked_crc(length)
    assert tfrecord.unframe(framed) == (payload, crc)


@given(st.binary(min_size=1, max_size=60), st.data())
def test_any_damaged_byte_and_any_cut_is_noticed(payload: bytes, data: st.DataObject) -> None:
    framed, _ = tfrecord.frame(payload)
    place = data.draw(st.integers(0, len(framed) - 1))
    flipped = bytearray(framed)
    flipped[place] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(flipped), framed[:place]):
        with pytest.raises(tfrecord.FrameError):
            tfrecord.unframe(damaged)

"""The TFRecord framing: length, its checksum, payload, its checksum; checksums are masked CRC32C.

| uint64 length | uint32 crc(length) | payload | uint32 crc(payload) |      all little-endian
"""

import struct

import google_crc32c

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
HEADER_BYTES = _LENGTH.size + _CRC.size
FOOTER_BYTES = _CRC.size


class FrameError(ValueError):
    """A frame is damaged; the message says which part of it."""


def masked_crc(data: bytes) -> int:
    """CRC32C rotated and offset as TFRecord wants it, so that checksums of data with checksums inside stay good."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(payload: bytes) -> tuple[bytes, int]:
    """Payload as a framed record, and the checksum of the payload."""
    length = _LENGTH.pack(len(payload))
    crc = masked_crc(payload)
    return b"".join((length, _CRC.pack(masked_crc(length)), payload, _CRC.pack(crc))), crc


def payload_length(header: bytes) -> int:
    """How long the payload behind the first `HEADER_BYTES` of a record is, after a check of their checksum."""
    if len(header) < HEADER_BYTES:
        raise FrameError("the shard ends within a record header")
    length = header[: _LENGTH.size]
    if masked_crc(length) != _CRC.unpack_from(header, _LENGTH.size)[0]:
        raise FrameError("the checksum of the record length does not match")
    return _LENGTH.unpack(length)[0]


def unframe(data: bytes) -> tuple[bytes, int]:
    """The payload of one whole framed record and its checksum, after a check of both checksums in it."""
    length = payload_length(data[:HEADER_BYTES])
    if len(data) < HEADER_BYTES + length + FOOTER_BYTES:
        raise FrameError("the shard ends within a record")
    payload = data[HEADER_BYTES : HEADER_BYTES + length]
    crc = _CRC.unpack_from(data, HEADER_BYTES + length)[0]
    if masked_crc(payload) != crc:
        raise FrameError("the checksum of the payload does not match")
    return payload, crc

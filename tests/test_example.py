"""Image records as tf.train.Example payloads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cion_jax.data import example
from cion_jax.data.example import ImageRecord

numbers = st.integers(-(2**63), 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
records = st.builds(ImageRecord, st.binary(max_size=50), *[numbers] * 7, source=texts)


@given(records)
def test_what_is_encoded_is_decoded(record: ImageRecord) -> None:
    payload = example.encode(record)
    assert example.decode(payload) == record
    assert example.encode(example.decode(payload)) == payload


def test_bytes_are_those_of_the_wire_format() -> None:
    """Field names in sorted order, each an entry of Example.features.feature: spelled out once, by hand."""
    payload = example.encode(ImageRecord(b"I", 1, 2, 3, 4, 5, 6, -1, "s"))

    def field(number: int, data: bytes) -> bytes:
        length = [len(data)] if len(data) < 128 else [len(data) % 128 | 128, len(data) // 128]
        return bytes([number << 3 | 2, *length]) + data

    def entry(name: str, kind: int, value: bytes) -> bytes:
        return field(1, field(1, name.encode()) + field(2, field(kind, field(1, value))))

    ints = {"camera": 6, "frame": 5, "height": 1, "tracklet": 4, "video": 3, "width": 2}
    entries = {name: entry(name, 3, bytes([value])) for name, value in ints.items()}
    entries["identity"] = entry("identity", 3, b"\xff" * 9 + b"\x01")
    entries |= {"image": entry("image", 1, b"I"), "source": entry("source", 1, b"s")}
    assert payload == field(1, b"".join(entries[name] for name in sorted(entries)))


@given(st.binary(max_size=80))
def test_anything_else_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not an image record"):
        example.decode(payload)

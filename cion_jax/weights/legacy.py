"""Files of torch before 1.6: pickles one behind the other, and then the numbers of all storages.

    number | version | of the machine | what was saved | keys of storages | count, elements | count, elements | ...

The first five are pickles; a count is an int64. All numbers are little-endian, whatever the machine was.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from cion_jax.errors import UserError
from cion_jax.weights import pickles
from cion_jax.weights.arrays import State, raw_type
from cion_jax.weights.tensors import Storage, Tensor, read_tensors

_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")  # a number, and the end of its pickle
_VERSION = 1001
_COUNT_BYTES = 8


def is_legacy(head: bytes) -> bool:
    """Whether a file that begins like this is of this format; before the number stands only the pickle's protocol."""
    return head.startswith(b"\x80") and _MAGIC in head[: len(_MAGIC) + 11]


def read_legacy(file: BinaryIO, choose: Callable[[Any], dict[str, Tensor]]) -> State:
    """The arrays of those tensors that `choose` picks from what the file holds; no others are read."""
    size = file.seek(0, 2)
    file.seek(0)
    front = io.BytesIO(file.read(pickles.MOST_BYTES))
    _, version, _ = (pickles.load(front) for _ in range(3))
    if version != _VERSION:
        raise UserError(f"it has version {version!a} of the format before torch 1.6, not {_VERSION}; save it again")
    storages: dict[str, Storage] = {}
    content = pickles.load(front, storages)
    keys = pickles.load(front)
    places = _places(file, front.tell(), [storages[key] for key in keys], size)

    def numbers(storage: Storage) -> np.ndarray:
        file.seek(places[storage.key])
        dtype = raw_type(storage.kind)
        return np.frombuffer(file.read(storage.count * dtype.itemsize), dtype)

    return read_tensors(choose(content), size, numbers)


def _places(file: BinaryIO, place: int, storages: list[Storage], size: int) -> Mapping[str, int]:
    """Where the elements of each storage begin, after a check that all of them are there."""
    places = {}
    for storage in storages:
        file.seek(place)
        count = int.from_bytes(file.read(_COUNT_BYTES), "little")
        if count != storage.count:
            raise UserError(
                f"its storage {storage.key[:40]!a} has {count} elements, not {storage.count}; fetch it again"
            )
        places[storage.key] = place + _COUNT_BYTES
        place += _COUNT_BYTES + count * raw_type(storage.kind).itemsize
        if place > size:
            raise UserError(
                f"its storage {storage.key[:40]!a} ends behind the {size} bytes of the file; fetch it again"
            )
    if place != size:
        raise UserError(f"it has {size - place} bytes behind its last storage; fetch it again")
    return places

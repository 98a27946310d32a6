"""Raw bytes of weight files to arrays of numpy, and which types the files may hold."""

from collections.abc import Sequence

import numpy as np

State = dict[str, np.ndarray]

_ROWS = (  # numpy's name (and ml_dtypes' for bfloat16), PyTorch's class of storage, safetensors' code
    ("float64", "DoubleStorage", "F64"),
    ("float32", "FloatStorage", "F32"),
    ("float16", "HalfStorage", "F16"),
    ("bfloat16", "BFloat16Storage", "BF16"),
    ("int64", "LongStorage", "I64"),
    ("int32", "IntStorage", "I32"),
    ("int16", "ShortStorage", "I16"),
    ("int8", "CharStorage", "I8"),
    ("uint8", "ByteStorage", "U8"),
    ("bool", "BoolStorage", "BOOL"),
)
STORAGES = {name: f"torch.{storage}" for name, storage, _ in _ROWS}
CODES = {code: name for name, _, code in _ROWS}

# Types that numpy lacks, or whose bytes it would trust (a bool of 2), are read as the integers they are made of.
_RAW = {"bfloat16": "u2", "bool": "u1"}


def raw_type(name: str, order: str = "little") -> np.dtype:
    """The numpy type to read the elements of a named type with, before `to_plain`."""
    return np.dtype(_RAW.get(name, name)).newbyteorder(order)  # type: ignore[arg-type]


def to_plain(raw: np.ndarray, name: str) -> np.ndarray:
    """A copy as the named type in this machine's byte order; half precision becomes float32, exactly."""
    if name == "bfloat16":
        return np.asarray(raw.astype(np.uint32) << 16).view(np.float32)
    if name == "bool":
        return np.asarray(raw != 0)
    return raw.astype(np.float32 if name == "float16" else raw.dtype.newbyteorder("="), order="C")


def to_bytes(array: np.ndarray) -> bytes:
    """The elements of an array in C order, little-endian, however it lies in memory."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Elements from one index to the next along each axis of a contiguous array."""
    steps = [1]
    for size in reversed(shape[1:]):
        steps.append(steps[-1] * size)
    return tuple(reversed(steps[: len(shape)]))

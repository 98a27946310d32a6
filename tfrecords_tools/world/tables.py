"""Tables of people, cameras and shots: a named tuple spells both a row and the numpy dtype of its table."""

from typing import Any, NamedTuple, TypeVar

import numpy as np

Colour = tuple[int, int, int]
"""Red, green and blue, 0..255."""

_FORMATS: dict[Any, tuple] = {int: ("<i4",), float: ("<f4",), Colour: ("u1", 3)}
Row = TypeVar("Row", bound=NamedTuple)


def dtype_of(kind: type[Row]) -> np.dtype:
    """The numpy dtype whose records hold the fields of a named tuple."""
    return np.dtype([(name, *_FORMATS[field]) for name, field in kind.__annotations__.items()])


def row(kind: type[Row], table: np.ndarray, number: int) -> Row:
    """One record as a named tuple of plain Python values, which are many times faster to compute with."""
    values = table[number].tolist()
    return kind._make(tuple(value.tolist()) if isinstance(value, np.ndarray) else value for value in values)

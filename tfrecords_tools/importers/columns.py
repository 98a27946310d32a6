"""Rows that come one by one, as arrays."""

from collections.abc import Iterable
from itertools import islice

import numpy as np
from numpy.typing import DTypeLike

from cion_jax.errors import UserError

_PORTION = 1 << 16


def columns(rows: Iterable[tuple], *dtypes: DTypeLike) -> list[np.ndarray]:
    """One array per column of the rows; they are taken in portions, so that Python objects never pile up."""
    parts = [[np.empty(0, dtype)] for dtype in dtypes]
    rows = iter(rows)
    while portion := list(islice(rows, _PORTION)):
        for part, values, dtype in zip(parts, zip(*portion, strict=True), dtypes, strict=True):
            try:
                part.append(np.array(values, dtype))
            except UnicodeEncodeError as error:
                raise UserError(f"the name {error.object!a} is not UTF-8 text; rename it") from None
    return [np.concatenate(part) for part in parts]

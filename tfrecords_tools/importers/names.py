"""The numbers that file names carry."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from cion_jax.errors import UserError


def numbers_in(source: Path, paths: np.ndarray, pattern: str, example: str) -> np.ndarray:
    """A row for each path with a field for each named group of a pattern; names that do not match are refused.

    Args:
        source: The folder that paths are relative to, for messages.
        paths: Where the images are.
        pattern: What file names look like without their ending. Its groups match at most nine digits, or -1.
        example: A file name that matches, for messages.
    """
    compiled = re.compile(pattern)

    def rows() -> Iterator[tuple[int, ...]]:
        for path in paths:
            match = compiled.fullmatch(PurePosixPath(path).stem)
            if match is None:
                raise UserError(f"{path!r} in {source}: not a name like {example}; rename it or take it away")
            yield tuple(map(int, match.groups()))

    return np.fromiter(rows(), [(group, "<i4") for group in compiled.groupindex], len(paths))


def last_numbers(paths: np.ndarray) -> np.ndarray:
    """The last number in each file name; -1 where there is none, or one of more than nine digits."""

    def last(path: str) -> int:
        numbers = re.findall("[0-9]+", PurePosixPath(path).stem)
        digits = numbers[-1].lstrip("0") or "0" if numbers else "-1"
        return int(digits) if len(digits) <= 9 else -1

    return np.fromiter(map(last, paths), np.int64, len(paths))

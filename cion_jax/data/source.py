"""What the writer needs to know of images that are not in records yet."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np


class Source(Protocol):
    """Images in a fixed order. A part is pickled for a writing process, so keep sources small and plain."""

    @property
    def labels(self) -> np.ndarray:
        """One row of `labels.LABELS` per image."""
        ...

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def part(self, start: int, stop: int) -> "Source":
        """The images start..stop-1 as a source of their own."""
        ...

    def encoded(self) -> Iterator[tuple[bytes, str]]:
        """The JPEG or PNG bytes of each image, in order, with a name for it that a person can trace back."""
        ...

    def fingerprint(self) -> str:
        """Hex digest of all that the bytes depend on: equal digests promise equal bytes."""
        ...

"""An object store for tests, in memory."""

from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    """Goes under the name of a real store, and notes what it is asked."""

    protocol = "gs"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    cachable = False
    asked: ClassVar[list[str]] = []
    broken: ClassVar[bool] = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("gs://").strip("/")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        if Bucket.broken:
            raise ConnectionError("the line is dead\nat layer 7")
        Bucket.asked.append(path)  # which several threads may do at once
        return super().cat_file(path, start=start, end=end, **options)


def fill(folder: Path, url: str) -> None:
    """Put a dataset into the store, which has been asked nothing yet, and which fsspec finds from then on."""
    fsspec.register_implementation("gs", Bucket, clobber=True)
    for path in folder.iterdir():
        Bucket().pipe_file(f"{url}/{path.name}", path.read_bytes())
    Bucket.asked.clear()

"""Images by the names of the files that they were imported from, which their records keep."""

from pathlib import Path, PurePosixPath

import numpy as np

from cion_jax.data.records import DamagedRecordError, Records
from cion_jax.errors import UserError
from cion_jax.terminal import ProgressBar


def listed_images(path: Path, records: Records, bar: ProgressBar) -> np.ndarray:
    """The numbers of the images that a text file lists, one in each line: its name, or the end of its path.

    What stands in a line behind a semicolon is not read: the published lists have identity and camera there. All
    records are read once.
    """
    try:
        lines = [line.partition(";")[0].strip() for line in path.read_text().splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {error}; name a text file with the name of an image in each line") from None
    sources = _sources(records, bar)
    by_name: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        by_name.setdefault(PurePosixPath(source).name, []).append(number)
    found = []
    for place, line in enumerate(lines, 1):
        if not line:
            continue
        same = [number for number in by_name.get(PurePosixPath(line).name, []) if _is_end(line, sources[number])]
        if len(same) != 1:
            what = f"{len(same):,} images of split {records.split} of {records.folder}"
            remedy = "write more of its path" if same else f"names there are like {sources[0]}"
            raise UserError(f"{path}:{place}: {line!r} is the name of {what}; {remedy}")
        found += same
    return np.array(found, np.int64)


def _sources(records: Records, bar: ProgressBar) -> list[str]:
    """The name of each image; that of a damaged one cannot be told."""
    sources = []
    in_order = records.in_order()
    with bar("names of images", len(records)) as progress:
        for number in range(len(records)):
            try:
                sources.append(in_order[number].source)
            except DamagedRecordError:
                sources.append("")
            progress(1)
    return sources


def _is_end(one: str, other: str) -> bool:
    """Whether one of two paths is the end of the other."""
    return f"/{other}".endswith(f"/{one}") or f"/{one}".endswith(f"/{other}")

"""A table of images: the way in for every layout that no other importer knows."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from cion_jax.data.source import Source
from cion_jax.errors import UserError
from tfrecords_tools.files import TEXT, checked_files
from tfrecords_tools.importers.columns import columns
from tfrecords_tools.importers.listing import say_unlisted
from tfrecords_tools.importers.numbering import dense_ranks, label_rows, natural_ranks
from tfrecords_tools.importers.tables import table_rows
from tfrecords_tools.tracklet_names import names_of

_COLUMNS = ("path", "video", "tracklet", "frame", "camera", "identity", "split")


def manifest(source: Path, *, root: Path | None = None) -> dict[str, Source]:
    """A CSV file with a header, or a JSONL file, with a row per image.

    The column path is required; video, tracklet, frame, camera, identity and split may stand beside it. Videos and
    tracklets may have names or numbers; frame, camera and identity are whole numbers, -1 where unknown. Without a
    video column all images are of one video; without a tracklet column each image is its own tracklet; without a split
    column all are in the split train.

    Args:
        source: The .csv or .jsonl file.
        root: The folder that paths are relative to; by default the one that the file is in.
    """
    table = columns(_checked_rows(source), TEXT, TEXT, TEXT, "<i4", "<i4", "<i4", TEXT)
    splits = table[-1]
    if not len(splits):
        raise UserError(f"no images found in {source}; expected a row for each, with the columns {', '.join(_COLUMNS)}")
    sources: dict[str, Source] = {}
    for name in np.unique(splits):
        paths, videos, tracklets, frame, camera, identity, _ = (column[splits == name] for column in table)
        video = natural_ranks(videos)
        labels = label_rows(video, dense_ranks(video, natural_ranks(tracklets)), frame, camera, identity)
        names = names_of(labels, videos, tracklets)
        sources[name] = checked_files(root or source.parent, paths, labels, f"the images that {source} lists", names)
    say_unlisted(root or source.parent, table[0])
    return sources


def _checked_rows(source: Path) -> Iterator[tuple]:
    first = None
    for place, row in table_rows(source):
        first = first or row
        if unknown := row.keys() - set(_COLUMNS):
            raise UserError(f"{place}: unknown column {min(unknown)!r}; the known ones are {', '.join(_COLUMNS)}")
        if "path" not in row or row.keys() != first.keys():
            raise UserError(f"{place}: has the columns {', '.join(row)}; all rows need path, and the same as the first")
        path = str(PurePosixPath(_name(place, row, "path")))
        video = _name(place, row, "video")
        tracklet = _name(place, row, "tracklet", path)
        frame, camera, identity = (_number(place, row, column) for column in ("frame", "camera", "identity"))
        split = _name(place, row, "split", "train")
        if not re.fullmatch("[a-z][a-z0-9_]*", split):
            raise UserError(f"{place}: split {split!r} is not made of small letters, digits and _, a letter first")
        yield path, video, tracklet, frame, camera, identity, split


def _name(place: str, row: dict[str, object], column: str, default: str = "") -> str:
    value = row.get(column, default)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{place}: {column} is neither a text nor a number")
    return str(value)


def _number(place: str, row: dict[str, object], column: str) -> int:
    value = row.get(column, -1)
    text = str(value) if isinstance(value, str | int) else type(value).__name__
    if not re.fullmatch("-1|[0-9]{1,9}", text):  # True and False do not match either
        raise UserError(f"{place}: {column} {text[:40]!r} is not a whole number of up to nine digits; -1 is unknown")
    return int(text)

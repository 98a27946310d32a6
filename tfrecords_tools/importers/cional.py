"""CION-AL: images in folders, identities in one JSON file."""

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from cion_jax.data.source import Source
from cion_jax.errors import UserError
from cion_jax.untrusted import open_file
from tfrecords_tools.files import TEXT, checked_files
from tfrecords_tools.importers.columns import columns
from tfrecords_tools.importers.listing import say_unlisted
from tfrecords_tools.importers.names import last_numbers
from tfrecords_tools.importers.numbering import dense_ranks, label_rows, natural_ranks
from tfrecords_tools.tracklet_names import names_of


def cional(source: Path, *, annotations: Path | None = None) -> dict[str, Source]:
    """CION-AL: images in folders like SOURCE/sec1/..., and a JSON list of {"file_path": ..., "id": ...}.

    All become the split train. Ids that are whole numbers become identities as they are; if any is not, all are
    numbered in sorted order. A video is a folder, a tracklet is an id in it, and the last number in a file name is the
    frame. Images that are not in the list are left out, and counted.

    Args:
        source: The folder that the file paths are relative to.
        annotations: The JSON file; by default the only *.json in the source folder.
    """
    annotations = annotations or _only_json(source)
    paths, ids = columns(_entries(annotations), TEXT, TEXT)
    folders, _, _ = np.strings.rpartition(paths, np.array("/", TEXT))
    video = natural_ranks(folders)
    identity = _identities(ids)
    labels = label_rows(video, dense_ranks(video, identity), last_numbers(paths), identity=identity)
    names = names_of(labels, folders, ids)
    files = checked_files(source, paths, labels, f"the images that {annotations} lists", names)
    say_unlisted(source, paths)
    return {"train": files}


def _only_json(source: Path) -> Path:
    files = sorted(source.glob("*.json"))
    if len(files) != 1:
        raise UserError(f"{source}: holds {len(files)} *.json files; say with --annotations which one lists the images")
    return files[0]


def _entries(annotations: Path) -> Iterator[tuple[str, str]]:
    try:
        with open_file(annotations, "a JSON file was expected here") as file:
            entries = json.load(file)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{annotations}: is not usable JSON ({error}); download or write it again") from None
    expected = 'a list of {"file_path": text, "id": number or text} was expected'
    if not isinstance(entries, list):
        raise UserError(f"{annotations}: holds no list; {expected}")
    for number, entry in enumerate(entries, 1):
        match entry:
            case {"file_path": str(path), "id": int() | str() as identity} if not isinstance(identity, bool):
                yield str(PurePosixPath(path)), str(identity)
            case _:
                raise UserError(f"{annotations}: entry {number} lacks a key or has a wrong type; {expected}")


def _identities(ids: np.ndarray) -> np.ndarray:
    if all(re.fullmatch("-1|[0-9]{1,9}", text) for text in ids):
        return np.fromiter(map(int, ids), np.int64, len(ids))
    return natural_ranks(ids)

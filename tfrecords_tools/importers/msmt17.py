"""MSMT17, in both of its versions."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cion_jax.data.source import Source
from cion_jax.errors import UserError
from tfrecords_tools.files import TEXT, checked_files
from tfrecords_tools.importers.columns import columns
from tfrecords_tools.importers.lines import placed_lines
from tfrecords_tools.importers.names import numbers_in
from tfrecords_tools.importers.numbering import dense_ranks, label_rows, natural_ranks
from tfrecords_tools.notices import say

_LISTS = {"train": ("train", "val"), "query": ("query",), "gallery": ("gallery",)}
_FOLDERS = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}
_PATTERN = r"[0-9]{4}_[0-9]+_(?P<camera>[0-9]{2})_\w+_(?P<frame>[0-9]{4})_[0-9]+\w*"  # a few names end with _ex
_EXAMPLE = "0000_000_01_0303morning_0008_0.jpg"


def msmt17(source: Path) -> dict[str, Source]:
    """MSMT17: list_train.txt, list_val.txt, list_query.txt, list_gallery.txt and the images they list.

    Images stand in train and test (V1), or in mask_train_v2 and mask_test_v2 (V2). They become the splits train (with
    val), query and gallery. Identities and cameras keep their numbers: 0 is a person like any other here, not a
    distractor, and the number of a person in train is somebody else's in query and gallery. A video is what a camera
    filmed in one part of a day, a tracklet is a person in it.

    Args:
        source: The folder that holds the four lists.
    """
    version = _version(source)
    splits = {split: _split(source, split, version) for split in _LISTS}
    say(f"{source}: this is MSMT17 {version}")
    return splits


def _version(source: Path) -> str:
    """V1 or V2, by the folders that are there; lists of one with images of the other would be neither."""
    found = [version for version, folders in _FOLDERS.items() if any((source / name).is_dir() for name in folders)]
    if len(found) != 1:
        holds = "the folders of both versions" if found else "neither train and test nor mask_train_v2 and mask_test_v2"
        raise UserError(f"{source}: holds {holds}; leave those of one of them there, with its lists")
    return found[0]


def _split(source: Path, split: str, version: str) -> Source:
    folder = _FOLDERS[version][split != "train"]
    lists = [source / f"list_{name}.txt" for name in _LISTS[split]]
    paths, identity = columns((row for file in lists for row in _listed(file, folder)), TEXT, "<i4")
    numbers = numbers_in(source, paths, _PATTERN, _EXAMPLE)
    day_parts = np.fromiter((path.rpartition("/")[2].split("_")[3] for path in paths), TEXT, len(paths))
    video = dense_ranks(numbers["camera"], natural_ranks(day_parts))
    labels = label_rows(video, dense_ranks(video, identity), numbers["frame"], numbers["camera"], identity)
    return checked_files(source, paths, labels, f"lines like '0000/{_EXAMPLE} 0' in {lists[0].name}")


def _listed(file: Path, folder: str) -> Iterator[tuple[str, int]]:
    for place, line in placed_lines(file):
        match = re.fullmatch(r"(\S+) ([0-9]{1,9})", line)
        if match is None:
            raise UserError(f"{place}: {line[:80]!r} is not like '0000/{_EXAMPLE} 0'; mend or remove the line")
        yield f"{folder}/{match[1]}", int(match[2])

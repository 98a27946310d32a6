"""Shards that others wrote, as with `tf.io.TFRecordWriter`, become a dataset as they are, by an index and a card."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path

import numpy as np

from cion_jax.atomic import write_atomically
from cion_jax.data import adopted, dataset, example, tfrecord
from cion_jax.data.dataset import INDEX, Split
from cion_jax.data.example import ImageRecord
from cion_jax.data.labels import FIELDS
from cion_jax.data.tfrecord import FOOTER_BYTES, HEADER_BYTES
from cion_jax.data.workers import spread
from cion_jax.data.writer import part_path, unfinished
from cion_jax.errors import UserError
from cion_jax.npz import save_npy
from cion_jax.terminal import Progress, progress_bar
from cion_jax.untrusted import file_digest, open_file, read_text

#: How compressed files begin.
_COMPRESSED = {b"\x1f\x8b": "GZIP", b"\x78\x01": "ZLIB", b"\x78\x9c": "ZLIB", b"\x78\xda": "ZLIB"}
_MOST_NAMES = 20
_REMEDY = "name a folder of TFRecord shards"


def adopt(folder: Path, patterns: Mapping[str, str], features: Mapping[str, str], workers: int = 0) -> dict[str, Split]:
    """Give the shards in a folder an index and a card, or finish what a killed run of the same call began.

    Args:
        folder: Where the shards are.
        patterns: Which files are the shards of a split, by its name: `{"train": "*.tfrecord*"}`.
        features: What their features are called, by the names in `adopted.NAMED`.
        workers: Processes; 0 is one for each core.
    """
    shards = _shards(folder, patterns)
    sizes = {path.name: path.stat().st_size for paths in shards.values() for path in paths}
    asked = {"adopted": {"shards": dict(patterns), "features": dict(features)}, "sizes": sizes}
    if not _is_done(folder, asked):
        _index_shards(folder, shards, features, workers)
        _finish(folder, shards, features, asked)
    shutil.rmtree(unfinished(folder), ignore_errors=True)
    return dataset.read_card(folder)[0]


def _shards(folder: Path, patterns: Mapping[str, str]) -> dict[str, list[Path]]:
    """The files of each split, by name; none may be in two splits."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no folder is there; {_REMEDY}")
    shards = {
        split: sorted(path for path in folder.glob(pattern) if path.is_file()) for split, pattern in patterns.items()
    }
    for split, paths in shards.items():
        if Path(split).name != split or any(path.parent != folder for path in paths):
            raise UserError(f"--shards {split}={patterns[split]}: splits and shards have names without a folder")
        if not paths:
            there = ", ".join(sorted(path.name for path in folder.iterdir())[:_MOST_NAMES]) or "nothing"
            raise UserError(f"{folder}: no file is called {patterns[split]}, there is {there}; see --shards")
    names = [path for paths in shards.values() for path in paths]
    if twice := sorted({path.name for path in names if names.count(path) > 1}):
        raise UserError(f"{folder}: {twice[0]} would be in two splits; mend --shards")
    return shards


def _is_done(folder: Path, asked: dict) -> bool:
    """Whether the folder has been adopted like this; a dataset of another kind is refused, a beginning taken up."""
    if dataset.is_dataset(folder):
        plan = dataset.read_card(folder)[1]
        if {name: plan.get(name) for name in asked} != asked:
            raise UserError(f"{folder}: already is a dataset; remove {dataset.CARD} there to adopt the shards anew")
        return True
    begun = unfinished(folder) / "plan.json"
    text = json.dumps(asked)
    if begun.exists() and read_text(begun, _REMEDY) != text:
        shutil.rmtree(unfinished(folder))  # of other shards or features
    if not begun.exists():
        begun.parent.mkdir(exist_ok=True)
        write_atomically(begun, lambda path: path.write_text(text))
    return False


@dataclass(frozen=True)
class _Task:
    """One shard to read: all that a process is sent."""

    path: Path
    number: int
    features: Mapping[str, str]
    part: Path


def _index_shards(folder: Path, shards: Mapping[str, list[Path]], features: Mapping[str, str], workers: int) -> None:
    tasks = [
        _Task(path, number, features, part_path(folder, split, number))
        for split, paths in shards.items()
        for number, path in enumerate(paths)
    ]
    open_tasks = [task for task in tasks if not task.part.exists()]
    total = sum(task.path.stat().st_size for task in tasks)
    count = min(workers or len(os.sched_getaffinity(0)), max(len(open_tasks), 1))
    with progress_bar("reading shards", total) as advance:
        advance(total - sum(task.path.stat().st_size for task in open_tasks))
        spread(_index_shard, iter(open_tasks), count, advance)


def _index_shard(task: _Task, progress: Progress) -> None:
    """Read one shard and write its part of the index."""
    with open_file(task.path, _REMEDY) as file:
        rows = np.array([*_rows(file, task, progress)], INDEX)
    write_atomically(task.part, partial(save_npy, array=rows))


def _rows(file: BufferedReader, task: _Task, progress: Progress) -> Iterator[tuple]:
    """A row of the index for each record of a shard; checksums are checked, and images by their headers."""
    size = os.fstat(file.fileno()).st_size
    offset = 0
    while offset < size:
        try:
            payload, crc = _next_record(file, size - offset)
            record = _decoded(payload, task.features)
        except ValueError as error:
            raise UserError(f"{task.path} at byte {offset}: {error}") from None
        yield (offset, task.number, len(payload), crc, *(getattr(record, name) for name in FIELDS))
        framed = len(payload) + HEADER_BYTES + FOOTER_BYTES
        offset += framed
        progress(framed)


def _next_record(file: BufferedReader, left: int) -> tuple[bytes, int]:
    """The payload of the next record and its checksum, in a file of which so many bytes are left."""
    header = file.read(HEADER_BYTES)
    try:
        length = tfrecord.payload_length(header)
    except tfrecord.FrameError as error:
        if header[:2] in _COMPRESSED:
            kind = _COMPRESSED[header[:2]]
            raise ValueError(
                f"compressed with {kind}, where no record can be found without all before it; write the shards again "
                "without compression"
            ) from None
        raise ValueError(f"{error}; name only TFRecord shards, by --shards, or copy them again") from None
    if HEADER_BYTES + length + FOOTER_BYTES > left:
        raise ValueError("the shard ends within a record; copy it again")
    return tfrecord.unframe(header + file.read(length + FOOTER_BYTES))


def _decoded(payload: bytes, features: Mapping[str, str]) -> ImageRecord:
    """A record; where a feature is missing the error says which there are."""
    try:
        return adopted.decode(payload, features)
    except adopted.NoFeatureError as error:
        there = ", ".join(sorted(example.values_of(payload))[:_MOST_NAMES])
        raise ValueError(f"{error}; it has {there[:400]}; name them by --image-feature and its like") from None


def _finish(folder: Path, shards: Mapping[str, list[Path]], features: Mapping[str, str], asked: dict) -> None:
    """Join the parts of the index and write the card."""
    splits = {}
    for split, paths in shards.items():
        parts = [dataset.read_rows(part_path(folder, split, n), "repeat the command") for n in range(len(paths))]
        index = np.concatenate(parts)
        if not len(index):
            raise UserError(f"{folder}: the shards of {split} have no record; leave that split out")
        write_atomically(dataset.index_path(folder, split), partial(save_npy, array=index))
        size = sum(path.stat().st_size for path in paths)
        names = tuple(path.name for path in paths)
        splits[split] = Split(tuple(map(len, parts)), size, dataset.fingerprint(index), files=names, features=features)
    plan = asked | {"sources": {name: {"images": split.images} for name, split in splits.items()}}
    indices = [dataset.index_path(folder, split) for split in splits]
    files = {path.name: file_digest(path, "repeat the command") for path in indices}
    write_atomically(folder / dataset.CARD, lambda path: dataset.write_card(path, splits, plan, files))

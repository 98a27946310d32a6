"""Writing a dataset: parallel over shards, each finished whole or not at all, and taken up again after a kill.

Everything unfinished stands in OUT/.unfinished: the plan, a part of the index for each finished shard, and shards that
are being written. A shard counts as done once its index part is there. The card is written last.
"""

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cion_jax.config import Writing
from cion_jax.data import beam, dataset, example, images, tfrecord
from cion_jax.data.dataset import INDEX, Split
from cion_jax.data.files import claim, digest_of, exists, put, read, remove_folder, sole_writer
from cion_jax.data.labels import FIELDS
from cion_jax.data.source import Source
from cion_jax.data.tfrecord import FOOTER_BYTES, HEADER_BYTES
from cion_jax.data.workers import spread
from cion_jax.errors import UserError
from cion_jax.npz import save_npy
from cion_jax.terminal import Progress, progress_bar

#: Further files of a dataset by name, each with what fills it.
Beside = Mapping[str, Callable[[Path], object]]


def write_dataset(
    out: Path, splits: Mapping[str, Source], writing: Writing, beside: Beside | None = None
) -> dict[str, Split]:
    """Write sources as the splits of a new dataset folder, or finish what a killed run of the same call began.

    The same sources give the same bytes, however often the writing was interrupted and by however many workers.

    Args:
        out: The folder, on a disk or in a store.
        splits: The sources by the names of the splits.
        writing: How to write.
        beside: Further files; they are there when the card is.

    Returns:
        The splits as the card has them.
    """
    if writing.images_per_shard < 1:
        raise UserError(f"images per shard: {writing.images_per_shard} is not positive")
    sources = {name: source for name, source in splits.items() if len(source)}
    if not sources:
        raise UserError(f"{out}: nothing to write, there are no images")
    plan = {
        "images_per_shard": writing.images_per_shard,
        "sources": {name: {"images": len(s), "fingerprint": s.fingerprint()} for name, s in sources.items()},
    }
    is_left = _claim(out, plan)
    with sole_writer(out):
        if is_left:
            _write_shards(out, sources, writing)
            _finish(out, sources, plan, beside or {})
        remove_folder(unfinished(out))
    return dataset.read_card(out)[0]


def unfinished(out: Path) -> Path:
    """Where everything stands that is not finished."""
    return out / ".unfinished"


def part_path(out: Path, split: str, shard: int) -> Path:
    """The part of a split's index for one shard; it is there once the shard is done."""
    return unfinished(out) / f"{split}-{shard:05d}.npy"


def _shard_count(source: Source, images_per_shard: int) -> int:
    return -(-len(source) // images_per_shard)


def _claim(out: Path, plan: dict) -> bool:
    """Make the folder ours. True if there is something left to write; the folder of another dataset is refused."""
    card = out / dataset.CARD
    begun = unfinished(out) / "plan.json"

    def check(note: Path) -> None:
        advice = "choose another folder or delete this one"
        if note == card and dataset.read_card(out)[1] != plan:
            raise UserError(f"{out}: already holds another dataset; {advice}")
        if note == begun and read(note) != json.dumps(plan).encode():
            raise UserError(f"{out}: holds the beginning of another dataset; {advice}")

    note = claim(out, (card, begun), check)
    if note is None:
        put(begun, lambda path: path.write_text(json.dumps(plan)))
    return note != card


@dataclass(frozen=True)
class _Task:
    """One shard to write: all that a writing process is sent."""

    out: Path
    split: str
    shard: int
    shards: int
    source: Source
    skip_damaged: bool


def _tasks(out: Path, sources: Mapping[str, Source], writing: Writing) -> Iterator[_Task]:
    """What is left to write; lazily, so that only parts of sources under way exist twice."""
    size = writing.images_per_shard
    for split, source in sources.items():
        shards = _shard_count(source, size)
        for shard in range(shards):
            if not exists(part_path(out, split, shard)):
                part = source.part(shard * size, min((shard + 1) * size, len(source)))
                yield _Task(out, split, shard, shards, part, writing.skip_damaged)


def _write_shards(out: Path, sources: Mapping[str, Source], writing: Writing) -> None:
    tasks = _tasks(out, sources, writing)
    if writing.beam_runner:
        beam.spread(_write_shard, tasks, unfinished(out) / "shards", writing)
        return
    total = sum(map(len, sources.values()))
    shards = sum(_shard_count(source, writing.images_per_shard) for source in sources.values())
    workers = min(writing.workers or len(os.sched_getaffinity(0)), shards)
    with progress_bar("writing images", total) as advance:
        advance(total - sum(len(task.source) for task in _tasks(out, sources, writing)))
        spread(_write_shard, tasks, workers, advance)


def _write_shard(task: _Task, progress: Progress) -> None:
    """Write one shard aside, give it its name, then do the same with its part of the index."""
    rows = []

    def write(path: Path) -> None:
        with path.open("wb") as file:
            for labels, (encoded, name) in zip(task.source.labels, task.source.encoded(), strict=True):
                payload = _payload(labels, encoded, name, task.skip_damaged)
                if payload is not None:
                    framed, crc = tfrecord.frame(payload)
                    rows.append((file.tell(), task.shard, len(payload), crc, *labels))
                    file.write(framed)
                progress(1)

    shard = dataset.shard_path(task.out, task.split, task.shard, task.shards)
    aside = unfinished(task.out)
    put(shard, write, aside)
    put(part_path(task.out, task.split, task.shard), lambda path: save_npy(path, np.array(rows, INDEX)), aside)


def _payload(labels: np.void, encoded: bytes, name: str, skip_damaged: bool) -> bytes | None:
    """The payload of one image, decoded once to know that it can be; None where it is to be left out."""
    try:
        height, width, _ = images.decode(encoded).shape
    except images.ImageError as error:
        if skip_damaged:
            return None
        raise UserError(f"{name}: {error}; mend or remove it, or leave such images out with --skip-damaged") from None
    numbers = {field: int(labels[field]) for field in FIELDS}
    return example.encode(example.ImageRecord(encoded, height, width, **numbers, source=name))


def _finish(out: Path, sources: Mapping[str, Source], plan: dict, beside: Beside) -> None:
    """Join the index parts, tell TFDS, and write the card, which makes the dataset a finished one."""
    splits = {}
    for split, source in sources.items():
        shards = _shard_count(source, plan["images_per_shard"])
        again = f"delete {unfinished(out)} and repeat the command"
        parts = [dataset.read_rows(part_path(out, split, shard), again) for shard in range(shards)]
        index = np.concatenate(parts)
        put(dataset.index_path(out, split), functools.partial(save_npy, array=index))
        size = int(index["length"].sum(dtype=np.int64)) + len(index) * (HEADER_BYTES + FOOTER_BYTES)
        splits[split] = Split(tuple(map(len, parts)), size, dataset.fingerprint(index), len(source) - len(index))
    _tell_tfds(out, splits)
    for name, write in beside.items():
        put(out / name, write)
    names = (*(dataset.index_path(out, split).name for split in splits), *dataset.TFDS, *beside)
    files = {name: digest_of(out / name, "repeat the command") for name in names}
    put(out / dataset.CARD, lambda path: dataset.write_card(path, splits, plan, files))


def _tell_tfds(out: Path, splits: dict[str, Split]) -> None:
    from cion_jax.data.tfds_metadata import write_tfds_metadata  # a slow import that no writing process needs

    with tempfile.TemporaryDirectory() as folder:
        for name, split in splits.items():  # of the shards, TFDS looks at the names
            dataset.shard_path(Path(folder), name, 0, len(split.shards)).touch()
        write_tfds_metadata(Path(folder), splits)
        for name in dataset.TFDS:
            put(out / name, functools.partial(shutil.copyfile, Path(folder, name)))

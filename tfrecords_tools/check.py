"""Everything that can be wrong with a dataset folder, listed by shard and offset."""

import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cion_jax.data import dataset, images
from cion_jax.data.labels import FIELDS, fingerprint_of, read_labelling
from cion_jax.data.records import DamagedRecordError, Records
from cion_jax.data.tfrecord import FOOTER_BYTES, HEADER_BYTES
from cion_jax.errors import UserError
from cion_jax.terminal import progress_bar
from cion_jax.untrusted import check_file, check_is_file

#: So many examples of each kind of mistake in the labels are listed: one cause often spoils them all.
_EXAMPLES = 20
_AGAIN = "copy or write the dataset again"
#: No file of a disk is longer.
_MAX_OFFSET = 1 << 62


def problems(folder: Path) -> Iterator[str]:
    """One line for each thing that is wrong: shards, checksums, images, index, labels, and labellings beside them.

    A folder that is not a dataset, or whose card cannot be read, is a UserError.
    """
    splits = []
    yield from _card_problems(folder)
    for split in dataset.read_card(folder)[0]:
        try:
            splits.append(Records(folder, split, checked=False))
        except UserError as error:
            yield str(error)
    with progress_bar("checking images", sum(map(len, splits))) as advance, ThreadPoolExecutor() as pool:
        for records in splits:
            yield from _index_problems(records)
            check_shard = functools.partial(_shard_problems, records)
            for images_done, lines in pool.map(check_shard, range(len(records.card.shards))):
                advance(images_done)
                yield from lines
            yield from _label_problems(records)
    for path in sorted(folder.glob("*.npz")) if splits else ():
        yield from _labelling_problems(path, splits)


def without_digest(folder: Path) -> list[str]:
    """Names of those files of a dataset whose digests its card does not have, as an earlier release wrote it."""
    splits, _ = dataset.read_card(folder)
    metadata = () if any(split.files for split in splits.values()) else dataset.TFDS  # that of adopted shards is theirs
    names = (dataset.CARD, *metadata, *(dataset.index_path(folder, split).name for split in splits))
    return sorted({*names} - {*dataset.read_digests(folder)})


def _card_problems(folder: Path) -> Iterator[str]:
    """Whether the card agrees with its own plan, and with the files of the folder."""
    splits, plan = dataset.read_card(folder)
    path = folder / dataset.CARD
    sources = plan.get("sources")
    for name, split in splits.items():
        source = sources.get(name) if isinstance(sources, dict) else None
        planned = source.get("images") if isinstance(source, dict) else None
        if planned != split.images + split.left_out:
            counts = f"{split.images:,} images and {split.left_out:,} left out"
            yield f"{path}: split {name} has {counts}, and {planned} were planned"
    for name, expected in dataset.read_digests(folder).items():
        if name == dataset.CARD:  # compared when it was read
            continue
        try:
            check_file(folder / Path(name).name, expected, _AGAIN)
        except UserError as error:
            yield str(error)
    shards = {path for name, split in splits.items() for path in dataset.shard_paths(folder, name, split)}
    for stray in sorted({*folder.glob(f"{dataset.NAME}-*.tfrecord-*")} - shards):
        yield f"{stray}: no shard of this dataset; move it away"


def _index_problems(records: Records) -> Iterator[str]:
    path = dataset.index_path(records.folder, records.split)
    yield from (f"{path}: {fault}" for fault in dataset.faults(records.index, records.card))


def _shard_problems(records: Records, shard: int) -> tuple[int, list[str]]:
    """Images looked at and what is wrong: records must stand end to end as the index says, each whole and decodable."""
    path = records.shard_path(shard)
    first = sum(records.card.shards[:shard])
    numbers = range(first, min(first + records.card.shards[shard], len(records)))
    try:
        check_is_file(path, f"its {len(numbers)} images are lost")
    except UserError as error:
        return len(numbers), [str(error)]
    size = path.stat().st_size
    lines = []
    end = 0
    for number in numbers:
        row = records.index[number]
        if row["offset"] != end:
            lines.append(f"{records.where(number)}: the record before it ends at byte {end}")
        end = int(row["offset"]) + int(row["length"]) + HEADER_BYTES + FOOTER_BYTES
        if row["length"] > size or row["offset"] > _MAX_OFFSET:
            lines.append(f"{records.where(number)}: no record of {row['length']:,} bytes is in {size:,} bytes")
        elif row["shard"] == shard:  # that it is not was said of the index
            lines.extend(_record_problems(records, number))
    if size != end:
        lines.append(f"{path} at byte {min(size, end)}: the shard has {size} bytes where the index describes {end}")
    return len(numbers), lines


def _record_problems(records: Records, number: int) -> Iterator[str]:
    try:
        record = records[number]
        height, width, _ = images.decode(record.image).shape
    except DamagedRecordError as error:
        yield str(error)
    except images.ImageError as error:
        yield f"{records.where(number)}: {error}"
    else:
        wrong = records.disagreements(number, record)
        if (record.height, record.width) != (height, width):
            wrong.append("size")
        if wrong:
            yield f"{records.where(number)}: the record disagrees with index or image about {', '.join(wrong)}"


def _label_problems(records: Records) -> Iterator[str]:
    """A tracklet belongs to one video and one camera, and is in one place at a time; numbers below -1 mean nothing."""
    index = records.index
    for name in FIELDS:
        for number in np.flatnonzero(index[name] < -1)[:_EXAMPLES]:
            yield f"{records.where(number)}: {name} {index[name][number]} is below -1"

    known = np.flatnonzero(index["tracklet"] >= 0)
    for name in ("video", "camera"):
        order = known[np.lexsort((index[name][known], index["tracklet"][known]))]
        same = index["tracklet"][order][1:] == index["tracklet"][order][:-1]
        for place in np.flatnonzero(same & (index[name][order][1:] != index[name][order][:-1]))[:_EXAMPLES]:
            yield f"{records.where(order[place + 1])}: tracklet {index['tracklet'][order[place]]} has several {name}s"

    framed = known[index["frame"][known] >= 0]
    order = framed[np.lexsort((index["frame"][framed], index["tracklet"][framed]))]
    pairs = index[order][["tracklet", "frame"]]
    for place in np.flatnonzero(pairs[1:] == pairs[:-1])[:_EXAMPLES]:
        tracklet, frame = pairs[place]
        yield f"{records.where(order[place + 1])}: tracklet {tracklet} is twice in frame {frame}"


def _labelling_problems(path: Path, splits: list[Records]) -> Iterator[str]:
    """A labelling kept beside the data must belong to one of its splits and name every image."""
    try:
        made_for = fingerprint_of(path)
        records = next((each for each in splits if each.card.fingerprint == made_for), splits[0])
        read_labelling(path, records.card.fingerprint, len(records))
    except UserError as error:
        yield str(error)

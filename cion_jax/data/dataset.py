"""One dataset = one folder: TFRecord shards, an index per split, and a card that is written last.

cion-train.tfrecord-00000-of-00004 ...   shards
cion-train.index.npy                     one row per image, memory-mapped
cion-train.tracklets.csv                 what the source calls its tracklets, where it has names for them
cion-train.boxes.npy                     of videos: where and when each image was cut out, and how sure the detector was
cion-train.doubles.npy                   of videos: tracklets of one person whom the tracker followed twice
cion.json                                the card: splits, counts, digests; without it the folder is unfinished
dataset_info.json, features.json         the same for TFDS

The card has digests of all other files and of itself: of an index also its fingerprint, which is compared whenever the
split is opened. An index has the checksum of each record in the shards.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.data.files import Folder, exists, is_remote, located, read
from cion_jax.data.labels import FIELDS, LABELS
from cion_jax.data.tfrecord import FOOTER_BYTES, HEADER_BYTES
from cion_jax.errors import UserError
from cion_jax.npz import map_npy, whole_header
from cion_jax.untrusted import MAX_JSON_BYTES, check_signed, parse_json, read_file, signed

NAME = "cion"
CARD = "cion.json"
TFDS = ("dataset_info.json", "features.json")
_FORMAT = 1
_AGAIN = "copy or write the dataset again"

#: Where the record of an image stands (`length` is that of its payload), the checksum of the payload, and the labels.
INDEX = np.dtype([("offset", "<u8"), ("shard", "<u4"), ("length", "<u4"), ("crc", "<u4"), *LABELS.descr])
_CONTENT = ("length", "crc", *FIELDS)


@dataclass(frozen=True)
class Split:
    """One split as the card describes it."""

    shards: tuple[int, ...]
    """Images in each shard."""
    bytes: int
    """Size of all shards together."""
    fingerprint: str
    """Digest of the content, see `fingerprint`."""
    left_out: int = 0
    """Images of the source that did not decode and were left out on request."""
    files: tuple[str, ...] = ()
    """Names of the shards that others wrote; without any, `shard_path` tells them."""
    features: Mapping[str, str] = field(default_factory=dict)
    """What the features of such shards are called, by our names."""

    @property
    def images(self) -> int:
        return sum(self.shards)


def shard_path(folder: Path, split: str, shard: int, shards: int) -> Path:
    """Name of a shard file, as TFDS expects it."""
    return folder / f"{NAME}-{split}.tfrecord-{shard:05d}-of-{shards:05d}"


def shard_paths(folder: Path, name: str, split: Split) -> list[Path]:
    """The shard files of a split of that name."""
    if split.files:
        return [folder / file for file in split.files]
    return [shard_path(folder, name, shard, len(split.shards)) for shard in range(len(split.shards))]


def index_path(folder: Path, split: str) -> Path:
    """Name of a split's index file."""
    return folder / f"{NAME}-{split}.index.npy"


def digest(*parts: object) -> str:
    """Hex digest of arrays, and of other things by their repr."""
    total = hashlib.sha256()
    for part in parts:
        data = np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else repr(part).encode()
        total.update(len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


def fingerprint(index: np.ndarray) -> str:
    """Digest of every image's payload checksum and labels, in order, whatever the sharding.

    It differs where sets differ by accident or progress; against a forger it is no signature.
    """
    total = hashlib.sha256()
    for start in range(0, len(index), 1 << 16):
        rows = index[start : start + (1 << 16)]
        for name in _CONTENT:
            total.update(np.ascontiguousarray(rows[name]).tobytes())
    return total.hexdigest()


def write_card(path: Path, splits: dict[str, Split], plan: dict, files: Mapping[str, str]) -> None:
    """Write the card, with a digest of itself.

    Args:
        path: Where.
        splits: What the dataset holds.
        plan: What the writer was asked to do, by which a repeated command knows its own work.
        files: SHA-256 of the other files by name, without the shards: each record of these has a checksum in the index.
    """
    parts = {name: {k: v for k, v in asdict(split).items() if v not in ((), {})} for name, split in splits.items()}
    card = {"format": _FORMAT, "splits": parts, "plan": plan, "files": dict(files)}
    path.write_text(json.dumps(signed(card), indent=1) + "\n")


def is_dataset(folder: Folder) -> bool:
    """Whether a finished dataset is there."""
    return exists(located(folder) / CARD)


def read_card(folder: Folder) -> tuple[dict[str, Split], dict]:
    """The splits and the plan of the dataset in a folder."""
    path, card = _read_card(folder)
    return {name: _split(path, name, split) for name, split in card["splits"].items()}, card["plan"]


def read_digests(folder: Folder) -> dict[str, str]:
    """What the card of a dataset has of digests: by the name of a file, its own among them. Older cards have none."""
    _, card = _read_card(folder)
    return {**card.get("files", {}), **({CARD: card["digest"]} if "digest" in card else {})}


def _read_card(folder: Folder) -> tuple[Path, dict[str, Any]]:
    path = located(folder) / CARD
    try:
        text = read(path) if is_remote(path) else read_file(path, _AGAIN, MAX_JSON_BYTES)
    except (FileNotFoundError, UserError) as error:
        if isinstance(error, UserError) and exists(path):
            raise
        remedy = "name a folder that `cion data` wrote, or repeat the command that was to write it"
        raise UserError(f"{folder}: no finished dataset here ({CARD} is missing); {remedy}") from None
    card = parse_json(text, path, _AGAIN)
    if card.get("format") != _FORMAT:
        raise UserError(f"{path}: format {card.get('format')!r} is not {_FORMAT}; update cion_jax")
    check_signed(card, path)
    return path, parse_json(text, path, _AGAIN, {"splits": dict, "plan": dict, "files": dict}, ("splits", "plan"))


def _split(path: Path, name: str, split: Any) -> Split:
    """One split of a card, whose counts are counts."""
    try:
        lists = {key: tuple(split[key]) for key in ("shards", "files") if key in split}
        result = Split(**{**split, **lists})
        counts = [*result.shards, result.bytes, result.left_out]
        if any(type(count) is not int or not 0 <= count < 1 << 62 for count in counts):
            raise ValueError("counts are not whole numbers from 0")
        if type(result.fingerprint) is not str or not _is_name(name):
            raise ValueError("a fingerprint or a name is none")
        if ("files" in split or "features" in split) and not _is_adopted(result):
            raise ValueError("files and features are not those of shards that others wrote")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: unreadable (split {name!a}: {error}); {_AGAIN}") from None
    return result


def _is_name(name: object) -> bool:
    """Whether it names a file of a folder, and leads nowhere else."""
    return type(name) is str and Path(name).name == name


def _is_adopted(split: Split) -> bool:
    """Whether each shard has a name, and features have theirs."""
    if len(split.files) != len(split.shards) or type(split.features) is not dict or "image" not in split.features:
        return False
    return all(map(_is_name, split.files)) and all(type(name) is str for name in split.features.values())


def read_index(folder: Folder, split: str) -> np.ndarray:
    """The index of a split, one row of `INDEX` per image: mapped into memory, or fetched from an object store.

    `faults` says whether it is the index that the card describes.
    """
    return read_rows(index_path(located(folder), split), _AGAIN)


def read_rows(path: Path, remedy: str) -> np.ndarray:
    """The rows of `INDEX` in a file, which must hold nothing else; `remedy` ends the line that refuses another file."""
    rows = _fetch_rows(path, remedy) if is_remote(path) else map_npy(path, remedy)
    if rows.dtype != INDEX or rows.ndim != 1:
        raise UserError(f"{path}: not an index of this format; {remedy}")
    return rows


def _fetch_rows(path: Path, remedy: str) -> np.ndarray:
    """The array in an .npy in an object store, of one dimension."""
    try:
        stored = read(path)
        header = whole_header(io.BytesIO(stored))
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{path}: not there or damaged ({error}); {remedy}") from None
    return np.frombuffer(stored, header.dtype, offset=len(stored) - header.nbytes)


def faults(index: np.ndarray, split: Split) -> Iterator[str]:
    """What of an index is not as the card describes the split. Without any, every number in it is the writer's own."""
    if len(index) != split.images:
        yield f"{len(index):,} rows for {split.images:,} images"
        return
    if fingerprint(index) != split.fingerprint:
        yield f"not the content that {CARD} describes (fingerprints differ)"
    parts = np.split(index, np.cumsum(split.shards)[:-1])
    if any((part["shard"] != shard).any() for shard, part in enumerate(parts)):
        yield f"images are not in the shards that {CARD} describes"
    sizes = [part["length"].astype(np.int64) + HEADER_BYTES + FOOTER_BYTES for part in parts]
    if any((part["offset"] != np.cumsum(size) - size).any() for part, size in zip(parts, sizes, strict=True)):
        yield "records do not stand end to end in their shards"
    if (total := sum(int(size.sum()) for size in sizes)) != split.bytes:
        yield f"records have {total:,} bytes where {CARD} says {split.bytes:,}"

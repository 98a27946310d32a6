"""One dataset = one folder: TFRecord shards, an index per split, and a card that is written last.

cion-train.tfrecord-00000-of-00004 ...   shards
cion-train.index.npy                     one row per image, memory-mapped
cion-train.tracklets.csv                 what the source calls its tracklets, where it has names for them
cion-train.boxes.npy                     of videos: where each image was cut out, and how sure the detector was
cion.json                                the card: splits, counts, fingerprints; without it the folder is unfinished
dataset_info.json, features.json         the same for TFDS
"""

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cion_jax.data.files import Folder, exists, is_remote, located, read
from cion_jax.data.labels import FIELDS, LABELS
from cion_jax.errors import UserError

NAME = "cion"
CARD = "cion.json"
_FORMAT = 1

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

    @property
    def images(self) -> int:
        return sum(self.shards)


def shard_path(folder: Path, split: str, shard: int, shards: int) -> Path:
    """Name of a shard file, as TFDS expects it."""
    return folder / f"{NAME}-{split}.tfrecord-{shard:05d}-of-{shards:05d}"


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


def write_card(path: Path, splits: dict[str, Split], plan: dict) -> None:
    """Write the card; `plan` is what the writer was asked to do, by which a repeated command knows its own work."""
    card = {"format": _FORMAT, "splits": {name: asdict(split) for name, split in splits.items()}, "plan": plan}
    path.write_text(json.dumps(card, indent=1) + "\n")


def is_dataset(folder: Folder) -> bool:
    """Whether a finished dataset is there."""
    return exists(located(folder) / CARD)


def read_card(folder: Folder) -> tuple[dict[str, Split], dict]:
    """The splits and the plan of the dataset in a folder."""
    path = located(folder) / CARD
    try:
        card = json.loads(read(path))
        if card["format"] != _FORMAT:
            raise UserError(f"{path}: format {card['format']!r} is not {_FORMAT}; update cion_jax")
        splits = {name: Split(**{**split, "shards": tuple(split["shards"])}) for name, split in card["splits"].items()}
        return splits, card["plan"]
    except FileNotFoundError:
        remedy = "name a folder that `cion data` wrote, or repeat the command that was to write it"
        raise UserError(f"{folder}: no finished dataset here ({CARD} is missing); {remedy}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: unreadable dataset card ({error!r}); write the dataset again") from None


def read_index(folder: Folder, split: str) -> np.ndarray:
    """The index of a split, one row of `INDEX` per image: mapped into memory, or fetched from an object store."""
    path = index_path(located(folder), split)
    try:
        stored: Any = io.BytesIO(read(path)) if is_remote(path) else path
        index = np.load(stored, mmap_mode=None if is_remote(path) else "r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: unreadable index ({error}); write the dataset again") from None
    if index.dtype != INDEX or index.ndim != 1:
        raise UserError(f"{path}: not an index of this format; write the dataset again")
    return index

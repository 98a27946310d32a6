"""A dataset written again: other shards, another order, another image size."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from cion_jax.config import Writing
from cion_jax.data import dataset, images
from cion_jax.data.boxes import BOXES_FILE, DOUBLES_FILE
from cion_jax.data.files import put
from cion_jax.data.labels import FIELDS, LABELS, read_labelling, write_labelling
from cion_jax.data.records import Records
from cion_jax.data.writer import Beside, write_dataset
from cion_jax.errors import UserError
from cion_jax.npz import map_npy, save_npy
from tfrecords_tools.notices import say
from tfrecords_tools.tracklet_names import names_file, read_names, write_names

Order = Literal["same", "shuffled", "grouped"]

_AGAIN = "copy the dataset again"


@dataclass(frozen=True)
class Repacked:
    """The images of a split in another order and perhaps another size, as a source for the writer."""

    records: Records
    numbers: np.ndarray
    size: tuple[int, int] | None
    """Height and width to resize to; None leaves the encoded bytes as they are."""

    @property
    def labels(self) -> np.ndarray:
        return self.records.index[list(FIELDS)][self.numbers].astype(LABELS)

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, start: int, stop: int) -> "Repacked":
        return replace(self, numbers=self.numbers[start:stop])

    def encoded(self) -> Iterator[tuple[bytes, str]]:
        for number in self.numbers:
            record = self.records[number]
            if wrong := self.records.disagreements(number, record):
                where = f"{self.records.where(number)}: the record disagrees with the index about {', '.join(wrong)}"
                raise UserError(f"{where}; see `cion data check`")
            if self.size in (None, (record.height, record.width)):
                yield record.image, record.source
            else:
                assert self.size is not None
                yield images.encode_jpeg(images.resize(self.records.pixels(number), *self.size)), record.source

    def fingerprint(self) -> str:
        return dataset.digest(self.records.card.fingerprint, self.size, self.numbers)


def new_order(labels: np.ndarray, order: Order, seed: int) -> np.ndarray:
    """Image numbers in the order to write them: as they are, shuffled, or by identity, identities shuffled.

    In a grouped order images without an identity come last.
    """
    if order == "same":
        return np.arange(len(labels))
    random = np.random.default_rng(seed)
    if order == "shuffled":
        return random.permutation(len(labels))
    values, identity = np.unique(labels, return_inverse=True)
    place = random.permutation(len(values))[identity]
    return np.lexsort((place, labels < 0))


def repack(
    folder: Path,
    out: Path,
    *,
    order: Order,
    seed: int,
    size: tuple[int, int] | None,
    labelling: Path | None,
    writing: Writing,
) -> dict[str, dataset.Split]:
    """Write every split of a dataset again, with what its source calls tracklets and with the boxes of its images; a
    labelling of its train split is carried over as OUT/labels.npz."""
    splits = {split: Records(folder, split) for split in dataset.read_card(folder)[0]}
    labels = {split: np.asarray(records.index["identity"]) for split, records in splits.items()}
    if labelling is not None:
        if "train" not in splits:
            raise UserError(f"{folder}: has no train split for the labels in {labelling}")
        labels["train"] = read_labelling(labelling, splits["train"].card.fingerprint, len(splits["train"]))
    if order == "grouped" and all((identities < 0).all() for identities in labels.values()):
        raise UserError(f"{folder}: no image has an identity to be grouped by; give --labels FILE")
    numbers = {split: new_order(labels[split], order, seed) for split in splits}
    sources = {split: Repacked(records, numbers[split], size) for split, records in splits.items()}
    written = write_dataset(out, sources, writing, _beside(folder, numbers, writing))
    if labelling is not None:
        carried = labels["train"][numbers["train"]]
        settings = {"carried over from": labelling.name}
        put(
            out / "labels.npz",
            lambda path: write_labelling(path, carried, written["train"].fingerprint, settings),
        )
    return written


def _beside(folder: Path, numbers: dict[str, np.ndarray], writing: Writing) -> Beside:
    """The tables that stand beside the index, in the new order."""
    named = {split: read_names(folder, split) for split in numbers}
    beside: Beside = {names_file(split): write_names(names) for split, names in named.items() if names}
    doubles = folder / DOUBLES_FILE
    if doubles.exists():
        beside = {**beside, DOUBLES_FILE: functools.partial(save_npy, array=map_npy(doubles, _AGAIN))}
    boxes = folder / BOXES_FILE
    if not boxes.exists():
        return beside
    if writing.skip_damaged:
        say(f"{boxes}: left behind, since with --skip-damaged it might not fit the images")
        return beside
    rows = map_npy(boxes, _AGAIN)
    if len(rows) != len(numbers["train"]):
        raise UserError(f"{boxes}: has {len(rows):,} boxes for {len(numbers['train']):,} images; {_AGAIN}")
    return {**beside, BOXES_FILE: functools.partial(save_npy, array=rows[numbers["train"]])}

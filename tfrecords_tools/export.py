"""Records as folders of images again: the bytes are those in the records.

Beside them a table, images.jsonl, keeps what folders have no place for; with it the importer of manifests reads all of
it back. Market-1501 has everything in its names.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import numpy as np

from cion_jax.atomic import sole_writer
from cion_jax.data import dataset
from cion_jax.data.labels import read_labelling
from cion_jax.data.records import Records
from cion_jax.errors import UserError
from cion_jax.terminal import progress_bar
from cion_jax.untrusted import read_json
from tfrecords_tools.importers.numbering import dense_ranks
from tfrecords_tools.notices import say_left_out
from tfrecords_tools.tracklet_names import read_names

Layout = Literal["tracklets", "identities", "market1501"]

#: The table in folders of tracklets and identities.
TABLE = "images.jsonl"
#: From what a folder was made.
_NOTE = ".exported.json"
_PNG = b"\x89PNG"
_MARKET = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
#: The largest numbers for which names as Market-1501 has them have digits.
_MARKET_LIMITS = {"identity": 9999, "camera": 99, "frame": 999_999}

#: Images of records with the paths to write them to, without an ending.
Places = Iterator[tuple[Records, int, str]]


def export(folder: Path, out: Path, *, layout: Layout, split: str, labelling: Path | None) -> int:
    """Write the images of a dataset into folders; the folder appears when all are there. Returns how many there are.

    A repeated call finds its own work done.

    Args:
        folder: A dataset folder.
        out: The folder to make.
        layout: tracklets, identities or market1501, see `cion data export`.
        split: Which split; market1501 has all of them.
        labelling: A file of identities for the split, or for train in market1501.
    """
    splits = dataset.read_card(folder)[0]
    prints = {name: splits[name].fingerprint for name in splits}
    made = dataset.digest(prints, layout, split, labelling.read_bytes() if labelling and labelling.is_file() else None)
    if out.exists():
        return _done_before(out, made)
    total = sum(splits[name].images for name in splits if layout == "market1501" or name == split)
    if layout == "market1501":
        places = _market(folder, labelling)
        rows = None
    else:
        records = Records(folder, split)
        people = _people(records, labelling) if labelling or layout == "identities" else records.index["identity"]
        places = _tracklets(records) if layout == "tracklets" else _identities(records, people)
        rows = _Rows(records, people)
    unfinished = out.with_name(f".{out.name}.unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    with sole_writer(unfinished):
        try:
            _empty(unfinished)  # of what a killed export has left
            written = _write(unfinished, places, total, rows)
            (unfinished / _NOTE).write_text(json.dumps({"made": made, "images": written}) + "\n")
            unfinished.replace(out)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return written


def _done_before(out: Path, made: str) -> int:
    """How many images there are, if a call like this one has written them; anything else is refused."""
    note = out / _NOTE
    if note.is_file():
        done = read_json(note, "choose another folder", {"made": str, "images": int}, ("made", "images"))
        if done["made"] == made:
            print(f"{out}: was finished before", file=sys.stderr)
            return done["images"]
    raise UserError(f"{out}: is there already; choose another folder or delete this one")


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


class _Rows:
    """What the table has of each image of a split."""

    def __init__(self, records: Records, people: np.ndarray):
        self.split = records.split
        self.index = records.index
        self.people = people
        names = read_names(records.folder, records.split)
        self.called = {tracklet: (video_name, name) for tracklet, _, video_name, name in names}

    def line(self, number: int, path: str) -> str:
        """The row of an image, in JSON."""
        row = self.index[number]
        # An image of no tracklet is one by itself.
        own = (str(row["video"]), str(row["tracklet"]) if row["tracklet"] >= 0 else path)
        video, tracklet = self.called.get(int(row["tracklet"]), own)
        texts = {"path": path, "video": video, "tracklet": tracklet, "split": self.split}
        numbers = {"frame": row["frame"], "camera": row["camera"], "identity": self.people[number]}
        return json.dumps(texts | {name: int(value) for name, value in numbers.items()}) + "\n"


def _write(folder: Path, places: Places, total: int, rows: _Rows | None) -> int:
    """Write the images, and a row of the table for each, if there is one; how many there are."""
    written = 0
    table = nullcontext() if rows is None else (folder / TABLE).open("w", encoding="utf-8")
    with table as lines, progress_bar("writing images", total) as advance:
        for records, number, place in places:
            image = records[number].image
            ending = ".png" if image.startswith(_PNG) else ".jpg"
            path = folder / f"{place}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
            if rows is not None and lines is not None:
                lines.write(rows.line(number, f"{place}{ending}"))
            advance(1)
            written += 1
    if not written:
        raise UserError(f"{folder}: nothing to write, no image is left")
    return written


def _name(records: Records, number: int) -> str:
    """Names that sort as the records stand, and end with the frame, as the importer of folders wants it."""
    frame = records.index["frame"][number]
    return f"{number:09d}" if frame < 0 else f"{number:09d}_{frame:09d}"


def _tracklets(records: Records) -> Places:
    index = records.index
    lonely = np.flatnonzero(index["tracklet"] < 0)
    say_left_out(records.folder, len(lonely), f"images of split {records.split} that belong to no tracklet")
    for number in np.flatnonzero(index["tracklet"] >= 0).tolist():
        row = index[number]
        yield records, number, f"video{row['video']:06d}/tracklet{row['tracklet']:08d}/{_name(records, number)}"


def _identities(records: Records, people: np.ndarray) -> Places:
    index = records.index
    say_left_out(
        records.folder, int(np.count_nonzero(people < 0)), f"images of split {records.split} without an identity"
    )
    for number in np.flatnonzero(people >= 0).tolist():
        tracklet = max(int(index["tracklet"][number]), 0)
        yield records, number, f"identity{people[number]:08d}/tracklet{tracklet:08d}/{_name(records, number)}"


def _people(records: Records, labelling: Path | None) -> np.ndarray:
    if labelling is not None:
        return read_labelling(labelling, records.card.fingerprint, len(records))
    people = np.asarray(records.index["identity"])
    if len(people) and (people < 0).all():
        raise UserError(f"{records.folder}: no image of split {records.split} has an identity; give --labels FILE")
    return people


def _market(folder: Path, labelling: Path | None) -> Places:
    splits = dataset.read_card(folder)[0]
    for split, name in _MARKET.items():
        if split in splits:
            records = Records(folder, split)
            people = _people(records, labelling if split == "train" else None)
            yield from _market_split(records, people, name)


def _market_split(records: Records, people: np.ndarray, name: str) -> Places:
    """Names like 0002_c1s1_000451_03: person, camera, which video of the camera, frame, which image in that frame."""
    index = records.index
    numbers = {"identity": people, "camera": index["camera"], "frame": index["frame"]}
    for field, most in _MARKET_LIMITS.items():
        least = -1 if field == "identity" else 0
        wrong = np.flatnonzero((numbers[field] < least) | (numbers[field] > most))
        if len(wrong):
            value = f"{field} {numbers[field][wrong[0]]}"
            raise UserError(f"{records.where(wrong[0])}: names of Market-1501 have no place for {value}; "
                            "export --layout tracklets or identities")  # fmt: skip
    video = _rank_within(index["camera"], index["video"]) + 1
    image = _rank_within(dense_ranks(people, index["camera"], video, index["frame"]), np.arange(len(index)))
    if len(index) and max(video.max(), image.max()) > 99:
        raise UserError(f"{records.folder}: names of Market-1501 have no place for more than 99 videos of a camera or "
                        "images of a person in a frame; export --layout tracklets or identities")  # fmt: skip
    for number, row in enumerate(index):
        person = "-1" if people[number] < 0 else f"{people[number]:04d}"
        where = f"c{row['camera']}s{video[number]}_{row['frame']:06d}_{image[number]:02d}"
        yield records, number, f"{name}/{person}_{where}"


def _rank_within(group: np.ndarray, value: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... for the different values in each group."""
    ranks = dense_ranks(group, value)
    _, inverse = np.unique(group, return_inverse=True)
    first = np.full(inverse.max(initial=-1) + 1, len(ranks))
    np.minimum.at(first, inverse, ranks)
    return ranks - first[inverse]

"""A gallery from a folder of features, with what is known of the images; and how it gets its graph."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cion_jax.data.dataset import digest, is_dataset, read_card
from cion_jax.data.files import is_remote
from cion_jax.data.labels import read_labelling
from cion_jax.errors import UserError
from cion_jax.evaluate import feature_store
from cion_jax.gallery import graph
from cion_jax.gallery.rows import encoded, make_rows
from cion_jax.gallery.search import exact_neighbours
from cion_jax.gallery.store import Gallery, Origin
from cion_jax.untrusted import parse_json, read_file
from tfrecords_tools.tracklet_names import read_names

if TYPE_CHECKING:
    from usearch.index import Index

#: Answers by which a graph is measured.
RECALL_AT = 10
#: The largest list of image paths, in bytes.
_LARGEST_NAMES = 1 << 32


def from_features(
    folder: Path, split: str, labelling: Path | None = None, data: str = "", weights: str = "", half: bool = False
) -> Gallery:
    """A gallery of the features of a split.

    Args:
        folder: What `cion embed` wrote.
        split: One of its splits.
        labelling: Who is who, as `cion denoise` writes it; without it the identities of the dataset, if it has any.
        data: Where the images are now; without it where they were embedded from.
        weights: Where the file of weights is now; without it where it was.
        half: Keep features in 16 bits.
    """
    card = feature_store.read_card(folder / feature_store.CARD)
    features, index = feature_store.read_features(folder, split)
    origin = _origin(folder, card, split, data, weights)
    fingerprint = origin.fingerprint
    people = index["identity"].astype(np.int64)
    if labelling is not None:
        people = read_labelling(labelling, fingerprint, len(index))
    elif split in ("query", "gallery"):
        people[people == 0] = -1  # distractors are many people
    rows = make_rows(
        index,
        index["number"],
        person=_people(people),
        path=_paths(folder / split, origin.data, len(index)),
        **_tracklet_names(origin, index["tracklet"]),
    )
    made = digest(card.get("files"), fingerprint, people, half)
    return Gallery(features.astype(np.float16) if half else features, rows, origin, made=made)


def graph_of(gallery: Gallery, before: Gallery | None = None) -> tuple["Index", float]:
    """A graph for approximate search, and the share of the ten nearest images that it finds.

    With `before`, the same gallery with fewer images, its graph is taken and the new images are added.
    """
    vectors = gallery.vectors()
    if before is not None and before.graph is not None:
        index = graph.extended(before.graph, vectors, len(before.rows))
    else:
        index = graph.build(vectors)
    sample = np.unique(np.linspace(0, len(vectors) - 1, graph.SAMPLE, dtype=int))
    exact = exact_neighbours(vectors, vectors[sample], min(RECALL_AT + 1, len(vectors)))
    return index, graph.recall(index, vectors, sample, exact)


def _origin(folder: Path, card: dict[str, Any], split: str, data: str, weights: str) -> Origin:
    """What the card of a folder of features says, with places that a user names instead."""
    fingerprint = feature_store.fingerprint_of(folder, split)
    places = {name: card["made_from"].get(name, "") for name in ("data", "weights")}
    if not all(isinstance(place, str) for place in places.values()):
        raise UserError(f"{folder / feature_store.CARD}: made_from is not paths; embed the images again")
    data = data or places["data"]
    if data and (is_remote(data) or is_dataset(data)):
        splits = read_card(data)[0]
        if split not in splits or splits[split].fingerprint != fingerprint:
            raise UserError(f"{data}: not the data that {folder} was made from; name that with --images")
    return Origin(
        backbone=card["backbone"],
        weights=card["weights"],
        weights_file=weights or places["weights"],
        image_size=tuple(card["image_size"]),
        flip=card["flip"],
        match_colours=card["match_colours"],
        precision=card["precision"],
        data=data,
        split=split,
        fingerprint=fingerprint,
    )


def _people(identity: np.ndarray) -> np.ndarray:
    """What people are called before they have names: by their numbers."""
    different, inverse = np.unique(identity, return_inverse=True)
    return encoded(["" if number < 0 else str(number) for number in different.tolist()])[inverse]


def _tracklet_names(origin: Origin, tracklet: np.ndarray) -> dict[str, np.ndarray]:
    """What the source calls the video and the tracklet of each image, where the dataset is there and has a table."""
    if not origin.data or not (is_remote(origin.data) or is_dataset(origin.data)):
        return {}
    names = read_names(origin.data, origin.split)
    different, inverse = np.unique(tracklet, return_inverse=True)
    known = [names.get(number, ("", "")) for number in different.tolist()]
    return {f"{kind}_name": encoded([pair[place] for pair in known])[inverse]
            for place, kind in enumerate(("video", "tracklet"))}  # fmt: skip


def _paths(part: Path, data: str, images: int) -> list[str]:
    """Where the files of images are that are in no dataset."""
    path = part / "names.json"
    if not path.exists():
        return []
    remedy = "embed the images again"
    text = read_file(path, remedy, _LARGEST_NAMES)
    names = parse_json(b'{"names": ' + text + b"}", path, remedy, {"names": list})["names"]
    if len(names) != images or not all(isinstance(name, str) and "\0" not in name for name in names):
        raise UserError(f"{path}: not a path for each of {images:,} images; {remedy}")
    return [str(Path(data, name)) for name in names]

"""The identities that denoising merged of the most tracklets, held against the truth: who is in them, and how much of
them is nobody."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cion_jax.data.records import Records
from cion_jax.demo.mistakes import percent, whom
from cion_jax.report.page import paragraph
from cion_jax.report.photos import Photo, photograph, strip
from tfrecords_tools.sheet import spread

#: Identities that are shown, and images of each.
ROWS, COLUMNS = 6, 10


class Merged(NamedTuple):
    """An identity of several tracklets."""

    label: int
    tracklets: int
    images: np.ndarray
    """Their numbers."""
    main: int
    """The person whom the most of them show; -1 if all show nobody."""
    of_main: int
    """Images of that person,"""
    of_others: int
    """of other people,"""
    of_nobody: int
    """and of nobody."""


def merged(labels: np.ndarray, tracklet: np.ndarray, truth: np.ndarray) -> list[Merged]:
    """All identities of several tracklets, those of the most first.

    Args:
        labels: (N,) who each image is said to show; -1 is nobody.
        tracklet: (N,) the tracklet of each image.
        truth: (N,) whom each image does show; -1 is nobody.
    """
    known = np.flatnonzero(labels >= 0)
    pairs = np.unique(np.stack([labels[known], tracklet[known]]), axis=1)
    tracklets = np.bincount(pairs[0])
    most_first = np.argsort(-tracklets, kind="stable")[: np.count_nonzero(tracklets > 1)]
    return [_merged(int(label), int(tracklets[label]), known[labels[known] == label], truth) for label in most_first]


def _merged(label: int, tracklets: int, images: np.ndarray, truth: np.ndarray) -> Merged:
    shown = truth[images]
    people, counts = np.unique(shown[shown >= 0], return_counts=True)
    of_main = int(counts.max(initial=0))
    main = int(people[counts.argmax()]) if of_main else -1
    return Merged(label, tracklets, images, main, of_main, int(counts.sum()) - of_main, int((shown < 0).sum()))


def merged_against_truth(records: Records, labels: np.ndarray, truth: np.ndarray) -> Iterator[str]:
    """What all of them hold, and those of the most tracklets in pictures."""
    groups = merged(labels, np.array(records.index["tracklet"]), truth)
    if not groups:
        yield paragraph("No identity has more than one tracklet.")
        return
    images = sum(len(group.images) for group in groups)
    counts = zip(*((group.of_main, group.of_others, group.of_nobody) for group in groups), strict=True)
    main, others, nobody = (percent(sum(each) / images) for each in counts)
    yield paragraph(
        f"{len(groups):,} identities are made of two tracklets or more. Of their {images:,} images {main} show the "
        f"identity's main person, {others} other people and {nobody} nobody. Here are those of the most tracklets; a "
        "dashed frame marks an image that does not show the main person."
    )
    for group in groups[:ROWS]:
        told = (
            f"Identity {group.label}, {group.tracklets} tracklets, {len(group.images)} images: {group.of_main} of "
            f"{whom(group.main)}, {group.of_others} of others, {group.of_nobody} of nobody."
        )
        yield strip(told, _photos(records, group, truth))


def _photos(records: Records, group: Merged, truth: np.ndarray) -> Iterator[Photo]:
    for number in spread(group.images, COLUMNS):
        kind = "right" if truth[number] == group.main >= 0 else "wrong"
        shows = whom(truth[number])
        yield Photo(photograph(records, number), f"image {number} of identity {group.label}: {shows}", shows, kind)

"""The identities that denoising merged from the most tracklets, compared with the truth: whom their images show."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from cion_jax.data.records import Records
from cion_jax.demo.mistakes import percent, whom
from cion_jax.report.page import paragraph
from cion_jax.report.photos import Photo, photograph, strip
from tfrecords_tools.sheet import spread

#: Identities that are shown.
ROWS = 6
#: Images of each.
COLUMNS = 10


class Merged(NamedTuple):
    """An identity of several tracklets."""

    label: int
    tracklets: int
    images: np.ndarray
    """The numbers of its images."""
    main: int
    """The person whom most of them show; -1 if all show nobody."""
    of_main: int
    """Images of that person,"""
    of_others: int
    """of other people,"""
    of_nobody: int
    """and of nobody."""


def merged(labels: np.ndarray, tracklet: np.ndarray, truth: np.ndarray) -> list[Merged]:
    """All identities of several tracklets, those of the most tracklets first.

    Args:
        labels: (N,) whom each image shows by the labelling; -1 is nobody.
        tracklet: (N,) the tracklet of each image.
        truth: (N,) whom each image truly shows; -1 is nobody.
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
    """What all merged identities hold, and those of the most tracklets in pictures."""
    identities = merged(labels, np.array(records.index["tracklet"]), truth)
    if not identities:
        yield paragraph("No identity has more than one tracklet.")
        return
    images = sum(len(identity.images) for identity in identities)
    main = percent(sum(identity.of_main for identity in identities) / images)
    others = percent(sum(identity.of_others for identity in identities) / images)
    nobody = percent(sum(identity.of_nobody for identity in identities) / images)
    yield paragraph(
        f"{len(identities):,} identities are made of two tracklets or more. Of their {images:,} images {main} show the "
        f"identity's main person, {others} other people and {nobody} nobody. Here are those of the most tracklets; a "
        "dashed frame marks an image that does not show the main person."
    )
    for identity in identities[:ROWS]:
        caption = (
            f"Identity {identity.label}, {identity.tracklets} tracklets, {len(identity.images)} images: "
            f"{identity.of_main} of {whom(identity.main)}, {identity.of_others} of others, "
            f"{identity.of_nobody} of nobody."
        )
        yield strip(caption, _photos(records, identity, truth))


def _photos(records: Records, identity: Merged, truth: np.ndarray) -> Iterator[Photo]:
    for number in spread(identity.images, COLUMNS):
        kind = "right" if truth[number] == identity.main >= 0 else "wrong"
        shows = whom(truth[number])
        yield Photo(photograph(records, number), f"image {number} of identity {identity.label}: {shows}", shows, kind)

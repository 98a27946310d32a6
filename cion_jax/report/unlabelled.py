"""People whom nobody has labelled, as a network sees them: tracklets, their neighbours in other videos, and a map.

A tracklet is the mean of the features of a few of its images and of their mirror images; the distance of two is
1 - cosine. Of large datasets a part is shown: all tracklets of some people.
"""

from collections.abc import Iterator
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from cion_jax.data.records import Records
from cion_jax.evaluate.embed import embed_all
from cion_jax.report.drawing import DARK, PALE
from cion_jax.report.maps import flattened
from cion_jax.report.page import paragraph, picture
from cion_jax.report.photos import Photo, photograph, strip
from cion_jax.run.learned import Chosen
from cion_jax.weights.file import Weights
from tfrecords_tools.sheet import spread

#: Tracklets that are looked at, at the most, and images of each.
TRACKLETS = 400
IMAGES = 4
#: Tracklets whose neighbours are shown, and how many of these.
ROWS = 8
NEIGHBOURS = 9
#: People in colour on the map: as many as colours can tell apart.
PEOPLE = 12
_MARKERS = "os^DvP*X"


class Seen(NamedTuple):
    """T tracklets as a network sees them."""

    vectors: np.ndarray
    """(T, D) unit vectors."""
    tracklet: np.ndarray
    """(T,) the number of each,"""
    video: np.ndarray
    """(T,) that of its video,"""
    person: np.ndarray
    """(T,) whom most of its images show by the labels; -1 where that is nobody."""
    image: np.ndarray
    """(T,) and that of the image in its middle."""
    of: int
    """Tracklets that there are in all."""


def tracklets_seen(weights: Weights, records: Records, labels: np.ndarray | None) -> Seen | None:
    """The tracklets of a split, or a part of them; None where there are none.

    Args:
        weights: The network.
        records: The split.
        labels: (N,) whom each image shows, -1 for nobody; None where there are no labels.
    """
    tracklet = np.array(records.index["tracklet"])
    numbers = np.unique(tracklet[tracklet >= 0])
    if not len(numbers):
        return None
    person = np.full(len(numbers), -1) if labels is None else _majority(numbers, tracklet, labels)
    some = _part(person)
    images = [spread(np.flatnonzero(tracklet == number), IMAGES) for number in numbers[some]]
    network = weights.network
    features = embed_all(
        network,
        weights.variables,
        Chosen(records, np.concatenate(images)),
        image_size=network.image_size,
        flip=True,
        batch=64,
    )
    ends = np.cumsum([len(each) for each in images])[:-1]
    means = np.stack([each.mean(axis=0) for each in np.split(features, ends)])
    vectors = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    middle = np.array([each[len(each) // 2] for each in images])
    return Seen(vectors, numbers[some], records.index["video"][middle], person[some], middle, len(numbers))


def _majority(numbers: np.ndarray, tracklet: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label that most images of each tracklet have."""
    pairs, counts = np.unique(np.stack([tracklet, labels]), axis=1, return_counts=True)
    order = np.lexsort((counts, pairs[0]))
    last = np.searchsorted(pairs[0][order], numbers, side="right") - 1  # the most frequent label of each
    return pairs[1][order][last]


def _part(person: np.ndarray) -> np.ndarray:
    """The tracklets to show: all, or those of people evenly spread, so that each is there with all it has."""
    if len(person) <= TRACKLETS:
        return np.arange(len(person))
    alone = person.max(initial=-1) + 1 + np.arange(len(person))
    names, who = np.unique(np.where(person < 0, alone, person), return_inverse=True)
    share = TRACKLETS / len(person)
    chosen = np.isin(who, spread(np.arange(len(names)), max(int(share * len(names)), 1)))
    return np.flatnonzero(chosen)[:TRACKLETS]


def neighbours(seen: Seen, records: Records) -> Iterator[str]:
    """Tracklets evenly spread, and beside each its nearest ones: those of other videos, if there are any."""
    several = len(np.unique(seen.video)) > 1
    where = "of other videos" if several else "that share no frame with it"
    yield paragraph(
        f"On the left a tracklet, beside it the nearest {where}, with their distance (1 - cosine of mean features)."
        + (" A tick: the labels take both for one person." if (seen.person >= 0).any() else "")
        + _of_how_many(seen)
    )
    may_link = _in_two_videos(seen) if several else _in_no_frame(seen, records)
    for row in spread(np.arange(len(seen.tracklet)), ROWS):
        distance = 1 - seen.vectors @ seen.vectors[row]
        order = [int(other) for other in np.argsort(distance, kind="stable") if may_link[row, other]][:NEIGHBOURS]
        own = Photo(photograph(records, seen.image[row]), f"{_name(seen, row)}, whose neighbours follow", "this one")
        yield strip(f"{_name(seen, row)}.".capitalize(), [own, *_places(seen, records, row, order, distance)])


def _in_two_videos(seen: Seen) -> np.ndarray:
    """(T, T) bool: tracklets of two videos."""
    return seen.video[:, None] != seen.video


def _in_no_frame(seen: Seen, records: Records) -> np.ndarray:
    """(T, T) bool: two tracklets that share no frame."""
    index = records.index
    frames = [np.unique(index["frame"][index["tracklet"] == number]) for number in seen.tracklet]
    apart = np.array([[not len(np.intersect1d(one, other)) for other in frames] for one in frames])
    return apart & ~np.eye(len(frames), dtype=bool)


def _places(seen: Seen, records: Records, row: int, order: list[int], distance: np.ndarray) -> Iterator[Photo]:
    for place, other in enumerate(order, 1):
        same = seen.person[other] == seen.person[row] >= 0
        mark = " ✓" if same else ""
        says = f"neighbour {place}: {_name(seen, other)}, distance {distance[other]:.3f}"
        caption = f"{distance[other]:.2f}{mark}"
        yield Photo(photograph(records, seen.image[other]), says, caption, "right" if same else "")


def _name(seen: Seen, row: int) -> str:
    label = f", person {seen.person[row]}" if seen.person[row] >= 0 else ""
    return f"tracklet {seen.tracklet[row]}, video {seen.video[row]}{label}"


def _of_how_many(seen: Seen) -> str:
    return f" {len(seen.tracklet):,} of {seen.of:,} tracklets are looked at." if len(seen.tracklet) < seen.of else ""


def map_of_tracklets(seen: Seen) -> Iterator[str]:
    """The plane in which tracklets vary the most; those of the people with the most tracklets in colour."""
    if len(seen.tracklet) < 3:
        yield paragraph("There are too few tracklets to draw a map of them.")
        return
    names, counts = np.unique(seen.person[seen.person >= 0], return_counts=True)
    shown = np.sort(names[counts > 1][np.argsort(-counts[counts > 1], kind="stable")[:PEOPLE]])
    points, shares = flattened(seen.vectors)
    coloured = (
        f"In colour, with their numbers, the {len(shown)} people of the most tracklets; the others in grey."
        if len(shown)
        else "No person has two tracklets by the labels, so all are in grey."
    )
    yield picture(
        _drawn(points, shares, seen.person, shown),
        f"Points in a plane: {len(points)} tracklets; those of one person lie together if the network knows them again",
        f"Each point is a tracklet. {coloured} The axes are the first two principal components of the tracklets' "
        f"features.{_of_how_many(seen)}",
    )


def _drawn(points: np.ndarray, shares: np.ndarray, person: np.ndarray, shown: np.ndarray) -> Figure:
    figure = Figure((4.4, 4.4), layout="constrained")
    axes = figure.subplots()
    rest = ~np.isin(person, shown)
    axes.scatter(points[rest, 0], points[rest, 1], s=12, c=PALE, linewidths=0)
    look: dict[str, Any] = {"s": 28, "edgecolors": DARK, "linewidths": 0.5}
    colours = colormaps["Paired"](np.arange(PEOPLE))
    for name, colour, marker in zip(shown, colours, cycle(_MARKERS), strict=False):
        own = points[person == name]
        axes.scatter(own[:, 0], own[:, 1], marker=marker, c=colour[None], **look)
        middlemost = own[np.linalg.norm(own - own.mean(axis=0), axis=1).argmin()]
        text = axes.annotate(str(name), middlemost, (3, 3), textcoords="offset points", weight="bold")
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])
    axes.set(xlabel=f"first axis, {shares[0]:.0%} of the variance", ylabel=f"second axis, {shares[1]:.0%}")
    axes.set_aspect("equal", adjustable="datalim")
    return figure

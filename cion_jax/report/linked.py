"""What denoising did, in photographs: tracklets that it merged or did not merge, and images that it dropped."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from cion_jax.data.records import Records
from cion_jax.denoise.clusters import Clusters
from cion_jax.denoise.denoise import Denoised
from cion_jax.denoise.inputs import TrackedFeatures
from cion_jax.denoise.noise import members
from cion_jax.denoise.sweep import share_frame
from cion_jax.report.page import beside, paragraph, table
from cion_jax.report.photos import Photo, photograph, strip
from tfrecords_tools.sheet import spread
from tfrecords_tools.tracklet_names import called, read_names

#: Identities that are shown.
IDENTITIES = 6
#: Tracklets of each that are shown.
TRACKLETS = 12
#: Dropped images that are shown.
DROPPED = 22
#: Pairs of tracklets that were not linked and are shown.
PAIRS = 8
#: Images of each tracklet of such a pair.
SIDE = 4
#: The nearest pairs are sought among at most so many tracklets.
AMONG = 1 << 13
#: Tracklets that are compared with the others at a time.
ROWS = 1 << 9


class _Lookup(NamedTuple):
    """Clusters know tracklets by row and images by place; this has the user's numbers of both, and photographs."""

    clusters: Clusters
    records: Records
    image: np.ndarray
    """(N,) the number of each image in the input."""
    label: np.ndarray
    """(N,) its identity."""
    tracklet: np.ndarray
    """(T,) the number of each tracklet."""
    video: np.ndarray
    """(T,) the number of its video."""
    called: Mapping[int, str]
    """What tracklets are called in the source of the records."""

    def source(self, row: int) -> str:
        return self.called.get(int(self.tracklet[row]), "")

    def name(self, row: int) -> str:
        source = f" ({self.source(row)})" if self.source(row) else ""
        return f"tracklet {self.tracklet[row]}, video {self.video[row]}{source}"

    def photo(self, place: int, says: str, caption: str) -> Photo:
        number = int(self.image[place])
        return Photo(photograph(self.records, number), f"image {number}, {says}", caption)


def _lookup(tracked: TrackedFeatures, denoised: Denoised, records: Records) -> _Lookup:
    clusters = denoised.clusters
    image = clusters.tracklets.place
    first = image[clusters.members.images[clusters.members.bounds[:-1]]]  # the first image of each tracklet
    names = called(read_names(records.folder, records.split), "tracklet")
    tracklet, video = tracked.tracklet[first], tracked.video[first]
    return _Lookup(clusters, records, image, denoised.labels[image], tracklet, video, names)


def merged_identities(tracked: TrackedFeatures, denoised: Denoised, records: Records) -> Iterator[str]:
    """The identities of the most tracklets: each tracklet as it was, and what level 1 and 2 changed in it."""
    lookup = _lookup(tracked, denoised, records)
    kept = lookup.clusters.members
    label = lookup.label[kept.images[kept.bounds[:-1]]]  # the identity of each tracklet
    tracklets = np.bincount(label[label >= 0])
    merged = np.argsort(-tracklets, kind="stable")[: min(IDENTITIES, np.count_nonzero(tracklets > 1))]
    if not len(merged):
        yield paragraph("No identity has more than one tracklet.")
        return
    yield paragraph(
        "Each tracklet is shown by the image nearest to its centroid. Dropped: images of the raw tracklet that level 1 "
        "left out. Adopted: images that a tracklet of the same video had dropped, and that fit this one."
    )
    counts = _counts(lookup.clusters)
    for identity in merged.tolist():
        yield from _identity(lookup, identity, np.flatnonzero(label == identity), counts)


def _counts(clusters: Clusters) -> np.ndarray:
    """(T, 4): the images of each raw tracklet, those that were dropped, those that were adopted, those at the end."""
    home = clusters.home
    raw = np.bincount(clusters.tracklets.tracklet)[clusters.members.names]
    after_level_1 = np.diff(clusters.members.bounds)
    end = np.bincount(home[home >= 0], minlength=len(raw))
    return np.stack([raw, raw - after_level_1, end - after_level_1, end], axis=1)


def _identity(lookup: _Lookup, identity: int, rows: np.ndarray, counts: np.ndarray) -> Iterator[str]:
    """An identity whose tracklets are in these rows: a photograph and a line of a table for each of them."""
    shown = rows[:TRACKLETS].tolist()
    images = counts[rows, -1].sum()
    videos = len(np.unique(lookup.video[rows]))
    first = "" if len(shown) == len(rows) else f"; the first {len(shown)} tracklets are shown"
    kept = lookup.clusters.members
    photos = []
    for row in shown:
        own = np.flatnonzero(kept.row == row)
        nearest = int(kept.images[own[kept.distance[own].argmin()]])
        says = f"identity {identity}, {lookup.name(row)}"
        photos.append(lookup.photo(nearest, says, f"tracklet {lookup.tracklet[row]}"))
    source = [(lookup.source(row),) if lookup.called else () for row in shown]
    names = ("tracklet", "video", "images", "dropped", "adopted", "kept", *(["in the source"] if lookup.called else []))
    lines = [
        (str(lookup.tracklet[row]), str(lookup.video[row]), *counts[row].tolist(), *own)
        for row, own in zip(shown, source, strict=True)
    ]
    caption = f"Identity {identity}: {len(rows):,} tracklets of {videos:,} videos, {images:,} images{first}"
    yield beside(strip(caption, photos), table(names, lines))


def dropped_images(tracked: TrackedFeatures, denoised: Denoised, records: Records) -> Iterator[str]:
    """Images that level 1 dropped, the farthest first."""
    lookup = _lookup(tracked, denoised, records)
    tracklets = lookup.clusters.tracklets
    home = lookup.clusters.home
    raw = members(tracklets.features, tracklets.tracklet)
    left_out = np.ones(len(home), bool)
    left_out[lookup.clusters.members.images] = False
    dropped = np.flatnonzero(left_out[raw.images])
    if not len(dropped):
        yield paragraph("No image was dropped.")
        return
    adopted = np.count_nonzero(left_out & (home >= 0))
    caption = (
        f"{len(dropped):,} images were dropped; tracklets of their videos adopted {adopted:,} of them. Here are those "
        f"farthest from the centroid of their raw tracklet, with this distance; sigma is {denoised.settings.sigma:.3g}."
    )

    def photos() -> Iterator[Photo]:
        for each in dropped[np.argsort(-raw.distance[dropped], kind="stable")][:DROPPED].tolist():
            place = int(raw.images[each])
            distance = raw.distance[each]
            fate = "adopted" if home[place] >= 0 else "nobody's"
            tracklet = tracked.tracklet[lookup.image[place]]
            says = f"dropped from tracklet {tracklet} at distance {distance:.3f}, then {fate}"
            yield lookup.photo(place, says, f"tracklet {tracklet}: {distance:.2f}, {fate}")

    yield strip(caption, photos())


def pairs_not_linked(tracked: TrackedFeatures, denoised: Denoised, records: Records) -> Iterator[str]:
    """The nearest pairs of tracklets that are of two identities, and why they are."""
    lookup = _lookup(tracked, denoised, records)
    clusters = lookup.clusters
    pairs, distances = nearest_apart(clusters)
    if not len(pairs):
        yield paragraph("No two tracklets are of two identities.")
        return
    if len(clusters.members.names) > AMONG:
        yield paragraph(f"Sought among {AMONG:,} tracklets that were drawn at random.")
    in_one_frame = share_frame(clusters, pairs)
    for (one, other), distance, shared in zip(pairs.tolist(), distances.tolist(), in_one_frame.tolist(), strict=True):
        why = _why_apart(denoised, one, other, distance, shared)
        photos = (
            lookup.photo(place, lookup.name(row), f"tracklet {lookup.tracklet[row]}")
            for row in (one, other)
            for place in spread(np.flatnonzero(clusters.home == row), SIDE)
        )
        names = f"{lookup.name(one)}, and {lookup.name(other)}"
        yield strip(f"T{names[1:]}: distance {distance:.3f}. {why}", photos)


def nearest_apart(clusters: Clusters, most: int = PAIRS) -> tuple[np.ndarray, np.ndarray]:
    """The nearest pairs of tracklets that are in two clusters, (pairs, 2) by row, and their distances, rising."""
    rows = np.sort(np.random.default_rng(0).permutation(len(clusters.members.names))[:AMONG])
    vectors = clusters.vectors[rows]
    cluster = clusters.cluster[rows]
    pairs = np.empty((0, 2), np.int64)
    distance = np.empty(0)
    for first in range(0, len(rows), ROWS):
        # Each row with those behind it: every pair is met once.
        distance_RxT = 1 - vectors[first : first + ROWS] @ vectors[first:].T
        in_two_RxT = np.triu(cluster[first : first + ROWS, None] != cluster[first:], 1)
        distance_RxT = np.where(in_two_RxT, distance_RxT, np.inf)
        smallest = np.argpartition(distance_RxT, min(most, distance_RxT.size) - 1, axis=None)[:most]
        one, other = np.unravel_index(smallest, distance_RxT.shape)
        # The nearest of these pairs and of those of earlier rows.
        pairs = np.concatenate([pairs, first + np.stack([one, other], axis=1)])
        distance = np.concatenate([distance, distance_RxT[one, other]])
        nearest = np.argsort(distance, kind="stable")[:most]
        pairs = pairs[nearest]
        distance = distance[nearest]
    is_pair = np.isfinite(distance)
    return rows[pairs[is_pair]], distance[is_pair]


def _why_apart(denoised: Denoised, one: int, other: int, distance: float, shared: bool) -> str:
    """Why two tracklets are of two identities, in words."""
    clusters = denoised.clusters
    tau = float(denoised.settings.tau)
    if shared:
        return "A frame shows both: they are two people."
    if distance >= tau:
        return f"They are farther apart than tau {tau:.3g}." if tau else "Nothing was linked."
    first = int(clusters.cluster[one])
    second = int(clusters.cluster[other])
    if clusters.cannot_link(first, second):
        return "A frame shows both of their identities: they are two people."
    average = float(clusters.distances_from(first, np.array([second]))[0])
    if average >= tau:
        return f"Their identities are {average:.3f} apart on average, more than tau {tau:.3g}."
    return "They were not compared: levels or the range did not reach so far."

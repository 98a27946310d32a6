"""What denoising did, in photographs: tracklets that it merged or left apart, and images that it dropped."""

from collections.abc import Iterator
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

#: Identities that are shown, and tracklets of each.
IDENTITIES, TRACKLETS = 6, 12
#: Dropped images that are shown, and pairs that were not linked, with so many images of each side.
DROPPED, PAIRS, SIDE = 22, 8, 4
#: The nearest pairs are sought among so many tracklets, and in so many rows at once.
AMONG, ROWS = 1 << 13, 1 << 9


class _Seen(NamedTuple):
    """Tracklets by their rows among the clusters, and images by their places there, in the user's numbers."""

    clusters: Clusters
    records: Records
    image: np.ndarray
    """(N,) where each image stands in the input."""
    label: np.ndarray
    """(N,) its identity."""
    tracklet: np.ndarray
    """(T,) the number of each tracklet,"""
    video: np.ndarray
    """(T,) and of its video."""

    def name(self, row: int) -> str:
        return f"tracklet {self.tracklet[row]}, video {self.video[row]}"

    def photo(self, place: int, says: str, caption: str) -> Photo:
        number = int(self.image[place])
        return Photo(photograph(self.records, number), f"image {number}, {says}", caption)


def _seen(tracked: TrackedFeatures, denoised: Denoised, records: Records) -> _Seen:
    clusters = denoised.clusters
    image = clusters.tracklets.place
    first = image[clusters.found.images[clusters.found.bounds[:-1]]]
    return _Seen(clusters, records, image, denoised.labels[image], tracked.tracklet[first], tracked.video[first])


def merged_identities(tracked: TrackedFeatures, denoised: Denoised, records: Records) -> Iterator[str]:
    """The identities of the most tracklets: what each tracklet was, and what became of it."""
    seen = _seen(tracked, denoised, records)
    found = seen.clusters.found
    label = seen.label[found.images[found.bounds[:-1]]]
    tracklets = np.bincount(label[label >= 0])
    merged = np.argsort(-tracklets, kind="stable")[: min(IDENTITIES, np.count_nonzero(tracklets > 1))]
    if not len(merged):
        yield paragraph("No identity has more than one tracklet.")
        return
    yield paragraph(
        "Each tracklet is shown by the image nearest to its centroid. Dropped: images of the raw tracklet that level 1 "
        "left out. Adopted: images that a tracklet of the same video had dropped, and that fit this one."
    )
    counts = _counts(seen.clusters)
    for identity in merged.tolist():
        yield from _identity(seen, identity, np.flatnonzero(label == identity), counts)


def _counts(clusters: Clusters) -> np.ndarray:
    """(T, 4) images of each raw tracklet, those that were dropped, those that were adopted, and those at the end."""
    found, home = clusters.found, clusters.home
    raw = np.bincount(clusters.tracklets.tracklet)[found.names]
    kept = np.diff(found.bounds)
    end = np.bincount(home[home >= 0], minlength=len(kept))
    return np.stack([raw, raw - kept, end - kept, end], axis=1)


def _identity(seen: _Seen, identity: int, rows: np.ndarray, counts: np.ndarray) -> Iterator[str]:
    shown = rows[:TRACKLETS]
    images, videos = counts[rows, -1].sum(), len(np.unique(seen.video[rows]))
    first = "" if len(shown) == len(rows) else f"; the first {len(shown)} tracklets are shown"
    told = f"Identity {identity}: {len(rows):,} tracklets of {videos:,} videos, {images:,} images{first}"
    found = seen.clusters.found
    photos = []
    for row in shown.tolist():
        here = np.flatnonzero(found.row == row)
        nearest = int(found.images[here[found.distance[here].argmin()]])
        says = f"identity {identity}, {seen.name(row)}"
        photos.append(seen.photo(nearest, says, f"tracklet {seen.tracklet[row]}"))
    names = ("tracklet", "video", "images", "dropped", "adopted", "kept")
    lines = [(str(seen.tracklet[row]), str(seen.video[row]), *counts[row].tolist()) for row in shown.tolist()]
    yield beside(strip(told, photos), table(names, lines))


def dropped_images(tracked: TrackedFeatures, denoised: Denoised, records: Records) -> Iterator[str]:
    """Images that level 1 dropped, the farthest first."""
    seen = _seen(tracked, denoised, records)
    tracklets, home = seen.clusters.tracklets, seen.clusters.home
    raw = members(tracklets.features, tracklets.tracklet)
    left_out = np.ones(len(home), bool)
    left_out[seen.clusters.found.images] = False
    dropped = np.flatnonzero(left_out[raw.images])
    if not len(dropped):
        yield paragraph("No image was dropped.")
        return
    adopted = np.count_nonzero(left_out & (home >= 0))
    told = (
        f"{len(dropped):,} images were dropped; tracklets of their videos adopted {adopted:,} of them. Here are those "
        f"farthest from the centroid of their raw tracklet, with this distance; sigma is {denoised.settings.sigma:.3g}."
    )

    def photos() -> Iterator[Photo]:
        for each in dropped[np.argsort(-raw.distance[dropped], kind="stable")][:DROPPED].tolist():
            place, distance = int(raw.images[each]), raw.distance[each]
            fate = "adopted" if home[place] >= 0 else "nobody's"
            tracklet = tracked.tracklet[seen.image[place]]
            says = f"dropped from tracklet {tracklet} at distance {distance:.3f}, then {fate}"
            yield seen.photo(place, says, f"tracklet {tracklet}: {distance:.2f}, {fate}")

    yield strip(told, photos())


def pairs_not_linked(tracked: TrackedFeatures, denoised: Denoised, records: Records) -> Iterator[str]:
    """The nearest pairs of tracklets that are of two identities, and why they are."""
    seen = _seen(tracked, denoised, records)
    clusters = seen.clusters
    pairs, distance = nearest_apart(clusters)
    if not len(pairs):
        yield paragraph("No two tracklets are of two identities.")
        return
    if len(clusters.found.names) > AMONG:
        yield paragraph(f"Sought among {AMONG:,} tracklets that were drawn at random.")
    together = share_frame(clusters, pairs)
    for (one, other), apart, shared in zip(pairs.tolist(), distance.tolist(), together.tolist(), strict=True):
        why = _why_apart(denoised, one, other, apart, shared)
        photos = (
            seen.photo(place, seen.name(row), f"tracklet {seen.tracklet[row]}")
            for row in (one, other)
            for place in spread(np.flatnonzero(clusters.home == row), SIDE)
        )
        names = f"{seen.name(one)}, and {seen.name(other)}".capitalize()
        yield strip(f"{names}: distance {apart:.3f}. {why}", photos)


def nearest_apart(clusters: Clusters, most: int = PAIRS) -> tuple[np.ndarray, np.ndarray]:
    """The nearest pairs (pairs, 2) of tracklets in two clusters, by their rows, and their distances, which rise."""
    rows = np.sort(np.random.default_rng(0).permutation(len(clusters.found.names))[:AMONG])
    vectors, cluster = clusters.vectors[rows], clusters.cluster[rows]
    pairs, distance = np.empty((0, 2), np.int64), np.empty(0)
    for first in range(0, len(rows), ROWS):
        distance_RxT = 1 - vectors[first : first + ROWS] @ vectors[first:].T
        apart = np.triu(cluster[first : first + ROWS, None] != cluster[first:], 1)
        here = np.where(apart, distance_RxT, np.inf)
        one, other = np.unravel_index(np.argpartition(here, min(most, here.size) - 1, axis=None)[:most], here.shape)
        pairs = np.concatenate([pairs, first + np.stack([one, other], axis=1)])
        distance = np.concatenate([distance, here[one, other]])
        nearest = np.argsort(distance, kind="stable")[:most]
        pairs, distance = pairs[nearest], distance[nearest]
    real = np.isfinite(distance)
    return rows[pairs[real]], distance[real]


def _why_apart(denoised: Denoised, one: int, other: int, distance: float, shared: bool) -> str:
    """Why two tracklets are of two identities, in words."""
    clusters, tau = denoised.clusters, float(denoised.settings.tau)
    if shared:
        return "A frame shows both: they are two people."
    if distance >= tau:
        return f"They are farther apart than tau {tau:.3g}." if tau else "Nothing was linked."
    here, there = int(clusters.cluster[one]), int(clusters.cluster[other])
    if clusters.cannot_link(here, there):
        return "A frame shows both of their identities: they are two people."
    average = float(clusters.distances_from(here, np.array([there]))[0])
    if average >= tau:
        return f"Their identities are {average:.3f} apart on average, more than tau {tau:.3g}."
    return "They were not compared: levels or the range did not reach so far."

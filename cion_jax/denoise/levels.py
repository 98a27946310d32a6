"""Three levels of linking: within a tracklet, within a video, across videos.

1. A tracklet drops the image farthest from its centroid until all that stay are within sigma.
2. In a video, clusters of tracklets less than tau apart are merged, the closest first; then each image that was
   dropped gets one chance with the nearest tracklet of its video.
3. Clusters of all videos are merged the same way. With a range, clusters stand in a row, by video and tracklet, and
   only those within a range of so many neighbours are compared; as clusters become fewer, the range sees farther.

Two clusters that a frame shows both of are never merged (cannot-link).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from cion_jax.denoise.clusters import Clusters, merge_near
from cion_jax.denoise.inputs import Tracklets
from cion_jax.denoise.near import near
from cion_jax.denoise.noise import Members, Noise, noise, windows

#: Vectors of tracklets in which they are compared, (T, D), from the images that they kept.
Vectors = Callable[[Members], np.ndarray]


class Level(NamedTuple):
    """What a level made."""

    labels: np.ndarray
    """(N,) the first tracklet of each image's identity, -1 for none."""
    noise: Noise
    close: np.ndarray
    """(pairs, 2) identities less than tau apart, by their labels."""
    clusters: Clusters
    """What the next level goes on with, and changes."""


def run_levels(
    tracklets: Tracklets,
    raw: Members,
    cleaned: Members,
    vectors: Vectors,
    sigma: float,
    tau: float,
    within: int | None = None,
    levels: int = 3,
) -> Iterator[Level]:
    """What the raw tracklets are, and what each level makes of them.

    Args:
        tracklets: The images; their features as prepared.
        raw: All images of each tracklet.
        cleaned: Those that level 1 leaves them.
        vectors: From the images of tracklets to the unit vectors in which tracklets are compared.
        sigma: Largest distance of an image from the centroid of its tracklet.
        tau: Clusters less than this apart are merged.
        within: The range of level 3; None compares all.
        levels: How many to run.
    """

    def level(clusters: Clusters) -> Level:
        counted, pairs = noise(clusters.distance[clusters.home >= 0], clusters.means, sigma, tau, within)
        close = clusters.members.names[clusters.numbers[pairs]].reshape(-1, 2)
        return Level(clusters.labels(), counted, close, clusters)

    yield level(Clusters(tracklets, raw, vectors(raw)))
    clusters = Clusters(tracklets, cleaned, vectors(cleaned))
    yield level(clusters)
    if levels >= 2:
        merge_within_videos(clusters, tau)
        clusters.assign_strays(sigma)
        yield level(clusters)
    if levels >= 3:
        merge_until_stable(clusters, tau, within)
        yield level(clusters)


def merge_within_videos(clusters: Clusters, tau: float) -> None:
    """Merge clusters of one video."""
    video = clusters.video[clusters.numbers]
    _merge_round(clusters, tau, np.searchsorted(video, video, side="right"))


def merge_until_stable(clusters: Clusters, tau: float, within: int | None = None) -> None:
    """Merge clusters within a range, round by round, until none can be merged: as they become fewer it sees farther.

    Without a range one round does it, since average linkage is reducible.
    """
    while _merge_round(clusters, tau, windows(len(clusters.numbers), within)) and within is not None:
        pass


def _merge_round(clusters: Clusters, tau: float, ends: np.ndarray) -> bool:
    """Merge near clusters; `ends` says where the range of each ends, in their order. Whether any were merged."""
    numbers = clusters.numbers
    merge_near(clusters, numbers[near(clusters.means, ends, tau)], tau)
    return len(clusters.numbers) < len(numbers)

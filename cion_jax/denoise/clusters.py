"""Clusters of tracklets in the making, by average linkage with cannot-links.

The distance of two clusters is the mean distance of their tracklets, pair by pair. With S the sum of a cluster's unit
vectors and n their number that is 1 - (S_a / n_a).(S_b / n_b): means are not made unit vectors. It is never less than
the smaller of the distances to the two parts that a cluster was merged from (average linkage is reducible). So only
clusters with a pair of tracklets below tau can ever be near, and merging the closest first needs to look at no others.
"""

import heapq

import numpy as np

from cion_jax.denoise.inputs import UNKNOWN, Tracklets
from cion_jax.denoise.near import nearest
from cion_jax.denoise.noise import Members
from cion_jax.denoise.vectors import distances


class Clusters:
    """Clusters of tracklets, at the beginning one each; a cluster keeps the number of its first tracklet."""

    def __init__(self, tracklets: Tracklets, found: Members, vectors_TxD: np.ndarray):
        """`found` are the images that tracklets have kept, `vectors_TxD` the unit vectors of those tracklets."""
        self.tracklets, self.found, self.vectors = tracklets, found, vectors_TxD
        count = len(found.names)
        self.video = tracklets.videos[found.names]
        self.alive = np.ones(count, bool)
        self.cluster = np.arange(count)
        #: The tracklet of each image, by its row in `found`; -1 for those that belong to none.
        self.home = np.full(len(tracklets.tracklet), -1)
        self.home[found.images] = found.row
        #: How far each image is from the centroid of that tracklet.
        self.distance = np.zeros(len(tracklets.tracklet))
        self.distance[found.images] = found.distance
        self.sums = vectors_TxD.astype(np.float64)
        self.sizes = np.ones(count)
        self.parts = [[each] for each in range(count)]
        moments = np.split(tracklets.moment[found.images], found.bounds[1:-1])
        self.moments = [set(each.tolist()) - {UNKNOWN} for each in moments]
        #: Distances at which clusters were merged, with the two, in order.
        self.merges: list[tuple[float, int, int]] = []

    @property
    def numbers(self) -> np.ndarray:
        """The clusters that there are, in the order of their first tracklets."""
        return np.flatnonzero(self.alive)

    @property
    def means(self) -> np.ndarray:
        """(C, D) the mean vector of each of them."""
        numbers = self.numbers
        return self.sums[numbers] / self.sizes[numbers, None]

    def labels(self) -> np.ndarray:
        """(N,) the cluster of each image, as the number of its first tracklet; -1 for none."""
        first = self.found.names[self.cluster]
        return np.where(self.home >= 0, first[self.home], -1)

    def rows(self, labels: np.ndarray) -> np.ndarray:
        """The clusters that have these labels."""
        return np.searchsorted(self.found.names, labels)

    def cannot_link(self, one: int, other: int) -> bool:
        """Whether a frame shows both."""
        return not self.moments[one].isdisjoint(self.moments[other])

    def distances_from(self, one: int, others: np.ndarray) -> np.ndarray:
        """The distances of a cluster from others."""
        return 1 - (self.sums[others] @ self.sums[one]) / (self.sizes[others] * self.sizes[one])

    def merge(self, one: int, other: int, distance: float) -> None:
        """Make one cluster of two."""
        self.merges.append((distance, one, other))
        self.moments[one] |= self.moments[other]
        self.sums[one] += self.sums[other]
        self.sizes[one] += self.sizes[other]
        self.cluster[self.parts[other]] = one
        self.parts[one] += self.parts[other]
        self.parts[other], self.moments[other], self.alive[other] = [], set(), False

    def adopt_strays(self, sigma: float) -> None:
        """Give images that their tracklet dropped to the nearest tracklet of their video, each its one chance.

        It must be within sigma of that tracklet's centroid, and nobody else of the cluster be seen in its frame.
        """
        strays = np.flatnonzero(self.home < 0)
        where = self.tracklets.video[strays]
        centroids_TxD = self.found.centroids
        for video in np.unique(where):
            rows = np.arange(*np.searchsorted(self.video, [video, video + 1]))
            images = strays[slice(*np.searchsorted(where, [video, video + 1]))]
            if len(rows):
                features = self.tracklets.features[images]
                best = rows[nearest(features, centroids_TxD[rows])]
                self._adopt(images, best, distances(features, centroids_TxD[best]), sigma)

    def _adopt(self, images: np.ndarray, best: np.ndarray, distance: np.ndarray, sigma: float) -> None:
        for image, row, far in sorted(
            zip(images.tolist(), best.tolist(), distance.tolist(), strict=True), key=_by_last
        ):
            moment, seen = int(self.tracklets.moment[image]), self.moments[self.cluster[row]]
            if far <= sigma and moment not in seen:
                seen |= {moment} - {UNKNOWN}
                self.home[image], self.distance[image] = row, far


def _by_last(entry: tuple[int, int, float]) -> tuple[float, int]:
    return entry[2], entry[0]


def merge_near(clusters: Clusters, pairs: np.ndarray, tau: float) -> None:
    """Merge clusters less than tau apart, the closest first, unless they may not be linked.

    `pairs` (pairs, 2) are the clusters among which there may be such.
    """
    neighbours: dict[int, set[int]] = {}
    for one, other in pairs.tolist():
        if not clusters.cannot_link(one, other):  # nor may they be when they have grown
            neighbours.setdefault(one, set()).add(other)
            neighbours.setdefault(other, set()).add(one)
    age = np.zeros(len(clusters.alive), int)
    queue: list[tuple[float, int, int, int, int]] = []

    def look(one: int, others: list[int]) -> None:
        """Remember which of the others are near."""
        for other, distance in zip(others, clusters.distances_from(one, np.array(others, int)).tolist(), strict=True):
            if distance < tau:
                pair = min(one, other), max(one, other)
                heapq.heappush(queue, (distance, *pair, age[pair[0]], age[pair[1]]))

    for one in sorted(neighbours):
        look(one, sorted(other for other in neighbours[one] if other > one))
    while queue:
        distance, one, other, *ages = heapq.heappop(queue)
        if ages != [age[one], age[other]] or other not in neighbours.get(one, ()):
            continue
        clusters.merge(one, other, distance)
        age[one] += 1
        age[other] += 1
        around = (neighbours[one] | neighbours.pop(other)) - {one, other}
        for each in around:
            neighbours[each] -= {one, other}
        neighbours[one] = {each for each in around if not clusters.cannot_link(one, each)}
        for each in neighbours[one]:
            neighbours[each].add(one)
        look(one, sorted(neighbours[one]))

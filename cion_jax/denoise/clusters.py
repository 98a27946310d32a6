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

    def __init__(self, tracklets: Tracklets, members: Members, vectors_TxD: np.ndarray):
        """`members` are the images that tracklets have kept, `vectors_TxD` the unit vectors of those tracklets."""
        self.tracklets = tracklets
        self.members = members
        self.vectors = vectors_TxD
        count = len(members.names)
        images = len(tracklets.tracklet)

        # Of each tracklet, by its row in `members`:
        self.video = tracklets.videos[members.names]
        #: (T,) the cluster that it is in.
        self.cluster = np.arange(count)

        # Of each image:
        #: (N,) the tracklet that it is assigned to, by its row in `members`; -1 for those without.
        self.home = np.full(images, -1)
        self.home[members.images] = members.row
        #: (N,) how far it is from the centroid of that tracklet.
        self.distance = np.zeros(images)
        self.distance[members.images] = members.distance

        # Of each cluster, by its number; those that were merged into another are not alive.
        self.alive = np.ones(count, bool)
        self.sums = vectors_TxD.astype(np.float64)  # S
        self.sizes = np.ones(count)  # n
        self.parts = [[row] for row in range(count)]
        #: The frames that show it, as Tracklets.frame_key numbers them.
        self.frame_keys = [
            set(keys.tolist()) - {UNKNOWN}
            for keys in np.split(tracklets.frame_key[members.images], members.bounds[1:-1])
        ]
        #: Distances at which clusters were merged, with the two, in order.
        self.merges: list[tuple[float, int, int]] = []

    @property
    def numbers(self) -> np.ndarray:
        """(C,) the clusters that there are, in the order of their first tracklets."""
        return np.flatnonzero(self.alive)

    @property
    def means(self) -> np.ndarray:
        """(C, D) the mean vector of each of them, S / n."""
        numbers = self.numbers
        return self.sums[numbers] / self.sizes[numbers, None]

    def labels(self) -> np.ndarray:
        """(N,) the cluster of each image, as the number of its first tracklet; -1 for none."""
        first = self.members.names[self.cluster]
        return np.where(self.home >= 0, first[self.home], -1)

    def rows(self, labels: np.ndarray) -> np.ndarray:
        """The clusters that have these labels."""
        return np.searchsorted(self.members.names, labels)

    def cannot_link(self, one: int, other: int) -> bool:
        """Whether a frame shows both."""
        return not self.frame_keys[one].isdisjoint(self.frame_keys[other])

    def distances_from(self, one: int, others: np.ndarray) -> np.ndarray:
        """The distances of a cluster from others, 1 - (S_a / n_a).(S_b / n_b)."""
        return 1 - (self.sums[others] @ self.sums[one]) / (self.sizes[others] * self.sizes[one])

    def merge(self, one: int, other: int, distance: float) -> None:
        """Make one cluster of two; the first number stays."""
        self.merges.append((distance, one, other))
        self.cluster[self.parts[other]] = one
        self.sums[one] += self.sums[other]
        self.sizes[one] += self.sizes[other]
        self.parts[one] += self.parts[other]
        self.frame_keys[one] |= self.frame_keys[other]
        self.alive[other] = False
        self.parts[other] = []
        self.frame_keys[other] = set()

    def assign_strays(self, sigma: float) -> None:
        """Give images that their tracklet dropped to the nearest tracklet of their video, each its one chance.

        An image must be within sigma of that tracklet's centroid, and its frame must show nobody else of the cluster.
        """
        strays = np.flatnonzero(self.home < 0)
        video_of_stray = self.tracklets.video[strays]
        centroids_TxD = self.members.centroids
        for video in np.unique(video_of_stray):
            # Tracklets and strays of a video stand together.
            rows = np.arange(*np.searchsorted(self.video, [video, video + 1]))
            images = strays[slice(*np.searchsorted(video_of_stray, [video, video + 1]))]
            if len(rows):
                features = self.tracklets.features[images]
                best = rows[nearest(features, centroids_TxD[rows])]
                self._assign(images, best, distances(features, centroids_TxD[best]), sigma)

    def _assign(self, images: np.ndarray, best: np.ndarray, distance: np.ndarray, sigma: float) -> None:
        """Give images to their best tracklets, the closest first, where they may go."""
        for place in np.lexsort((images, distance)).tolist():
            image = int(images[place])
            row = int(best[place])
            frame_key = int(self.tracklets.frame_key[image])
            seen = self.frame_keys[self.cluster[row]]
            if distance[place] <= sigma and frame_key not in seen:
                seen |= {frame_key} - {UNKNOWN}
                self.home[image] = row
                self.distance[image] = distance[place]


def merge_near(clusters: Clusters, pairs: np.ndarray, tau: float) -> None:
    """Merge clusters less than tau apart, the closest first, unless they may not be linked.

    `pairs` (P, 2) are the clusters among which there may be such.
    """
    neighbours: dict[int, set[int]] = {}
    for one, other in pairs.tolist():
        if not clusters.cannot_link(one, other):  # nor may they be when they have grown
            neighbours.setdefault(one, set()).add(other)
            neighbours.setdefault(other, set()).add(one)
    # A pair in the queue is out of date once one of the two has been merged with a third; ages count merges.
    age = np.zeros(len(clusters.alive), int)
    queue: list[tuple[float, int, int, int, int]] = []

    def enqueue(one: int, others: list[int]) -> None:
        """Put those of the others that are near into the queue."""
        for other, distance in zip(others, clusters.distances_from(one, np.array(others, int)).tolist(), strict=True):
            if distance < tau:
                first, second = sorted((one, other))
                heapq.heappush(queue, (distance, first, second, age[first], age[second]))

    for one in sorted(neighbours):
        enqueue(one, sorted(other for other in neighbours[one] if other > one))
    while queue:
        distance, one, other, *ages = heapq.heappop(queue)
        if ages != [age[one], age[other]] or other not in neighbours.get(one, ()):
            continue
        clusters.merge(one, other, distance)
        age[one] += 1
        age[other] += 1
        # Whoever was a neighbour of either is one of the merged cluster, unless a frame shows both by now.
        around = (neighbours[one] | neighbours.pop(other)) - {one, other}
        for each in around:
            neighbours[each] -= {one, other}
        neighbours[one] = {each for each in around if not clusters.cannot_link(one, each)}
        for each in neighbours[one]:
            neighbours[each].add(one)
        enqueue(one, sorted(neighbours[one]))

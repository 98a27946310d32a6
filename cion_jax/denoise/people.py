"""Identities in the making: members, centroids, and which of them may become one.

The similarities of many centroids are worked out elsewhere, on devices; what is here goes pair by pair, in float64, and
looks at members one by one only when their distance from the old centroids leaves it open whether they fit the new one.
"""

import heapq
import math

import numpy as np

from cion_jax.denoise.near import nearest
from cion_jax.denoise.notion import Identities, distances, unit
from cion_jax.denoise.sightings import UNKNOWN, Sightings
from cion_jax.denoise.single import consistent, fitting

#: Of each of two groups that become one at least this share stays; the others belong to nobody then. To refuse a whole
#: merge for a few members that lie too far out would cost far more true pairs than it keeps.
STAYS = 0.8


class People:
    """Groups of images, at the beginning one for each tracklet; a group keeps the number of its first tracklet."""

    def __init__(self, sightings: Sightings, found: Identities):
        """`found` are those of tracklets that have images, by the tracklet's number; other images are nobody's."""
        self.features = sightings.features
        self.moment = sightings.moment
        first = sightings.bounds[:-1]
        self.video = sightings.video[first]
        self.alive = np.isin(np.arange(len(first)), found.names)
        self.members = [np.empty(0, np.int64)] * len(first)
        self.moments: list[set[int]] = [set() for _ in first]
        self.sums = np.zeros((len(first), self.features.shape[1]))
        self.centers = np.zeros_like(self.sums)
        #: The largest angle between a centroid and a member.
        self.reach = np.zeros(len(first))
        self._take(found)

    def _take(self, found: Identities) -> None:
        """Let groups be what was found under their numbers."""
        names, ends = found.names, np.flatnonzero(np.diff(found.member)) + 1
        for group, members in zip(names.tolist(), np.split(found.images, ends), strict=True):
            self.members[group], self.moments[group] = members, self._seen(members)
        self.sums[names], self.centers[names], self.reach[names] = found.sums, found.centers, 0
        np.maximum.at(self.reach, names[found.member], np.arccos(np.clip(1 - found.apart, -1, 1)))

    def _seen(self, members: np.ndarray) -> set[int]:
        """The moments of images. Those that a tracklet dropped do not count: they show somebody else, or nobody."""
        return set(self.moment[members].tolist()) - {UNKNOWN}

    def _measure(self, group: int) -> None:
        """Moments, centroid and reach from the members."""
        self.moments[group] = self._seen(self.members[group])
        features = self.features[self.members[group]].astype(np.float64)
        self.sums[group] = features.sum(axis=0)
        self.centers[group] = unit(self.sums[group])
        self.reach[group] = _angle((features @ self.centers[group]).min())

    @property
    def numbers(self) -> np.ndarray:
        """The groups that there are, in the order of their first tracklets."""
        return np.flatnonzero(self.alive)

    def labels(self) -> np.ndarray:
        """The group of each image, -1 for none."""
        labels = np.full(len(self.features), -1, np.int64)
        for group in self.numbers:
            labels[self.members[group]] = group
        return labels

    def join(self, one: int, other: int, sigma: float) -> str:
        """Make one group of two, or say why not: a moment has both ("met"), too many would not fit ("apart")."""
        if not self.moments[one].isdisjoint(self.moments[other]):
            return "met"
        total = self.sums[one] + self.sums[other]
        center, limit = unit(total), _angle(1 - sigma)
        reach = max(self.reach[each] + _angle(center @ self.centers[each]) for each in (one, other))
        members, first = np.concatenate([self.members[one], self.members[other]]), len(self.members[one])
        if reach > limit:  # which is only a bound: look at the members themselves
            reach = _angle((self.features[members].astype(np.float64) @ center).min())
        if reach <= limit:
            self.moments[one] |= self.moments[other]
            self.members[one] = members
            self.sums[one], self.centers[one], self.reach[one] = total, center, reach
        else:
            fits = fitting(self.features[members], sigma, STAYS * len(members))
            if min(fits[:first].mean(), fits[first:].mean()) < STAYS:
                return "apart"
            self.members[one] = members[fits]
            self._measure(one)
        self.members[other], self.alive[other] = members[:0], False
        return ""

    def adopt(self, strays: np.ndarray, videos: np.ndarray, sigma: float) -> np.ndarray:
        """Give images to the nearest group of their video, if they fit and nobody else of it is seen in their moment.

        Images stand in order, and `videos` says where they are from. Returns the groups that have grown; they are not
        yet consistent.
        """
        grown, numbers = set(), self.numbers
        home = self.video[numbers]
        for video in np.unique(videos):
            groups = numbers[slice(*np.searchsorted(home, [video, video + 1]))]
            images = strays[slice(*np.searchsorted(videos, [video, video + 1]))]
            if not len(groups):
                continue
            best = groups[nearest(self.features[images], self.centers[groups])]
            apart = distances(self.features[images], self.centers[best])
            for row in np.argsort(apart, kind="stable"):
                group, moment = best[row], self.moment[images[row]]
                if apart[row] > sigma:
                    break
                if moment in self.moments[group]:
                    continue
                self.moments[group] |= {moment} - {UNKNOWN}
                self.members[group] = np.append(self.members[group], images[row])
                grown.add(group)
        return np.array(sorted(grown), int)

    def recheck(self, groups: np.ndarray, sigma: float) -> None:
        """Let groups drop their worst until they are consistent."""
        if not len(groups):
            return
        labels = np.full(len(self.features), -1)
        for group in groups.tolist():
            labels[self.members[group]] = group
        self._take(consistent(self.features, labels, sigma))


def _angle(cosine: float) -> float:
    return math.acos(min(1.0, max(-1.0, cosine)))


def merge(people: People, pairs: np.ndarray, sigma: float, tau: float) -> dict[tuple[int, int], str]:
    """Join groups nearer than tau, the closest first, and return which pairs were refused, and why.

    `pairs` are the numbers of groups that may be near. Where two groups became one, its distances count from then on: a
    pair that was refused before may no longer be near, and others may be that are not among the pairs.
    """
    neighbours: dict[int, set[int]] = {}
    for one, other in pairs.tolist():
        neighbours.setdefault(one, set()).add(other)
        neighbours.setdefault(other, set()).add(one)
    apart = distances(people.centers[pairs[:, 0]], people.centers[pairs[:, 1]])
    age = np.zeros(len(people.alive), int)
    queue = [(d, *pair, 0, 0) for d, pair in zip(apart.tolist(), pairs.tolist(), strict=True) if d < tau]
    heapq.heapify(queue)
    refused: dict[tuple[int, int], str] = {}
    while queue:
        _, one, other, *ages = heapq.heappop(queue)
        if not (people.alive[one] and people.alive[other]) or ages != [age[one], age[other]]:
            continue
        if why := people.join(one, other, sigma):
            refused[one, other] = why
            continue
        age[one] += 1
        around = (neighbours[one] | neighbours.pop(other)) - {one, other}
        near = np.array(sorted(each for each in around if people.alive[each]), int)
        neighbours[one] = set(near.tolist())
        for each in near.tolist():
            neighbours[each].add(one)
        apart = 1 - people.centers[near] @ people.centers[one]
        for each, distance in zip(near.tolist(), apart.tolist(), strict=True):
            if distance < tau:
                pair = (min(one, each), max(one, each))
                heapq.heappush(queue, (distance, *pair, age[pair[0]], age[pair[1]]))
    return refused

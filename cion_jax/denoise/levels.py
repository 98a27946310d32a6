"""Three levels of seeking identities: within a tracklet, within a video, across videos; each to a fixed point.

1. A tracklet drops its worst member until it is consistent.
2. In a video, groups nearer than tau become one, the closest first; images that were dropped go to the nearest group
   that they fit, and groups drop again what does not. A dropped image gets one chance.
3. Groups of many videos stand in a row, by video and tracklet. A range of so many neighbours slides along it, in which
   groups nearer than tau become one, the closest first; as groups become fewer, the range sees farther.

Two groups never become one when a moment has images of both ("met"). Where members of theirs lie farther than sigma
from the centroid of both, these are dropped, if they are few; else the groups stay two ("apart").
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from cion_jax.denoise.near import near
from cion_jax.denoise.notion import Identities, Noise, identities, noise, windows
from cion_jax.denoise.people import People, merge
from cion_jax.denoise.sightings import Sightings
from cion_jax.denoise.single import consistent

#: Pairs of groups that may not become one, by the labels of both, and why: "met" or "apart".
Refused = dict[tuple[int, int], str]


class Level(NamedTuple):
    """What a level left."""

    labels: np.ndarray
    """(N,) the first tracklet of each image's person, -1 for none."""
    people: Identities
    """Who they are."""
    noise: Noise
    refused: Refused
    """Pairs of people nearer than tau that stay two: those that the level looked at."""


def climb(
    sightings: Sightings, sigma: float, tau: float, within: int | None = None, levels: int = 3
) -> Iterator[Level]:
    """What the raw tracklets are, and what each level makes of them."""

    def level(found: Identities, refused: Refused) -> Level:
        labels = np.full(len(sightings.tracklet), -1)
        labels[found.images] = found.names[found.member]
        return Level(labels, found, noise(found, sigma, tau, within), refused)

    yield level(sightings.raw, {})
    cleaned = consistent(sightings.features, sightings.tracklet, sigma)
    yield level(cleaned, {})
    people = People(sightings, cleaned)
    if levels >= 2:
        refused = settle_videos(people, sightings, sigma, tau)
        yield level(identities(sightings.features, people.labels()), refused)
    if levels >= 3:
        refused = settle(people, sigma, tau, lambda: windows(len(people.numbers), within))
        yield level(identities(sightings.features, people.labels()), refused)


def settle_videos(people: People, sightings: Sightings, sigma: float, tau: float) -> Refused:
    """Level 2: merge, give each dropped image its one chance, and merge again what that has brought nearer."""

    def ends() -> np.ndarray:
        video = people.video[people.numbers]
        return np.searchsorted(video, video, side="right")

    settle(people, sigma, tau, ends)
    strays = np.flatnonzero(people.labels() < 0)
    people.recheck(people.adopt(strays, sightings.video[strays], sigma), sigma)
    return settle(people, sigma, tau, ends)


def settle(people: People, sigma: float, tau: float, ends: Callable[[], np.ndarray]) -> Refused:
    """Merge until nothing that is near may be merged; `ends` says where each group's range ends, in their order."""
    while True:
        numbers = people.numbers
        refused = merge(people, numbers[near(people.centers[numbers], ends(), tau)], sigma, tau)
        if len(people.numbers) == len(numbers):
            return refused

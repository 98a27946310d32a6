"""Worlds of features, not images, with known identities: what denoising is tested and measured on.

A person is a direction. A tracker follows people through videos and sees, in each image,

    person + bias of the video + pose, which drifts along the walk + noise of the image

as a unit vector. It makes mistakes: it changes over to somebody else who is there (switch), loses and finds again
(fragment), and sees nobody at all (garbage). Some people look nearly like somebody else.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

#: Frames of a video.
FRAMES = 300
#: The shortest piece of a walk.
SHORTEST = 3


@dataclass(frozen=True)
class FeatureWorld:
    """How many there are, and how hard they are to tell apart; lengths are those of vectors beside a person's 1."""

    identities: int = 400
    videos: int = 60
    appearances: float = 4.0
    """Videos in which a person is seen, on average."""
    length: float = 20.0
    """Images of a walk, on average."""
    width: int = 128
    """Dimensions of a feature."""
    bias: float = 0.3
    """Length of what a video adds."""
    drift: float = 0.35
    """Length of what a pose adds."""
    noise: float = 0.45
    """Length of what each image adds."""
    look_alikes: float = 0.1
    """Share of people who look like somebody else, or somebody else like them."""
    difference: float = 0.6
    """Length of what two look-alikes differ by."""
    switches: float = 0.05
    """Share of walks with which the tracker begins to follow another person."""
    fragments: float = 0.3
    """Share of tracklets that are broken in two."""
    garbage: float = 0.05
    """Share of images that show no person."""
    seed: int = 0


class Sample(NamedTuple):
    """One row per image."""

    features: np.ndarray
    video: np.ndarray
    tracklet: np.ndarray
    frame: np.ndarray
    identity: np.ndarray
    """The truth; -1 where no person is seen."""


class Track(NamedTuple):
    """What a tracker believes to be one person's walk: one row per image."""

    features: np.ndarray
    frame: np.ndarray
    identity: np.ndarray

    def part(self, rows: slice | np.ndarray) -> "Track":
        """Some of its images."""
        return Track(*(values[rows] for values in self))


def draw(world: FeatureWorld) -> Sample:
    """Everything in a world; equal settings give equal numbers."""
    random = np.random.default_rng(world.seed)
    people = _people(world, random)
    seen_in = [
        random.choice(world.videos, min(1 + random.poisson(world.appearances - 1), world.videos), replace=False)
        for _ in people
    ]
    visitors: list[list[int]] = [[] for _ in range(world.videos)]
    for number, videos in enumerate(seen_in):
        for video in videos:
            visitors[video].append(number)
    tracks: list[tuple[int, Track]] = []
    for video, present in enumerate(visitors):
        bias = world.bias * _direction(random, world.width)
        walks = [_walk(world, random, number, people[number] + bias) for number in present]
        tracks += [(video, part) for walk in _switched(world, random, walks) for part in _broken(world, random, walk)]
    sizes = [len(track.frame) for _, track in tracks]
    whole = Track(*(np.concatenate(values) for values in zip(*(track for _, track in tracks), strict=True)))
    seen = np.repeat([video for video, _ in tracks], sizes)
    return Sample(whole.features, seen, np.repeat(np.arange(len(tracks)), sizes), whole.frame, whole.identity)


def _direction(random: np.random.Generator, *shape: int) -> np.ndarray:
    return _unit(random.standard_normal(shape))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _people(world: FeatureWorld, random: np.random.Generator) -> np.ndarray:
    people = _direction(random, world.identities, world.width)
    pairs = random.permutation(world.identities)[: int(world.look_alikes * world.identities) // 2 * 2].reshape(-1, 2)
    people[pairs[:, 1]] = _unit(people[pairs[:, 0]] + world.difference * people[pairs[:, 1]])
    return people


def _walk(world: FeatureWorld, random: np.random.Generator, number: int, looks: np.ndarray) -> Track:
    """A person's way through a video, from one pose to another."""
    length = min(max(SHORTEST, int(random.gamma(4, world.length / 4))), FRAMES)
    frame = random.integers(FRAMES - length + 1) + np.arange(length)
    begin, end = _direction(random, 2, world.width)
    time = np.linspace(0, 1, length)[:, None]
    pose = world.drift * _unit((1 - time) * begin + time * end)
    features = looks + pose + world.noise * _direction(random, length, world.width)
    nobody = random.random(length) < world.garbage
    features[nobody] = random.standard_normal((nobody.sum(), world.width))
    return Track(_unit(features).astype(np.float32), frame, np.where(nobody, -1, number))


def _switched(world: FeatureWorld, random: np.random.Generator, walks: list[Track]) -> list[Track]:
    """The tracks of walks, some of which have changed their ends with others of the same time."""
    tracks = list(walks)
    untouched = set(range(len(walks)))
    for one in range(len(walks)):
        if one not in untouched or random.random() >= world.switches:
            continue
        for other in random.permutation(sorted(untouched - {one})).tolist():
            common = np.intersect1d(walks[one].frame, walks[other].frame)
            if len(common) > 1:
                moment = random.choice(common[1:])
                tracks[one], tracks[other] = _crossed(walks[one], walks[other], moment)
                untouched -= {one, other}
                break
    return tracks


def _crossed(one: Track, other: Track, moment: int) -> tuple[Track, Track]:
    def joined(head: Track, tail: Track) -> Track:
        parts = head.part(head.frame < moment), tail.part(tail.frame >= moment)
        return Track(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    return joined(one, other), joined(other, one)


def _broken(world: FeatureWorld, random: np.random.Generator, track: Track) -> list[Track]:
    if len(track.frame) < 2 * SHORTEST or random.random() >= world.fragments:
        return [track]
    cut = random.integers(SHORTEST, len(track.frame) - SHORTEST + 1)
    return [track.part(slice(cut)), track.part(slice(cut, None))]

"""The plan of each split: which image shows whom, and how."""

import functools
from typing import NamedTuple

import numpy as np

from cion_jax.config import World
from cion_jax.data.labels import LABELS
from tfrecords_tools.world.cameras import draw_cameras
from tfrecords_tools.world.people import draw_people
from tfrecords_tools.world.streams import Stream, random
from tfrecords_tools.world.tables import dtype_of
from tfrecords_tools.world.tracker import GAPS, spoil, track
from tfrecords_tools.world.walks import Fault, Walk, film

NAMES = ("train", "query", "gallery")
CROWD = 3.0
"""People in view at the same time, on average over a training video."""
SPACING = 3
"""Steps between the images of a test walk: a gallery holds pictures that differ."""
PER_STRANGER = 4
"""Distractor images of the same stranger."""


class Cast(NamedTuple):
    """Who and what can be seen in a split."""

    people: np.ndarray
    cameras: np.ndarray


@functools.lru_cache(maxsize=8)
def cast(world: World, split: str) -> Cast:
    """The people and cameras of a split; the test splits share people who are not in training, strangers last."""
    cameras = draw_cameras(random(world.seed, Stream.CAMERAS), world.cameras)
    if split == "train":
        return Cast(draw_people(random(world.seed, Stream.PEOPLE), world.identities, world.look_alikes), cameras)
    held_out = draw_people(random(world.seed, Stream.HELD_OUT), world.test_identities, world.look_alikes)
    strangers = draw_people(random(world.seed, Stream.STRANGERS), -(-world.distractors // PER_STRANGER), 0.0)
    return Cast(np.concatenate([held_out, strangers]), cameras)


def plan_train(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Labels and shots of the training images."""
    rng = random(world.seed, Stream.TRAIN)
    walks = _train_walks(rng, world)
    segments = track(rng, walks, world.fragments, world.switches)
    # Each step of each segment is an image.
    length = segments["stop"] - segments["start"]
    segment = np.repeat(np.arange(len(segments)), length)
    step = segments["start"][segment] + _count_up(length)
    walk = segments["walk"][segment]
    tracklet = segments["tracklet"][segment]
    labels, order = _label(rng, walks, walk, step, tracklet)
    shots = film(rng, walks, cast(world, "train").cameras, walk[order], step[order], world.motion)
    spoil(rng, shots, world.bad_boxes, world.background, world.identities)
    return labels, shots


def _train_walks(rng: np.random.Generator, world: World) -> np.ndarray:
    """Each person walks once through several videos, preferring cameras not met before."""
    rounds = -(-world.videos // world.cameras)
    videos_RxC = np.arange(rounds * world.cameras).reshape(rounds, world.cameras)
    more = rng.poisson(world.appearances - 1, world.identities)
    pairs = []  # of person and video
    for person, visits in enumerate((1 + more).clip(max=world.videos)):
        order = rng.permuted(rng.permuted(videos_RxC, axis=0), axis=1).ravel()
        pairs += [(person, video) for video in order[order < world.videos][:visits]]
    walks = np.zeros(len(pairs), dtype_of(Walk))
    walks["person"], walks["video"] = np.array(pairs).T
    walks["camera"] = walks["video"] % world.cameras
    # Broken walks make two tracklets and lose a few images, so that walks are longer than tracklets.
    usual = world.length * (1 + world.fragments) + np.mean(GAPS) * world.fragments
    length = 2 + np.rint(rng.gamma(3, (usual - 2) / 3, len(walks))).astype(int)
    duration = np.maximum(np.bincount(walks["video"], length) / CROWD, length.max())[walks["video"]]
    walks["start"] = rng.random(len(walks)) * (duration - length + 1)
    walks["stop"] = walks["start"] + length
    return walks


def plan_test(world: World) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Labels and shots of the query and gallery images; test videos have the numbers of their cameras."""
    rng = random(world.seed, Stream.TEST)
    walks = _test_walks(rng, world)
    length = (walks["stop"] - walks["start"]) // SPACING
    walk = np.repeat(np.arange(len(walks)), length)
    inside = _count_up(length)
    step = walks["start"][walk] + SPACING * inside
    labels, order = _label(rng, walks, walk, step, walk)
    walk = walk[order]
    inside = inside[order]
    people, cameras = cast(world, "gallery")
    shots = film(rng, walks, cameras, walk, step[order], 0.0)
    spoil(rng, shots, world.bad_boxes, 0.0, len(people))
    labels["identity"] = np.where(shots["person"] < world.test_identities, 1 + shots["person"], 0)

    # Of each walk of a known person one image is the query, and of every fourth walk the next one is junk.
    known = labels["identity"] > 0
    asked = rng.integers(length)[walk]
    query = known & (inside == asked)
    junk = known & (inside == (asked + 1) % length[walk]) & (walk % 4 == 0)
    shots["fault"][query] = Fault.NONE
    shots["fault"][junk] = rng.choice([Fault.MISS, Fault.SCRAP], junk.sum())
    labels["identity"][junk] = -1
    # Some distractors show nobody.
    empty = ~known & (rng.random(len(labels)) < 0.1)
    shots["person"][empty] = -1
    return {"query": (_renumber(labels[query]), shots[query]), "gallery": (_renumber(labels[~query]), shots[~query])}


def _test_walks(rng: np.random.Generator, world: World) -> np.ndarray:
    """Each held-out person walks past two or more cameras, and each stranger past one."""
    pairs = []
    for person in range(world.test_identities):
        seen = rng.integers(2, min(world.cameras, 6) + 1)
        pairs += [(person, int(camera), int(rng.integers(4, 7))) for camera in rng.permutation(world.cameras)[:seen]]
    for stranger, first in enumerate(range(0, world.distractors, PER_STRANGER), world.test_identities):
        images = min(PER_STRANGER, world.distractors - first)
        pairs.append((stranger, int(rng.integers(world.cameras)), images))
    walks = np.zeros(len(pairs), dtype_of(Walk))
    walks["person"], walks["camera"], length = np.array(pairs, int).reshape(-1, 3).T
    walks["video"] = walks["camera"]
    walks["start"] = rng.integers(0, 2 * len(walks) + 1, len(walks))
    walks["stop"] = walks["start"] + SPACING * length
    return walks


def _label(
    rng: np.random.Generator, walks: np.ndarray, walk: np.ndarray, step: np.ndarray, tracklet: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Labels without identities in their order, and the order in which they take the images."""
    labels = np.zeros(len(walk), LABELS)
    stride = rng.integers(3, 9, walks["video"].max(initial=0) + 1)
    labels["video"] = walks["video"][walk]
    labels["camera"] = walks["camera"][walk]
    labels["identity"] = -1
    labels["frame"] = step * stride[labels["video"]]
    labels["tracklet"] = tracklet
    order = np.lexsort((step, tracklet, labels["video"]))
    return _renumber(labels[order]), order


def _renumber(labels: np.ndarray) -> np.ndarray:
    """The same labels with tracklets numbered 0, 1, ... in their order; equal numbers must be neighbours."""
    labels = labels.copy()
    labels["tracklet"] = np.cumsum(np.diff(labels["tracklet"], prepend=labels["tracklet"][:1]) != 0)
    return labels


def _count_up(lengths: np.ndarray) -> np.ndarray:
    """0, 1, ..., n-1 for each length n, one after another."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)

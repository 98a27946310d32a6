"""The order of training: batches of P identities x K images, each a pure function of (seed, epoch, labels, P, K).

Nothing is drawn one after the other. An epoch is laid out from a random order of the identities, a batch follows from
its number, and images within an identity are ordered by a keyed hash: a host finds its rows of any batch without
computing anybody else's. An epoch of an order is one pass over its images; a training may count longer or shorter
epochs, and then goes through the passes without a break.

A stream keeps to pieces of the shards, for stores in which reading here and there is slow: identities come piece by
piece, in random order of pieces and within each, and only the batches of a window are mixed with one another.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np

from cion_jax.errors import UserError


class WindowedShuffle(NamedTuple):
    """What makes an order a stream."""

    starts: np.ndarray
    """The number of the first image of each piece of the shards, as `shards.cut` finds it."""
    window: int
    """Batches that are mixed at the most."""


class PKSampler:
    """Which images stand where, for one labelling.

    An identity with m images fills ceil(m / K) groups of K an epoch, the last one topped up by repetition, so that each
    of its images is met at least once. A batch takes P groups of different identities; fewer than P of them get a group
    more in an epoch to fill the last batch. Two limits follow: an identity that would fill more groups than there are
    batches fills one per batch, with other images each epoch; and with fewer than P identities in all, a batch holds
    each as few times as it can.

    With a stream all of this holds but for one thing: an identity that fills more groups than a window has batches
    comes more often into some of them.
    """

    def __init__(
        self, labels: np.ndarray, identities: int, instances: int, seed: int = 0, stream: WindowedShuffle | None = None
    ):
        """`labels` has one identity per image (-1: left out); `identities` and `instances` are P and K."""
        self.identities, self.instances, self.seed = identities, instances, seed
        if identities < 1 or instances < 1:
            raise UserError(f"a batch of {identities} identities x {instances} images is empty; both must be positive")
        labels = np.asarray(labels)
        self.images = len(labels)
        self._images = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]
        if not len(self._images):
            raise UserError(f"none of {len(labels)} images has an identity, so there is nothing to draw")
        self._starts = np.flatnonzero(np.diff(labels[self._images], prepend=-1))
        self._sizes = np.diff(self._starts, append=len(self._images))
        groups = -(-self._sizes // instances)
        self._per_batch = -(-identities // len(groups))  # how often a batch must hold an identity, at the most
        self.batches = self._count_batches(groups)
        self._groups = np.minimum(groups, self._limit)
        self.stream = stream
        windows = 1 if stream is None else -(-self.batches // stream.window)
        self._edges = np.arange(windows + 1) * self.batches // windows
        if stream is not None:  # where each identity's images stand
            self._piece = np.searchsorted(stream.starts, self._images[self._starts], side="right") - 1
        self._layout = functools.lru_cache(maxsize=2)(self._lay_out)  # readers stand in one epoch, at its end in two

    @property
    def _limit(self) -> int:
        return self._per_batch * self.batches

    def _count_batches(self, groups: np.ndarray) -> int:
        """The fewest batches with room for all groups, when no identity fills more than its share of a batch."""
        low, high = 1, max(1, -(-int(groups.sum()) // self.identities))
        while low < high:
            middle = (low + high) // 2
            fits = np.minimum(groups, self._per_batch * middle).sum() <= middle * self.identities
            low, high = (low, middle) if fits else (middle + 1, high)
        return low

    def window(self, number: int) -> range:
        """The batches that are mixed with batch `number`: without a stream all of the epoch."""
        place = int(np.searchsorted(self._edges, number, side="right"))
        return range(*self._edges[place - 1 : place + 1].tolist())

    def batch(self, epoch: int, number: int, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Image numbers of batch `number` of an epoch: (P, K), an identity per row; or those of some rows alone."""
        layout = self._layout(epoch)
        window = self.window(number)
        shelves = window.start * self.identities + np.arange(self.identities)[rows] * len(window)
        places = shelves + layout.places[rows, number]
        rank = np.searchsorted(layout.ends, places, side="right")
        return self._members(epoch, layout.identities[rank], places - layout.starts[rank])

    def _lay_out(self, epoch: int) -> "_Layout":
        """Identities in random order, each followed by its next group, on P shelves of as many places as batches.

        Each window has its own shelves. A batch takes one place from each of them, at random. Only an identity that
        stands on several shelves could come into a batch more often than it must; where its groups on the last of them
        have room elsewhere they get it.
        """
        random = np.random.default_rng([self.seed, epoch])
        identities = random.permutation(len(self._groups))
        if self.stream is not None:
            piece = random.permutation(len(self.stream.starts))[self._piece]
            identities = identities[np.argsort(piece[identities], kind="stable")]
        groups = self._groups[identities]
        missing = self.batches * self.identities - int(groups.sum())
        while missing:  # the last batch is filled with one more group of some identities
            extra = np.flatnonzero(groups < self._limit)[:missing]
            groups[extra] += 1
            missing -= len(extra)
        ends = np.cumsum(groups)
        starts = ends - groups
        places = np.empty((self.identities, self.batches), np.int32)
        for first, last in itertools.pairwise(self._edges.tolist()):
            begin = first * self.identities
            places[:, first:last] = self._shelves(random, last - first, starts - begin, ends - begin)
        return _Layout(identities, starts, ends, places)

    def _shelves(self, random: np.random.Generator, batches: int, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The places that the batches of a window take on its shelves, over which groups stand from start to end."""
        shelves = np.broadcast_to(np.arange(batches, dtype=np.int32), (self.identities, batches))
        places = random.permuted(shelves, axis=1)
        for shelf in range(1, self.identities):
            begin = shelf * batches
            first = np.searchsorted(ends, begin, side="right")
            begun_on, begun_at = divmod(max(int(starts[first]), 0), batches)
            if begun_on < shelf:
                _keep_apart(places[shelf], int(ends[first]) - begin, places[begun_on] >= begun_at)
        return places

    def _members(self, epoch: int, identities: np.ndarray, group: np.ndarray) -> np.ndarray:
        """K images of each identity: those of its group number `group` in this epoch's order of its images."""
        sizes = self._sizes[identities]
        ends = np.cumsum(sizes)
        row = np.repeat(np.arange(len(sizes)), sizes)
        images = self._images[np.arange(ends[-1]) + np.repeat(self._starts[identities] - ends + sizes, sizes)]
        shuffled = images[np.lexsort((_hash(images, self.seed, epoch), row))]
        place = (group[:, None] * self.instances + np.arange(self.instances)) % sizes[:, None]
        return shuffled[place + (ends - sizes)[:, None]]


class _Layout(NamedTuple):
    identities: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    places: np.ndarray
    """For each shelf and batch, the place on the shelf that the batch takes."""


def _keep_apart(shelf: np.ndarray, first: int, taken: np.ndarray) -> None:
    """Give the first places of a shelf to batches that are not taken, by exchange, if there are enough of those."""
    wrong = np.flatnonzero(taken & (shelf < first))
    free = np.flatnonzero(~taken & (shelf >= first))[: len(wrong)]
    if len(free) == len(wrong):
        shelf[wrong], shelf[free] = shelf[free], shelf[wrong]


def _hash(values: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Values scattered over 64 bits, differently for every seed and epoch (the finaliser of SplitMix64)."""
    key = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    x = values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

"""The PK sampler: batches of P identities x K images, each a pure function of (seed, epoch, labels, P, K).

Nothing is drawn one after the other. An epoch is laid out from a random order of the identities, a batch follows from
its number, and the images of an identity are ordered by a keyed hash: a host finds its rows of any batch without
computing those of another. An epoch of the sampler is one pass over its images; a training may count longer or shorter
epochs, and then goes through the passes without a break.

A windowed shuffle reads the shards chunk by chunk, for stores in which reading here and there is slow: identities come
in random order of the chunks and within each chunk, and only the batches of a window are mixed with one another.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np

from cion_jax.errors import UserError


class WindowedShuffle(NamedTuple):
    """How a sampler keeps to long reads."""

    starts: np.ndarray
    """The number of the first image of each chunk of the shards, from `shards.chunk_starts`."""
    window: int
    """Batches that are mixed with one another, at the most."""


class PKSampler:
    """Which images stand where, for one labelling.

    An identity with m images fills ceil(m / K) groups of K in an epoch; the last one is topped up by repetition, so
    that each image is met at least once. A batch takes P groups of different identities. The last batch is filled with
    one group more of some identities. Two limits follow:

    - An identity with more groups than there are batches comes once in each batch, with other images each epoch.
    - With fewer than P identities in all, a batch holds each as few times as it can.

    A windowed shuffle adds a third: an identity with more groups than a window has batches comes more often into some
    of these batches.
    """

    def __init__(
        self, labels: np.ndarray, identities: int, instances: int, seed: int = 0, shuffle: WindowedShuffle | None = None
    ):
        """`labels` has one identity per image (-1: left out); `identities` and `instances` are P and K."""
        if identities < 1 or instances < 1:
            raise UserError(f"a batch of {identities} identities x {instances} images is empty; both must be positive")
        self.identities = identities
        self.instances = instances
        self.seed = seed
        self.shuffle = shuffle
        labels = np.asarray(labels)
        self.images = len(labels)

        # Images sorted by identity: those of identity i stand from _starts[i] on, _sizes[i] of them.
        self._images = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]
        if not len(self._images):
            raise UserError(f"none of {len(labels)} images has an identity, so there is nothing to draw")
        self._starts = np.flatnonzero(np.diff(labels[self._images], prepend=-1))
        self._sizes = np.diff(self._starts, append=len(self._images))

        groups = -(-self._sizes // instances)
        self._per_batch = -(-identities // len(groups))  # how often a batch must hold an identity, at the most
        self.batches = self._count_batches(groups)
        self._limit = self._per_batch * self.batches  # groups of an identity in an epoch, at the most
        self._groups = np.minimum(groups, self._limit)

        # Windows of nearly equal length; without a windowed shuffle the epoch is one window.
        windows = 1 if shuffle is None else -(-self.batches // shuffle.window)
        self._edges = np.arange(windows + 1) * self.batches // windows
        if shuffle is not None:  # the chunk in which each identity begins
            self._chunk = np.searchsorted(shuffle.starts, self._images[self._starts], side="right") - 1
        self._layout = functools.lru_cache(maxsize=2)(self._lay_out)  # readers stand in one epoch, at its end in two

    def _count_batches(self, groups: np.ndarray) -> int:
        """The fewest batches with room for all groups, when no identity fills more than its share of a batch."""
        low = 1
        high = max(1, -(-int(groups.sum()) // self.identities))
        while low < high:  # bisection: whatever fits into so many batches fits into more
            middle = (low + high) // 2
            needed = np.minimum(groups, self._per_batch * middle).sum()
            if needed <= middle * self.identities:
                high = middle
            else:
                low = middle + 1
        return low

    def window(self, number: int) -> range:
        """The batches that are mixed with batch `number`: without a windowed shuffle all of the epoch."""
        place = int(np.searchsorted(self._edges, number, side="right"))
        return range(*self._edges[place - 1 : place + 1].tolist())

    def batch(self, epoch: int, number: int, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Image numbers of batch `number` of an epoch: (P, K), an identity per row; or those of some rows alone."""
        layout = self._layout(epoch)
        window = self.window(number)
        # Where the window's shelves begin: behind the places of all windows before, one shelf behind the other.
        shelves = window.start * self.identities + np.arange(self.identities)[rows] * len(window)
        places = shelves + layout.places[rows, number]
        # The identity that stands at each place, and which of its groups that is.
        rank = np.searchsorted(layout.ends, places, side="right")
        return self._members(epoch, layout.identities[rank], places - layout.starts[rank])

    def _lay_out(self, epoch: int) -> "_Layout":
        """All groups of an epoch in a line, cut into shelves, and the place that each batch takes on each shelf.

        A window of n batches is P shelves of n places. Each of its batches takes one place of each shelf, at random.
        """
        random = np.random.default_rng([self.seed, epoch])
        # Identities in random order; with a windowed shuffle chunk by chunk, the chunks in random order.
        identities = random.permutation(len(self._groups))
        if self.shuffle is not None:
            chunk = random.permutation(len(self.shuffle.starts))[self._chunk]
            identities = identities[np.argsort(chunk[identities], kind="stable")]
        # On the line each identity has its groups side by side, at the places from `starts` to `ends`.
        ends = np.cumsum(self._filled(self._groups[identities]))
        starts = np.append(0, ends[:-1])
        # The line is cut at the windows; each is shuffled by itself.
        places = np.empty((self.identities, self.batches), np.int32)
        for first, last in itertools.pairwise(self._edges.tolist()):
            begin = first * self.identities
            places[:, first:last] = self._shelves(random, last - first, starts - begin, ends - begin)
        return _Layout(identities, starts, ends, places)

    def _filled(self, groups: np.ndarray) -> np.ndarray:
        """Groups of each identity with one more for some, until all batches are full."""
        missing = self.batches * self.identities - int(groups.sum())
        while missing:
            extra = np.flatnonzero(groups < self._limit)[:missing]
            groups[extra] += 1
            missing -= len(extra)
        return groups

    def _shelves(self, random: np.random.Generator, batches: int, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """(P, batches) the places that the batches of a window take on its shelves.

        `starts` and `ends` say where each identity stands, counted from the window's first place. An identity over
        several shelves could come into a batch more often than it must. Its groups on the last of them are moved to
        batches without it, where there are enough.
        """
        # A random order of batches on each shelf.
        shelves = np.broadcast_to(np.arange(batches, dtype=np.int32), (self.identities, batches))
        places = random.permuted(shelves, axis=1)
        for shelf in range(1, self.identities):
            # The identity at the first place of the shelf, and where it began.
            begin = shelf * batches
            first = np.searchsorted(ends, begin, side="right")
            begun_on, begun_at = divmod(max(int(starts[first]), 0), batches)
            if begun_on < shelf:  # on an earlier shelf: the batches that took it there should not take it here
                _keep_apart(places[shelf], int(ends[first]) - begin, places[begun_on] >= begun_at)
        return places

    def _members(self, epoch: int, identities: np.ndarray, group: np.ndarray) -> np.ndarray:
        """K images of each identity: those of its group number `group` in this epoch's order of its images."""
        # The images of all these identities, one identity (row) after the other, ordered by hash within each.
        sizes = self._sizes[identities]
        starts = np.cumsum(sizes) - sizes
        row = np.repeat(np.arange(len(sizes)), sizes)
        images = self._images[np.arange(len(row)) + np.repeat(self._starts[identities] - starts, sizes)]
        shuffled = images[np.lexsort((_hash(images, self.seed, epoch), row))]
        # Of each row the K images of the group; the last group goes on with the row's first images.
        place = (group[:, None] * self.instances + np.arange(self.instances)) % sizes[:, None]
        return shuffled[starts[:, None] + place]


class _Layout(NamedTuple):
    """An epoch, laid out; see `PKSampler._lay_out`."""

    identities: np.ndarray
    """In the order of the line."""
    starts: np.ndarray
    """The first place of each on the line."""
    ends: np.ndarray
    """The place behind its last."""
    places: np.ndarray
    """(P, batches) the place that each batch takes on each shelf of its window."""


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

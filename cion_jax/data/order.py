"""The order of training: batches of P identities x K images, each a pure function of (seed, epoch, labels, P, K).

Nothing is drawn one after the other. An epoch is laid out from a random order of the identities, the labels of one batch
follow from its number, and images within an identity are ordered by a keyed hash: a host finds its rows of any batch
without computing anybody else's.
"""

import functools

import numpy as np

from cion_jax.errors import UserError


class Order:
    """Which images stand where, for one labelling.

    An identity with m images fills ceil(m / K) groups of K an epoch (the last one topped up by repetition), so that each
    of its images is met once, or twice at the most if m >= K. A batch takes P groups of different identities. Two limits
    follow: an identity that would fill more groups than there are batches fills one per batch, other images of it each
    epoch; and with fewer than P identities a batch holds each as few times as it can.
    """

    def __init__(self, labels: np.ndarray, identities: int, instances: int, seed: int = 0):
        """`labels` has one identity per image (-1: left out); `identities` and `instances` are P and K."""
        self.identities, self.instances, self.seed = identities, instances, seed
        if identities < 1 or instances < 1:
            raise UserError(f"a batch of {identities} identities x {instances} images is empty; both must be positive")
        labels = np.asarray(labels)
        self._images = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]
        if not len(self._images):
            raise UserError(f"none of {len(labels)} images has an identity, so there is nothing to draw")
        self._starts = np.flatnonzero(np.diff(labels[self._images], prepend=-1))
        self._sizes = np.diff(self._starts, append=len(self._images))
        groups = -(-self._sizes // instances)
        self._per_batch = -(-identities // len(groups))  # how often a batch must hold an identity, at the most
        self.batches = self._count_batches(groups)
        self._groups = np.minimum(groups, self._limit)

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

    def batch(self, epoch: int, number: int, host: int = 0, hosts: int = 1) -> np.ndarray:
        """Image numbers of one host's share of batch `number` of an epoch: (P / hosts, K), an identity per row."""
        share = self.identities // hosts
        if share * hosts != self.identities:
            raise UserError(f"{self.identities} identities per batch cannot be shared by {hosts} hosts; use a multiple")
        layout = self._layout(epoch)
        places = np.arange(host * share, (host + 1) * share) * self.batches + layout.columns[number]
        rank = np.searchsorted(layout.ends, places, side="right")
        groups_before = places - (layout.ends[rank] - layout.groups[rank])
        return self._members(epoch, layout.identities[rank], groups_before)

    @functools.lru_cache(maxsize=2)  # noqa: B019  # readers stand in one epoch, at its end in two
    def _layout(self, epoch: int) -> "_Layout":
        """Identities in random order, each followed by its next group; place t stands in column t mod batches.

        An identity's groups are neighbours, so they fall into different columns as long as there are columns enough.
        """
        random = np.random.default_rng([self.seed, epoch])
        identities = random.permutation(len(self._groups))
        groups = self._groups[identities]
        missing = self.batches * self.identities - int(groups.sum())
        while missing:  # the last batch is filled with one more group of some identities
            extra = np.flatnonzero(groups < self._limit)[:missing]
            groups[extra] += 1
            missing -= len(extra)
        return _Layout(identities, groups, np.cumsum(groups), random.permutation(self.batches))

    def _members(self, epoch: int, identities: np.ndarray, groups_before: np.ndarray) -> np.ndarray:
        """K images of each identity: those that follow `groups_before` groups in this epoch's order of its images."""
        sizes = self._sizes[identities]
        ends = np.cumsum(sizes)
        row = np.repeat(np.arange(len(sizes)), sizes)
        images = self._images[np.arange(ends[-1]) + np.repeat(self._starts[identities] - ends + sizes, sizes)]
        shuffled = images[np.lexsort((_hash(images, self.seed, epoch), row))]
        place = (groups_before[:, None] * self.instances + np.arange(self.instances)) % sizes[:, None]
        return shuffled[place + (ends - sizes)[:, None]]


class _Layout:
    def __init__(self, identities: np.ndarray, groups: np.ndarray, ends: np.ndarray, columns: np.ndarray):
        self.identities, self.groups, self.ends, self.columns = identities, groups, ends, columns


def _hash(values: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Values scattered over 64 bits, differently for every seed and epoch (the finaliser of SplitMix64)."""
    key = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    x = values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

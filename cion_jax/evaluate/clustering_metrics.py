"""How well a labelling agrees with the truth, where that is known.

Two images are a pair if a labelling calls them one person. Let `found` be the pairs of the labelling, `true` those of
the truth, `both` those of both, and `all` the n (n - 1) / 2 pairs of n images. H is the entropy of the shares of images
that have each label, each true identity, or each combination of the two:

    precision = both / found        recall = both / true        f1 = their harmonic mean
    nmi = (H(labels) + H(truth) - H(combined)) / mean of H(labels) and H(truth)
    ari = (both - expected) / (mean of found and true - expected),  expected = found true / all

No table of labels by identities is made: only combinations that occur are counted.
"""

from typing import NamedTuple

import numpy as np

from cion_jax.errors import UserError


class Agreement(NamedTuple):
    """1 is perfect; names of labels and the order of images make no difference."""

    precision: float
    """Share of the labelling's pairs that are true; 0 if it has none."""
    recall: float
    """Share of the true pairs that the labelling has; 0 if there are none."""
    f1: float
    """Their harmonic mean."""
    nmi: float
    """Mutual information divided by the mean of the two entropies; 1 if both have but one label."""
    ari: float
    """Rand index adjusted for chance, which scores about 0 and may be below; 1 if both have all pairs, or both none."""


def agreement(labels: np.ndarray, truth: np.ndarray) -> Agreement:
    """Scores of a labelling; an image with a label below 0, found or true, is nobody's and alone.

    Args:
        labels: (N,) whole numbers, who each image shows by the labelling.
        truth: (N,) whole numbers, who it does show.
    """
    labels, truth = _numbered(labels, "labels"), _numbered(truth, "truth")
    if len(labels) != len(truth) or not len(labels):
        raise UserError(f"{len(labels):,} labels for {len(truth):,} true identities; give one of each for every image")
    combined = labels * (truth.max() + 1) + truth
    sizes = [np.unique(values, return_counts=True)[1] for values in (labels, truth, combined)]
    found, true, both = (_pairs(counts) for counts in sizes)
    return Agreement(
        precision=both / found if found else 0.0,
        recall=both / true if true else 0.0,
        f1=2 * both / (found + true) if found + true else 0.0,
        nmi=_nmi(*(_entropy(counts) for counts in sizes)),
        ari=_ari(found, true, both, len(labels) * (len(labels) - 1) // 2),
    )


def _numbered(labels: np.ndarray, name: str) -> np.ndarray:
    """Labels as small numbers, another for each image that is nobody's."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"{name}: {labels.dtype} {labels.shape}; give a whole number for each image")
    values, numbers = np.unique(labels, return_inverse=True)
    nobody = labels < 0
    numbers[nobody] = len(values) + np.arange(nobody.sum())
    return numbers


def _pairs(counts: np.ndarray) -> int:
    """Exact, and a Python int: products of such numbers leave int64."""
    return int((counts * (counts - 1) // 2).sum())


def _entropy(counts: np.ndarray) -> float:
    """Summed by size, so that equal partitions have the very same entropy whatever the order of their labels."""
    sizes, times = np.unique(counts, return_counts=True)
    shares = sizes / counts.sum()
    return float(-(times * shares * np.log(shares)).sum())


def _nmi(labels: float, truth: float, combined: float) -> float:
    if labels + truth == 0:
        return 1.0
    return 2 * max(labels + truth - combined, 0.0) / (labels + truth)


def _ari(found: int, true: int, both: int, everything: int) -> float:
    """The formula with all fractions cleared: whole numbers until the last division."""
    best = (found + true) * everything - 2 * found * true
    return 2 * (both * everything - found * true) / best if best else 1.0

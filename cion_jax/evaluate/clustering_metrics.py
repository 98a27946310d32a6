"""How well a labelling agrees with the truth: pairwise precision, recall and F1, NMI and ARI.

Two images are a pair if a labelling calls them one person. Let `predicted` be the number of pairs of the labelling,
`true` that of the truth, `both` that of the pairs of both, and `all` = n (n - 1) / 2 that of all pairs of n images.
H is the entropy of the shares of images that have each label, each true identity, or each combination of the two:

    precision = both / predicted        recall = both / true        f1 = their harmonic mean
    nmi = (H(labels) + H(truth) - H(combined)) / mean of H(labels) and H(truth)
    ari = (both - expected) / (mean of predicted and true - expected),  expected = predicted true / all

Only the combinations that occur are counted: no table of labels by identities is made.
"""

from typing import NamedTuple

import numpy as np

from cion_jax.errors import UserError


class Agreement(NamedTuple):
    """Scores of a labelling; 1 is perfect. They do not depend on the names of labels or the order of images."""

    precision: float
    """Share of the labelling's pairs that are true; 0 if it has none."""
    recall: float
    """Share of the true pairs that the labelling has; 0 if there are none."""
    f1: float
    """Their harmonic mean."""
    nmi: float
    """Mutual information divided by the mean of the two entropies; 1 if both have only one label."""
    ari: float
    """Rand index adjusted for chance: about 0, or below, for labels by chance; 1 if both have all pairs, or both none.
    """


def agreement(labels: np.ndarray, truth: np.ndarray) -> Agreement:
    """Scores of a labelling. An image with a label below 0 shows nobody: it makes no pair with any other image.

    Args:
        labels: (N,) whole numbers, whom each image shows by the labelling.
        truth: (N,) whole numbers, whom it truly shows.
    """
    labels = _numbered(labels, "labels")
    truth = _numbered(truth, "truth")
    if len(labels) != len(truth) or not len(labels):
        raise UserError(f"{len(labels):,} labels for {len(truth):,} true identities; give one of each for every image")
    combined = labels * (truth.max() + 1) + truth  # a number for each combination of the two
    sizes = [np.unique(values, return_counts=True)[1] for values in (labels, truth, combined)]
    predicted, true, both = (_pairs(counts) for counts in sizes)
    return Agreement(
        precision=both / predicted if predicted else 0.0,
        recall=both / true if true else 0.0,
        f1=2 * both / (predicted + true) if predicted + true else 0.0,
        nmi=_nmi(*(_entropy(counts) for counts in sizes)),
        ari=_ari(predicted, true, both, len(labels) * (len(labels) - 1) // 2),
    )


def _numbered(labels: np.ndarray, name: str) -> np.ndarray:
    """Labels as small numbers, with a number of its own for each image that shows nobody."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError(f"{name}: {labels.dtype} {labels.shape}; give a whole number for each image")
    values, numbers = np.unique(labels, return_inverse=True)
    nobody = labels < 0
    numbers[nobody] = len(values) + np.arange(nobody.sum())
    return numbers


def _pairs(counts: np.ndarray) -> int:
    """The pairs within groups of these sizes: a Python int, since products of such numbers overflow int64."""
    return int((counts * (counts - 1) // 2).sum())


def _entropy(counts: np.ndarray) -> float:
    """The entropy of groups of these sizes.

    The sum runs over sizes, not over groups: so rounding does not depend on the order of labels, and equal partitions
    have the very same entropy.
    """
    sizes, times = np.unique(counts, return_counts=True)
    shares = sizes / counts.sum()
    return float(-(times * shares * np.log(shares)).sum())


def _nmi(labels: float, truth: float, combined: float) -> float:
    if labels + truth == 0:
        return 1.0
    return 2 * max(labels + truth - combined, 0.0) / (labels + truth)


def _ari(predicted: int, true: int, both: int, all_pairs: int) -> float:
    """The formula times 2 `all` above and below the line: whole numbers until the last division."""
    denominator = (predicted + true) * all_pairs - 2 * predicted * true
    return 2 * (both * all_pairs - predicted * true) / denominator if denominator else 1.0

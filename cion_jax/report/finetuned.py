"""What is particular to the page about a fine-tuning or an adaptation: its losses, its clusters, and its weights."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cion_jax.data.labels import read_labelling
from cion_jax.report.curves import Curves, by_epoch
from cion_jax.report.page import beside, folded, paragraph, table
from cion_jax.run.run_dir import BEST, FINETUNED
from cion_jax.weights.file import Weights


class Kind(NamedTuple):
    """What a page says of all runs of a method."""

    title: str
    short: str
    """The name of the method."""
    mark: str
    """A setting that only this method has, and those after it in `KINDS`."""
    about: Mapping[str, str]
    """Notes on values of the journal."""
    learns: str
    """From whom it learns where no labelling was given or made."""
    is_told: bool
    """Whether that is from the identities in the records."""


_TOLD = "It was told who is who by the identities in the records."
_NECK = "Cross-entropy among the identities, behind the neck."
_TRIPLET = "Of each image with its farthest one of the same and its nearest one of another identity."
_MGN = "A mean over the eight heads: cross-entropy among the identities, with circle softmax."

PRETRAINING = Kind(
    "Pre-training",
    "pre-training",
    "level",
    {"loss": "Cross-entropy between teacher and student, the mean over pairs of views."},
    "This run was given no labelling, and has made none.",
    is_told=False,
)
ADAPTATION = Kind(
    "Adaptation by cluster contrast",
    "cluster contrast",
    "clustering",
    {"loss": "Cross-entropy among the clusters, each of which is a row of the memory."},
    "There are no clusters yet: a run makes them at the beginning of each epoch.",
    is_told=False,
)
BNNECK = Kind(
    "Fine-tuning with a BNNeck",
    "BNNeck",
    "feature",
    {"loss": "Cross entropy and triplet loss together.", "cross_entropy": _NECK, "triplet": _TRIPLET},
    _TOLD,
    is_told=True,
)
MGN = Kind(
    "Fine-tuning with MGN",
    "MGN",
    "identities_share",
    {
        "loss": "Cross entropy and triplet loss together.",
        "cross_entropy": _MGN,
        "triplet": f"A mean of five. {_TRIPLET}",
    },
    _TOLD,
    is_told=True,
)
#: A run is of the first of these whose mark its settings have.
KINDS = (PRETRAINING, ADAPTATION, BNNECK, MGN)


def kind_of(settings: Mapping[str, Any]) -> Kind | None:
    """The method that settings are of."""
    return next((kind for kind in KINDS if kind.mark in settings), None)


def single_losses(curves: Curves) -> Iterator[str]:
    """A folded table of the losses of heads, of which the curves show sums."""
    rows = []
    for name, (epochs, values) in curves.parts.items():
        first, last = values[epochs <= math.ceil(epochs[0])], values[epochs > math.ceil(epochs[-1]) - 1]
        rows.append((name.replace("_", " "), float(first.mean()), float(last.mean())))
    if rows:
        text = "What is added up in the curves: each is weighted already. Means over the first epoch and the last."
        losses = table(("loss", "first epoch", "last epoch"), rows)
        yield folded("Each loss by itself", paragraph(text) + losses)


def clusters(labels: Mapping[int, Path], fingerprint: str | None) -> Iterator[str]:
    """How many clusters there were in each epoch, and how many images were in none; the fingerprint is the data's."""
    if not labels:
        return
    counts: dict[int, int] = {}
    outliers: dict[int, int] = {}
    images = 0
    for epoch, path in labels.items():
        made = read_labelling(path, fingerprint, None)
        counts[epoch] = len(np.unique(made[made >= 0]))
        outliers[epoch] = int(np.count_nonzero(made < 0))
        images = len(made)
    *_, last = labels
    share = outliers[last] / max(images, 1)
    yield beside(
        by_epoch(counts, "clusters", f"Clusters by epoch; at last {counts[last]:,} of {images:,} images."),
        by_epoch(outliers, "outliers", f"Images in no cluster; at last {outliers[last]:,}, {share:.1%} of all."),
    )


def best_epoch(curves: Curves, chosen_by: str) -> tuple[int, float] | None:
    """After how many epochs the score that weights are chosen by was best, and what it was."""
    scores = curves.values.get(chosen_by)
    if scores is None:
        return None
    epochs, values = scores
    return round(epochs[values.argmax()]), float(values.max())


def weights_of_run(folder: Path, curves: Curves | None, weights: Weights | None, by_test: bool) -> Iterator[str]:
    """Which files of weights the run has, and of which epoch each is; `by_test` tells that a test set chose it."""
    if weights is None:
        yield paragraph("There are no weights yet: a run writes them after its first epoch.")
        return
    network = weights.network
    height, columns = network.image_size
    width = network.width(network.image_size)
    yield paragraph(f"{network.name}, for images of {height} x {columns}; a feature has {width:,} numbers.")
    chosen_by = "mAP" if by_test else "validation_mAP"
    scores = dict(zip(*curves.values.get(chosen_by, ((), ())), strict=True)) if curves else {}
    best = best_epoch(curves, chosen_by) if curves else None
    epochs = {FINETUNED: math.floor(curves.epoch) if curves else None, BEST: best[0] if best else None}
    rows = []
    for name, epoch in epochs.items():
        if (folder / name).exists():
            score = scores.get(epoch)
            after = "unknown" if epoch is None else f"{epoch:,}"
            size = (folder / name).stat().st_size / 1e6
            rows.append((name, after, "not scored" if score is None else f"{score:.3f}", f"{size:.1f}"))
    yield table(("file", "after epoch", "mAP in the test set" if by_test else "validation mAP", "MB"), rows)
    if best:
        who = "The people of the test set" if by_test else "Those who were set aside"
        yield paragraph(
            f"{who} were ranked best after epoch {best[0]:,}: `cion embed`, `evaluate` and `export` take {BEST} where "
            "they are given the run, and so do the scores above."
        )
    if best and by_test:
        yield paragraph(
            "These weights were chosen by the test set (--select test), the best of several looks at it: their score "
            "there flatters them, and says nothing of people who were never looked at."
        )

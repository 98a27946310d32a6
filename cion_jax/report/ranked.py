"""Retrieval in tables and pictures: scores, curves over rank and threshold, and ranked lists.

Lists follow the protocol of `evaluate.retrieval`: the nearest first, without junk and without images of the same person
under the query's own camera. Three kinds of queries are shown: some evenly spread, whatever they find, then the worst
and the best, under headings that say so.
"""

from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cion_jax.data.records import Records
from cion_jax.evaluate.distances import Distances
from cion_jax.evaluate.retrieval import QueryResults, identities_and_cameras, ignored, roc_curve, scores
from cion_jax.report.drawing import GRID
from cion_jax.report.page import picture, subheading, table
from cion_jax.report.photos import Photo, photograph, strip
from tfrecords_tools.sheet import spread

#: Places of a ranked list that are shown.
PLACES = 10
#: Queries evenly spread.
SPREAD = 6
#: The worst queries, and as many of the best.
EXTREMES = 4
#: Ranks of the CMC curve.
RANKS = 50
_LINES = ("-", "--", "-.", ":")


def score_table(contestants: Mapping[str, QueryResults]) -> str:
    """Scores, with a column for each contestant."""
    columns = [scores(results).as_dict() for results in contestants.values()]
    return table(("", *contestants), [(name, *(_share(column[name]) for column in columns)) for name in columns[0]])


def cmc(contestants: Mapping[str, QueryResults]) -> str:
    """The CMC curve: by rank, the share of queries with a right answer up to it."""
    figure, axes = _axes("rank", "share of queries")
    ranks = np.arange(1, RANKS + 1)
    for (name, results), line in zip(contestants.items(), cycle(_LINES), strict=False):
        first = results.first[results.answers > 0]
        axes.plot(ranks, np.searchsorted(np.sort(first), ranks, side="right") / len(first), line, label=name)
    axes.set(xlim=(1, RANKS), ylim=(0, 1.02))
    figure.legend(loc="outside upper left", frameon=False, ncols=2)
    says = f"Curves over the ranks 1 to {RANKS}: the share of queries with a right answer up to the rank"
    return picture(figure, f"{says}, of {', '.join(contestants)}", "CMC: a right answer up to this rank.")


def roc(contestants: Mapping[str, QueryResults]) -> str:
    """The ROC curve: the share of right pairs within a threshold, by the share of wrong pairs within it."""
    figure, axes = _axes("wrong pairs that match", "right pairs that match")
    for (name, results), line in zip(contestants.items(), cycle(_LINES), strict=False):
        axes.plot(*roc_curve(results.pairs), line, label=name)
    least = min(1 / max(results.pairs[0].sum(), 10) for results in contestants.values())
    axes.set(xscale="log", xlim=(max(least, 1e-6), 1), ylim=(0, 1.02))
    figure.legend(loc="outside upper left", frameon=False, ncols=2)
    says = "Curves over the share of wrong pairs, on a logarithmic scale: the share of right pairs that match"
    return picture(figure, f"{says}, of {', '.join(contestants)}", "ROC: pairs of a query and an image that it ranks.")


def ranked(query: Records, gallery: Records, distances: Distances, results: QueryResults) -> Iterator[str]:
    """Ranked lists of queries evenly spread, of the worst and of the best; `results` are those of the distances."""
    answered = np.flatnonzero(results.answers > 0)
    precision = results.precision[answered]
    chosen = {
        "Queries evenly spread, not chosen for what they find": spread(answered, SPREAD),
        "The worst queries": answered[np.argsort(precision, kind="stable")[:EXTREMES]],
        "The best queries": answered[np.argsort(-precision, kind="stable")[:EXTREMES]],
    }
    for title, numbers in chosen.items():
        yield subheading(title)
        for number in numbers:
            caption = (
                f"Query {number}: {_who(query, number)}. Average precision {results.precision[number]:.3f}; "
                f"right answers: {results.answers[number]}, the first at rank {results.first[number]}."
            )
            order, is_right = ranking(distances, number, query.index, gallery.index)
            own = Photo(photograph(query, number), f"query {number}: {_who(query, number)}", "query")
            yield strip(caption, [own, *_answers(gallery, order[:PLACES], is_right[:PLACES])])


def ranking(
    distances: Distances, query: int, query_labels: np.ndarray, gallery_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the gallery's images in the order in which a query ranks them, and whether each is right."""
    query_ids = identities_and_cameras(query_labels[query : query + 1])
    gallery_ids = identities_and_cameras(gallery_labels)
    is_ignored = np.asarray(ignored(query_ids, gallery_ids))[0]
    order = np.argsort(np.asarray(distances.of(query, query + 1))[0], kind="stable")
    order = order[~is_ignored[order]]
    return order, gallery_labels["identity"][order] == query_labels["identity"][query]


def _answers(gallery: Records, order: np.ndarray, is_right: np.ndarray) -> Iterator[Photo]:
    for rank, (number, right) in enumerate(zip(order, is_right, strict=True), 1):
        kind, mark = ("right", "✓") if right else ("wrong", "✗")
        says = f"rank {rank}, {kind}: image {number}, {_who(gallery, number)}"
        yield Photo(photograph(gallery, number), says, f"{rank} {mark}", kind)


def _who(records: Records, number: int) -> str:
    row = records.index[number]
    return f"identity {row['identity']}, camera {row['camera']}"


def _share(score: float | int) -> str | int:
    return f"{100 * score:.2f} %" if isinstance(score, float) else score


def _axes(across: str, up: str) -> tuple[Figure, Any]:
    figure = Figure((4.4, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=across, ylabel=up)
    axes.grid(color=GRID)
    return figure, axes

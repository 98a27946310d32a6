"""What queries find: scores, curves over rank and threshold, and ranked lists that one can look at.

Lists follow the protocol of `evaluate.retrieval`: the nearest first, without junk and without images of the same person
under the query's own camera. Which queries are shown is settled before anything is known of them, but for those that
are shown because they are the worst or the best, and are called that.
"""

from collections.abc import Iterator, Mapping
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from cion_jax.data.records import Records
from cion_jax.evaluate.distances import Distances
from cion_jax.evaluate.retrieval import QueryResults, identities_and_cameras, ignored, roc_curve, scores
from cion_jax.report.page import picture, subheading, table
from cion_jax.report.photos import Photo, photograph, strip
from tfrecords_tools.sheet import spread

#: Places of a ranked list that are shown; queries of the fixed spread, and of the worst and of the best.
PLACES, SPREAD, EXTREMES = 10, 6, 4
#: Ranks of the cumulative curve.
RANKS = 50
_LINES = ("-", "--", "-.", ":")


def score_table(contestants: Mapping[str, QueryResults]) -> str:
    """Scores, with a column for each contestant."""
    told = [scores(found).as_dict() for found in contestants.values()]
    return table(("", *contestants), [(name, *(_share(each[name]) for each in told)) for name in told[0]])


def cmc(contestants: Mapping[str, QueryResults]) -> str:
    """The share of queries that have found somebody right, rank by rank."""
    figure, axes = _axes("rank", "share of queries")
    ranks = np.arange(1, RANKS + 1)
    for (name, found), line in zip(contestants.items(), cycle(_LINES), strict=False):
        first = found.first[found.answers > 0]
        axes.plot(ranks, np.searchsorted(np.sort(first), ranks, side="right") / len(first), line, label=name)
    axes.set(xlim=(1, RANKS), ylim=(0, 1.02))
    figure.legend(loc="outside upper left", frameon=False, ncols=2)
    says = f"Curves over the ranks 1 to {RANKS}: the share of queries with a right answer up to the rank"
    return picture(figure, f"{says}, of {', '.join(contestants)}", "CMC: a right answer up to this rank.")


def roc(contestants: Mapping[str, QueryResults]) -> str:
    """The share of right pairs that a threshold lets pass, by the share of wrong ones that it lets pass too."""
    figure, axes = _axes("wrong pairs that match", "right pairs that match")
    for (name, found), line in zip(contestants.items(), cycle(_LINES), strict=False):
        axes.plot(*roc_curve(found.pairs), line, label=name)
    least = min(1 / max(found.pairs[0].sum(), 10) for found in contestants.values())
    axes.set(xscale="log", xlim=(max(least, 1e-6), 1), ylim=(0, 1.02))
    figure.legend(loc="outside upper left", frameon=False, ncols=2)
    says = "Curves over the share of wrong pairs, on a logarithmic scale: the share of right pairs that match"
    return picture(figure, f"{says}, of {', '.join(contestants)}", "ROC: pairs of a query and an image that it ranks.")


def ranked(query: Records, gallery: Records, distances: Distances, found: QueryResults) -> Iterator[str]:
    """Lists of a fixed spread of queries, of the worst and of the best, from what `search` found with the distances."""
    asked = np.flatnonzero(found.answers > 0)
    worst, best = (asked[np.argsort(sign * found.precision[asked], kind="stable")[:EXTREMES]] for sign in (1, -1))
    chosen = {
        "Queries evenly spread, not chosen for what they find": spread(asked, SPREAD),
        "The worst queries": worst,
        "The best queries": best,
    }
    for title, numbers in chosen.items():
        yield subheading(title)
        for number in numbers:
            told = (
                f"Query {number}: {_who(query, number)}. Average precision {found.precision[number]:.3f}; "
                f"right answers: {found.answers[number]}, the first at rank {found.first[number]}."
            )
            places, right = ranking(distances, number, query.index, gallery.index)
            mine = Photo(photograph(query, number), f"query {number}: {_who(query, number)}", "query")
            yield strip(told, [mine, *_answers(gallery, places[:PLACES], right[:PLACES])])


def ranking(
    distances: Distances, query: int, query_labels: np.ndarray, gallery_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the gallery's images as a query ranks them, without what it passes over, and which are right."""
    asking, who = (identities_and_cameras(labels) for labels in (query_labels[query : query + 1], gallery_labels))
    out = np.asarray(ignored(asking, who))[0]
    order = np.argsort(np.asarray(distances.of(query, query + 1))[0], kind="stable")
    order = order[~out[order]]
    return order, gallery_labels["identity"][order] == query_labels["identity"][query]


def _answers(gallery: Records, places: np.ndarray, right: np.ndarray) -> Iterator[Photo]:
    for rank, (number, is_right) in enumerate(zip(places, right, strict=True), 1):
        kind, mark = ("right", "✓") if is_right else ("wrong", "✗")
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
    axes.grid(color="#dddddd")
    return figure, axes

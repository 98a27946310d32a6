"""What does an evaluation of the size of MSMT17's test set cost? Time and memory, beside what people write in NumPy.

python -m experiments.benchmarks.evaluate
python -m experiments.benchmarks.evaluate --rerank        # some minutes more

Features and labels are random: the cost does not depend on them. The dense contestant makes all distances of its
queries at once and sorts them, and has as many queries as fit beside the features into the memory it is given.
"""

import time
from collections.abc import Callable

import numpy as np

from cion_jax.data.labels import LABELS
from cion_jax.evaluate.distances import cosine, unit
from cion_jax.evaluate.rerank import reranked
from cion_jax.evaluate.retrieval import Scores, scores, search
from experiments.benchmarks.command import command
from experiments.benchmarks.timing import environment, resident

#: Bytes that a pair of images costs the dense contestant: a distance, its place after sorting, and what is right.
_PAIR = 4 + 8 + 3


def main(
    queries: int = 11_659,
    gallery: int = 82_161,
    width: int = 512,
    identities: int = 3_060,
    cameras: int = 15,
    dense_gib: float = 2.0,
    rerank: bool = False,
) -> None:
    """Print a Markdown table.

    Args:
        queries: Query images.
        gallery: Gallery images, which are ranked.
        width: Of a feature.
        identities: People.
        cameras: Cameras.
        dense_gib: Memory that the dense contestant may fill.
        rerank: Also re-rank, and evaluate that.
    """
    random = np.random.default_rng(0)
    sides = [unit(random.standard_normal((count, width), np.float32), "feature") for count in (queries, gallery)]
    labels = [_labels(random, count, identities, cameras) for count in (queries, gallery)]
    fits = min(queries, int(dense_gib * 2**30 / (_PAIR * gallery)))
    print(f"{environment('jax', 'numpy')}\n{queries:,} queries, {gallery:,} images, {width}-d, {identities:,} people\n")
    print("| | queries | seconds | ms per query | peak memory over features, GiB | mAP |\n|---|---|---|---|---|---|")
    _row("ours", queries, lambda: scores(search(cosine(*sides), *labels)))
    if rerank:
        _row("ours, re-ranked", queries, lambda: scores(search(reranked(*sides), *labels)))
    some = (sides[0][:fits], sides[1], labels[0][:fits], labels[1])
    _row("ours, as many queries as dense", fits, lambda: scores(search(cosine(*some[:2]), *some[2:])))
    _row("dense: matmul and argsort", fits, lambda: _dense(*some))


def _labels(random: np.random.Generator, count: int, identities: int, cameras: int) -> np.ndarray:
    labels = np.zeros(count, LABELS)
    labels["identity"] = random.integers(1, identities + 1, count)
    labels["camera"] = random.integers(cameras, size=count)
    return labels


def _row(name: str, queries: int, work: Callable[[], Scores | float]) -> None:
    _forget_peak()
    before = resident("VmRSS")
    began = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - began
    peak = resident("VmHWM") - before
    precision = result.mean_average_precision if isinstance(result, Scores) else result
    print(
        f"| {name} | {queries:,} | {seconds:,.0f} | {1e3 * seconds / queries:.1f} | {peak / 2**30:.2f} | "
        f"{precision:.6f} |",
        flush=True,
    )


def _forget_peak() -> None:
    """Let Linux begin anew with VmHWM."""
    with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123  # pathlib would make it anew
        file.write("5")


def _dense(query: np.ndarray, gallery: np.ndarray, query_labels: np.ndarray, gallery_labels: np.ndarray) -> float:
    """Mean average precision with all distances in one array."""
    order_QxG = np.argsort(1 - query @ gallery.T, axis=1)
    matches_QxG = query_labels["identity"][:, None] == gallery_labels["identity"]
    ignored_QxG = matches_QxG & (query_labels["camera"][:, None] == gallery_labels["camera"])
    precisions = []
    for order, matches, ignored in zip(order_QxG, matches_QxG, ignored_QxG, strict=True):
        ranked = matches[order][~ignored[order]]
        ranks = np.flatnonzero(ranked) + 1
        if len(ranks):
            precisions.append(float(np.mean(np.arange(1, len(ranks) + 1) / ranks)))
    return float(np.mean(precisions))


if __name__ == "__main__":
    command(main)

"""`cion evaluate`: from weights or features to scores."""

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from etils import epath
from rich.markup import escape
from rich.table import Column, Table
from tyro.conf import Positional, arg

from cion_jax.config import Hosts, Precision
from cion_jax.errors import UserError
from cion_jax.terminal import Console

if TYPE_CHECKING:
    from cion_jax.evaluate.distances import Distances
    from cion_jax.evaluate.fairness import Audit
    from cion_jax.evaluate.group_table import Groups
    from cion_jax.evaluate.query_gallery import QueryGallery
    from cion_jax.evaluate.retrieval import QueryResults
    from cion_jax.hosts import Facts

#: The false match rate over all people at which groups are compared.
FALSE_MATCH_RATE = 1e-3


def evaluate(
    source: Annotated[Positional[Path], arg(metavar="RUN|WEIGHTS|FEATURES")],
    data: Annotated[Positional[epath.Path | None], arg(metavar="DATA")] = None,
    metric: Literal["cosine", "euclidean"] = "cosine",
    rerank: bool = False,
    expand: int = 0,
    groups: Path | None = None,
    min_group: int = 20,
    flip: bool = False,
    precision: Precision = "float32",
    batch: int = 256,
    json: bool = False,
    hosts: Hosts = Hosts(),
) -> None:
    """Score how well queries find their own in a gallery: mAP, CMC, mINP, and true match rates at false match rates.

    The protocol is that of Market-1501, MSMT17, DukeMTMC-reID and CUHK03-NP: images of the query's person under its own
    camera and junk (identity -1) are ignored, distractors (identity 0) are ranked.

    DATA is a folder (or its URL in a store) with the splits query and gallery, as `cion data import` writes them.
    Features need no DATA: a folder that `cion embed` wrote of such a set, or an .npz of anybody's features with the
    arrays query (N, D), query_identity (N), query_camera (N), and the same of gallery.

    Args:
        source: A run of `cion pretrain`, whose teacher is taken, a file of weights, or features.
        data: The evaluation set. With features: the set that they must have been made from.
        metric: Distance that ranks the gallery.
        rerank: Re-rank by k-reciprocal neighbours (k1 20, k2 6, lambda 0.3).
        expand: Replace each query by the mean of itself and so many of its nearest images in the gallery.
        groups: A table (CSV) with the columns identity and one or more others, a row for each person: also print scores
            and error rates by group. The table is only read; nobody's group is written anywhere.
        min_group: Groups of fewer people are left out.
        flip: Add the features of each image's mirror image.
        precision: What the network computes in: bfloat16, float32, or tensorfloat32, which is float32 but for what is
            multiplied, which GPUs and TPUs round.
        batch: Images that the devices embed together.
        json: Print JSON instead of tables.
        hosts: How processes find each other, which then share images and queries.
    """
    from cion_jax.evaluate.group_table import read_groups
    from cion_jax.evaluate.retrieval import scores, search
    from cion_jax.hosts import is_main, join_job
    from cion_jax.terminal import progress_bar

    table = None if groups is None else read_groups(groups)  # first, so that mistakes in it cost no work
    options = {"metric": metric, "rerank": rerank, "expand": expand, "flip": flip, "precision": precision}
    with join_job(hosts, lambda: _facts(source, data, batch=batch, **options)):
        pair = _query_gallery(source, data, flip=flip, precision=precision, batch=batch)
        distances = _distances(pair, metric, rerank, expand)
        with progress_bar("ranking", len(pair.query)) as progress:
            results = search(distances, pair.query_labels, pair.gallery_labels, progress=progress)
        summary: dict[str, Any] = scores(results).as_dict()
        audit = None
        if table is not None:
            try:
                audit = _audit(table, pair, distances, results, min_group)
            except UserError as error:
                raise UserError(f"{groups}: {error}") from None
        if is_main():
            _show(summary, audit, json)


def _query_gallery(source: Path, data: epath.Path | None, **options: Any) -> "QueryGallery":
    from cion_jax.commands.sources import weights_of
    from cion_jax.evaluate.query_gallery import embed_query_gallery, load_features, load_npz

    if source.suffix == ".npz":
        if data is not None:
            raise UserError(f"{data}: {source} has its own labels; leave out one of the two")
        return load_npz(source)
    if _is_features(source):
        return load_features(source, data)
    weights = weights_of(source)
    if data is None:
        raise UserError(f"{source}: weights need images to be tried on; name an evaluation set after them")
    model = weights.network
    return embed_query_gallery(model, weights.variables, data, image_size=model.image_size, **options)


def _facts(source: Path, data: epath.Path | None, **options: object) -> "Facts":
    from cion_jax.commands.sources import facts_of, file_of
    from cion_jax.evaluate.feature_store import CARD

    file = source / CARD if _is_features(source) else file_of(source)
    return facts_of("evaluate", data, file, **options)


def _is_features(source: Path) -> bool:
    """Whether a folder is one that `cion embed` wrote; datasets have a file of that name for TFDS."""
    from cion_jax.data import dataset
    from cion_jax.evaluate.feature_store import CARD

    return (source / CARD).exists() and not (source / dataset.CARD).exists()


def _distances(pair: "QueryGallery", metric: str, rerank: bool, expand: int) -> "Distances":
    from cion_jax.evaluate.distances import check, cosine, euclidean, unit
    from cion_jax.evaluate.expansion import expanded
    from cion_jax.evaluate.rerank import reranked
    from cion_jax.terminal import progress_bar

    query = pair.query
    gallery = pair.gallery
    check(query, gallery)
    if metric == "cosine":
        query = unit(query, "query")
        gallery = unit(gallery, "gallery")
    if expand:
        query = expanded(query, gallery, expand)
    if not rerank:
        return {"cosine": cosine, "euclidean": euclidean}[metric](query, gallery)
    with progress_bar("re-ranking", len(query) + len(gallery)) as progress:
        return reranked(query, gallery, progress=progress)


def _audit(
    table: "Groups", pair: "QueryGallery", distances: "Distances", results: "QueryResults", min_group: int
) -> "Audit":
    """The audit by group of those queries that have a right answer."""
    from cion_jax.evaluate.fairness import audit
    from cion_jax.evaluate.retrieval import matches

    counts = matches(distances, pair.query_labels, pair.gallery_labels, results.pairs, FALSE_MATCH_RATE)
    ones = np.ones(len(results.answers))
    measures = {
        "mAP": (results.precision, ones),
        "rank-1 error": (results.first > 1, ones),
        "false non-match rate": (counts.right - counts.right_matched, counts.right),
        "false match rate": (counts.wrong_matched, counts.wrong),
    }
    has_answer = results.answers > 0
    scored = {
        name: (numerator[has_answer].astype(float), denominator[has_answer].astype(float))
        for name, (numerator, denominator) in measures.items()
    }
    return audit(table, pair.query_labels["identity"][has_answer], scored, min_group=min_group)


def _show(summary: dict[str, Any], audit: "Audit | None", json: bool) -> None:
    from cion_jax.evaluate.fairness import as_json

    if json:
        print(dumps(summary | ({} if audit is None else {"groups": as_json(audit)}), indent=1))
        return
    _show_scores(summary)
    if audit is not None:
        _show_groups(audit)


def _show_scores(summary: dict[str, Any]) -> None:
    table = Table("", Column("", justify="right"), show_header=False)
    for name, value in summary.items():
        table.add_row(name, f"{100 * value:.2f} %" if isinstance(value, float) else f"{value:,}")
    Console().print(table)
    if summary["left out"]:
        print("Left out are queries without a right answer in the gallery.")


def _show_groups(audit: "Audit") -> None:
    from cion_jax.evaluate.fairness import notes, tables

    console = Console()
    for name, rows in tables(audit).items():
        if rows:
            table = Table(
                escape(name), *(Column(each, justify="right") for each in ("people", "queries", *audit.measures))
            )
            for row in rows:
                table.add_row(*map(escape, row))
            console.print(table)
    print(f"Rates of single pairs are at the threshold that matches {FALSE_MATCH_RATE:.1%} of all wrong ones.")
    print(*notes(audit), sep="\n")

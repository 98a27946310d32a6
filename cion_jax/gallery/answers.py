"""The answers of a gallery to some images, with what is known of them, and which of them are matches."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cion_jax.errors import UserError
from cion_jax.gallery.images import GalleryImages
from cion_jax.gallery.rows import By, text, widest_group
from cion_jax.gallery.search import Found, search
from cion_jax.gallery.store import Gallery
from cion_jax.gallery.threshold import CONFIDENCE, Threshold, choose_threshold
from cion_jax.terminal import Progress, no_progress


@dataclass(frozen=True)
class Answers:
    """What each query found."""

    gallery: Gallery
    names: Sequence[str]
    """What each query is called."""
    by: By
    found: Found
    threshold: float | None
    """Distance below which an answer is a match; None where none could be chosen."""
    chosen: Threshold | None
    """How it was chosen; None where it was given, or could not be chosen."""

    @cached_property
    def images(self) -> GalleryImages:
        """The images of the gallery."""
        return GalleryImages(self.gallery)

    def of(self, query: int) -> Iterator[dict[str, Any]]:
        """The answers to a query, the nearest first: rank, distance, whether it is a match, and what is known of it.

        `match` is None without a threshold. `row` is that of the answer's nearest image in the gallery.
        """
        pairs = zip(self.found.row[query].tolist(), self.found.distance[query].tolist(), strict=True)
        for rank, (row, distance) in enumerate(pairs, 1):
            if row >= 0:
                match = None if self.threshold is None else distance < self.threshold
                yield {"rank": rank, "distance": round(distance, 6), "match": match, **self._facts(row), "row": row}

    def _facts(self, row: int) -> dict[str, Any]:
        """What is known of an image of the gallery."""
        facts = self.gallery.rows[row]
        texts = {name: text(facts[name]) for name in ("person", "video_name", "tracklet_name") if facts[name]}
        numbers = {name: int(facts[name]) for name in ("tracklet", "video", "frame", "camera") if facts[name] >= 0}
        return {**texts, **numbers, "image": self.images.where(row)}

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        queries = [{"query": name, "answers": [*self.of(query)]} for query, name in enumerate(self.names)]
        chosen = asdict(self.chosen) if self.chosen else None
        return {"by": self.by, "threshold": self.threshold, "chosen_by": chosen, "queries": queries}

    def about_threshold(self) -> str:
        """What a match is, and how sure that is, in words."""
        if self.threshold is None:
            return (
                "No answer is called a match: no two tracklets of the index share a frame of a video, which would tell "
                "how near strangers come. Give a distance with --threshold."
            )
        if self.chosen is None:
            return f"A match is nearer than {self.threshold:g}, as given."
        sure = self.chosen
        return (
            f"A match is nearer than {sure.distance:.4g}. Of comparisons with somebody else, {_percent(sure.rate)} are "
            f"(between {_percent(sure.low)} and {_percent(sure.high)}, at {CONFIDENCE:.0%} confidence), told by "
            f"{sure.pairs:,} pairs of {sure.tracklets:,} tracklets that share a frame, so that they are two people."
        )

    def remarks(self) -> Iterator[str]:
        """What to know before the answers are used."""
        if self.gallery.origin.match_colours:
            yield (
                "the index was embedded with --match-colours, which needs whole videos; queries keep their colours, "
                "and are somewhat farther from everybody"
            )


def ask(
    gallery: Gallery,
    queries: np.ndarray,
    names: Sequence[str],
    *,
    top: int = 10,
    by: By | None = None,
    threshold: float | None = None,
    false_match_rate: float = 0.001,
    exact: bool = False,
    progress: Progress = no_progress,
) -> Answers:
    """Search a gallery, and tell which answers are matches.

    Args:
        gallery: From `store.read`, or built from arrays.
        queries: Features (Q, D), embedded as the gallery's `origin` says.
        names: What to call each query.
        top: Answers to each.
        by: Whether answers are images, tracklets or people; by default the last of these that the gallery knows.
        threshold: Distance below which an answer is a match.
        false_match_rate: Without a threshold, the rate by which it is chosen.
        exact: Compare with all images, also where the gallery has a graph.
        progress: Called with the number of further queries that are compared with all images.
    """
    if threshold is not None and not 0 < threshold <= 2:
        raise UserError(f"threshold {threshold}: distances are 1 - cosine, from 0 to 2")
    by = by or widest_group(gallery.rows)
    found = search(gallery, queries, top, by, exact=exact, progress=progress)
    chosen = choose_threshold(gallery, false_match_rate, by) if threshold is None else None
    distance = chosen.distance if chosen else threshold
    return Answers(gallery, names, by, found, distance, chosen)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share >= 1e-5 else "0 %"

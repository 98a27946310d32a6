"""Ranked lists and their average precision by plain loops, to check against."""

import numpy as np


def ranked_plainly(
    query: np.ndarray, gallery: np.ndarray, asking: np.void, labels: np.ndarray
) -> list[tuple[int, bool]]:
    """The protocol as a person would tell it."""
    distances = [1 - float(np.dot(query.astype(float), other.astype(float))) for other in gallery]
    places = []
    for number in sorted(range(len(gallery)), key=lambda number: (distances[number], number)):
        same = labels[number]["identity"] == asking["identity"]
        junk = labels[number]["identity"] == -1
        if not junk and not (same and labels[number]["camera"] == asking["camera"]):
            places.append((number, bool(same)))
    return places


def average_precision(places: list[tuple[int, bool]]) -> float:
    ranks = [rank for rank, (_, right) in enumerate(places, 1) if right]
    return float(np.mean([result / rank for result, rank in enumerate(ranks, 1)])) if ranks else 0.0

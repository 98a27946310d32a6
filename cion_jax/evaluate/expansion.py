"""Average query expansion: a query is replaced by the mean of itself and of its nearest images in the gallery (Chum et
al., "Total Recall", ICCV 2007).

    query' = (query + sum of its nearest) / |query + sum of its nearest|
"""

import numpy as np

from cion_jax.errors import UserError
from cion_jax.evaluate.distances import check
from cion_jax.evaluate.embed import not_unit
from cion_jax.evaluate.nearest import nearest


def expanded(query: np.ndarray, gallery: np.ndarray, count: int, *, block: int = 256) -> np.ndarray:
    """The expanded queries, unit vectors, float32 (Q, D); the nearest are those by cosine.

    Args:
        query: Features of the queries, unit vectors (Q, D).
        gallery: Features of the gallery, unit vectors (G, D).
        count: How many images of the gallery are added to a query, from 0 to G; 0 leaves the queries as they are.
        block: Queries that are compared together. Beside the features, memory holds a few arrays of block x G.
    """
    check(query, gallery)
    for what, features in (("query", query), ("gallery", gallery)):
        broken = not_unit(features)
        if len(broken):
            raise UserError(f"{what}: the feature of image {broken[0]} is not a unit vector; divide it by its length")
    if not 0 <= count <= len(gallery):
        raise UserError(f"expansion by {count}: must be from 0 to {len(gallery)}, the size of the gallery")
    total = np.array(query, np.float32)
    if count == 0:
        return total
    for column in nearest(query, gallery, count, block=block).index.T:
        total += gallery[column]
    return total / np.linalg.norm(total, axis=1, keepdims=True)
